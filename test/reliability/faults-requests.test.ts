import t from 'tap'
import { runMatrix } from '../helpers/fault-matrix.js'
import { append, get, list } from '../helpers/fault-operations.js'

for (const operation of [list, append, get]) {
  t.test(`${operation.name} meets every fault`, (t) => runMatrix(t, operation))
}
