import t from 'tap'
import { runMatrix } from '../helpers/fault-matrix.js'
import { restoreUpload } from '../helpers/fault-operations.js'

t.test('a restore of an upload meets every fault', (t) => runMatrix(t, restoreUpload))
