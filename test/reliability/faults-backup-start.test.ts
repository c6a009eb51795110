import t from 'tap'
import { runMatrix } from '../helpers/fault-matrix.js'
import { backup } from '../helpers/fault-operations.js'

t.test('a backup that is being started meets every fault', (t) =>
  runMatrix(t, backup, { points: ['any call', 'lease', 'header'] })
)
