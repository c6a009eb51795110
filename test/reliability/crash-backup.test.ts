import t from 'tap'
import { crashRuns, onLanes, Tally } from '../helpers/crash-runs.js'
import { differences, LOGICAL } from '../helpers/fault-cells.js'

t.test('a backup whose server is killed is marked and cleaned up by the next server', async (t) => {
  t.setTimeout(120_000 + crashRuns(0) * 10_000)
  const tally = new Tally()
  await onLanes(t, crashRuns(15), async (lane, next) => {
    const requests = await lane.requestsOf(() => lane.backup())
    const known = new Set((await lane.headers()).map(({ _id }) => _id))
    while (next()) {
      const where = await lane.crash(requests, () => lane.begin(() => lane.server.post('')))
      await lane.restart()
      const headers = await lane.headers()
      const fresh = headers.filter(({ _id }) => !known.has(_id))
      t.equal(headers.length, known.size + fresh.length, 'earlier backups are still there')
      t.ok(fresh.length <= 1, `a crash at ${where}`)
      const [header] = fresh
      tally.add(!header ? 'had not begun' : header.error ? 'interrupted' : 'had ended')
      if (header?.error) t.match(header.error, /^interrupted/, `${header._id} says that it was interrupted`)
      else if (header) {
        const { status, json } = await lane.server.get(`/${header._id}`)
        t.equal(status, 200)
        const held = LOGICAL.map((logical) => [
          logical,
          new Map(json.dbs[`athena_${logical}`].docs.map((doc: { _id: string }) => [doc._id, doc]))
        ])
        t.equal(differences(lane.expected, Object.fromEntries(held)), '', `${header._id} is whole`)
      }
      await lane.backup()
      for (const { _id } of await lane.headers()) known.add(_id)
    }
  })
  t.comment(tally.toString())
})
