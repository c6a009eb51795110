import t from 'tap'
import { runMatrix } from '../helpers/fault-matrix.js'
import { restoreStored } from '../helpers/fault-operations.js'

t.test('a restore that compares and writes meets every fault', (t) =>
  runMatrix(t, restoreStored, { points: ['scan', 'revisions', 'compare', 'write'] })
)
