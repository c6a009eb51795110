import t from 'tap'
import { crashRuns, onLanes } from '../helpers/crash-runs.js'
import { differences, LOGICAL } from '../helpers/fault-cells.js'

t.test('a backup whose server is killed is marked and cleaned up by the next server', async (t) => {
  t.setTimeout(120_000 + crashRuns(0) * 3000)
  await onLanes(t, crashRuns(16), async (lane, next) => {
    const backup = () => lane.begin(() => lane.server.post(''))
    const requests = await lane.requestsOf(async () => {
      await backup()
      await lane.headers()
    })
    let done = 1
    for (; next(); done++) {
      const where = await lane.crash(requests, backup)
      await lane.restart()
      const headers = await lane.headers()
      t.ok(headers.length >= done, `${headers.length} backups after a crash at ${where}`)
      for (const { _id, error } of headers) {
        if (error !== undefined) {
          t.match(error, /^interrupted/, `${_id} says that it was interrupted`)
          continue
        }
        const { status, json } = await lane.server.get(`/${_id}`)
        t.equal(status, 200)
        const held = LOGICAL.map((logical) => [
          logical,
          new Map(json.dbs[`athena_${logical}`].docs.map((doc: { _id: string }) => [doc._id, doc]))
        ])
        t.equal(differences(lane.expected, Object.fromEntries(held)), '', `${_id} is whole`)
      }
      for (const { _id, error } of headers) {
        if (error === undefined) continue
        t.equal((await lane.databases.couch.use(lane.names.system).get(_id))._id, _id)
      }
      await backup()
      await lane.headers()
    }
  })
})
