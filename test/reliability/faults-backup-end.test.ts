import t from 'tap'
import { runMatrix } from '../helpers/fault-matrix.js'
import { backup } from '../helpers/fault-operations.js'

t.test('a backup that ends meets every fault', (t) =>
  runMatrix(t, backup, { points: ['check', 'end', 'lease back'] })
)
