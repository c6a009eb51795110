import t from 'tap'
import { runMatrix } from './helpers/fault-cells.js'
import { append, get, list, restoreStored, restoreUpload } from './helpers/fault-operations.js'

const all = { append, get, list, restoreStored, restoreUpload }
const op = all[(process.env.OP ?? 'list') as keyof typeof all]
t.test('x', (t) => runMatrix(t, op, { ownSources: op === restoreStored || op === restoreUpload, points: process.env.POINTS?.split(',') }))
