import t from 'tap'
import { crashRuns, onLanes } from '../helpers/crash-runs.js'

t.test('a restore whose server is killed says so, and can be run again', async (t) => {
  t.setTimeout(120_000 + crashRuns(0) * 4000)
  await onLanes(t, crashRuns(16), async (lane, next) => {
    await lane.begin(() => lane.server.post(''))
    const [{ _id: id }] = await lane.headers()
    const restore = () => lane.begin(() => lane.server.put(`/${id}`, {}))
    const restored = async () => {
      const { json } = await restore()
      const tx = json.url.slice(json.url.lastIndexOf('/') + 1)
      return (await lane.endedTransactions()).find(({ tx_id }) => tx_id === tx)
    }
    await lane.damage()
    const requests = await lane.requestsOf(restored)
    const known = new Set((await lane.transactions()).map(({ tx_id }) => tx_id))
    while (next()) {
      await lane.damage()
      const where = await lane.crash(requests, restore)
      await lane.restart()
      const interrupted = (await lane.endedTransactions()).filter(({ tx_id }) => !known.has(tx_id))
      t.ok(interrupted.length <= 1)
      for (const { tx_id, status, athena_messages } of interrupted) {
        known.add(tx_id)
        if (status === 'success') t.equal(await lane.differences(), '', `ended before a crash at ${where}`)
        else t.match(athena_messages.at(-1), /^interrupted.*run it again/, `crash at ${where}`)
      }
      const again = await restored()
      known.add(again?.tx_id ?? '')
      t.match(again, { status: 'success', failures: [] }, 'run again')
      t.equal(await lane.differences(), '', `after a crash at ${where} the databases are as they were`)
    }
  })
})
