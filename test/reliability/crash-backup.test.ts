import t from 'tap'
import { crashRuns, onRigs, Tally } from '../helpers/crash-runs.js'
import { DATABASES } from '../helpers/database.js'
import { differences } from '../helpers/fault-cells.js'

t.test('a backup whose server is killed is marked and cleaned up by the next server', async (t) => {
  t.setTimeout(120_000 + crashRuns(0) * 10_000)
  const tally = new Tally()
  await onRigs(t, crashRuns(4), async (rig, next) => {
    const requests = await rig.requestsOf(() => rig.backup())
    const known = new Set((await rig.headers()).map(({ _id }) => _id))
    while (next()) {
      const where = await rig.crash(requests, () => rig.begin(() => rig.server.post('')))
      await rig.restart()
      const headers = await rig.headers()
      const fresh = headers.filter(({ _id }) => !known.has(_id))
      t.equal(headers.length, known.size + fresh.length, 'earlier backups are still there')
      t.ok(fresh.length <= 1, `a crash at ${where}`)
      const [header] = fresh
      tally.add(!header ? 'had not begun' : header.error ? 'interrupted' : 'had ended')
      if (header?.error) t.match(header.error, /^interrupted/, `${header._id} says that it was interrupted`)
      else if (header) {
        const { status, json } = await rig.server.get(`/${header._id}`)
        t.equal(status, 200)
        const held = DATABASES.map((logical) => [
          logical,
          new Map(json.dbs[`athena_${logical}`].docs.map((doc: { _id: string }) => [doc._id, doc]))
        ])
        t.equal(differences(rig.expected, Object.fromEntries(held)), '', `${header._id} is whole`)
      }
      await rig.backup()
      for (const { _id } of await rig.headers()) known.add(_id)
    }
  })
  t.comment(tally.toString())
})
