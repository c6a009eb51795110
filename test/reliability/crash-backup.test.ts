import t from 'tap'
import { onRigs } from '../helpers/crash-runs.js'

t.test('a backup whose server is killed is marked and cleaned up by the next server', async (t) => {
  await onRigs(t, 4, async (rig, next, tally) => {
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
        t.equal(await rig.differencesOf(header._id), '', `${header._id} is whole`)
      }
      await rig.backup()
      for (const { _id } of await rig.headers()) known.add(_id)
    }
  })
})
