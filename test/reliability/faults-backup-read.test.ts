import t from 'tap'
import { runMatrix } from '../helpers/fault-matrix.js'
import { backup } from '../helpers/fault-operations.js'

t.test('a backup that reads and stores meets every fault', (t) =>
  runMatrix(t, backup, { points: ['changes', 'attachments', 'place', 'chunk', 'look'] })
)
