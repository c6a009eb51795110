import t from 'tap'
import { runMatrix } from '../helpers/fault-matrix.js'
import { restoreStored } from '../helpers/fault-operations.js'

t.test('a restore that is being started meets every fault', (t) =>
  runMatrix(t, restoreStored, {
    points: ['any call', 'lease', 'transaction', 'step', 'read header', 'read chunk']
  })
)
