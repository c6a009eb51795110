import t from 'tap'
import { crashRuns, onLanes, Tally } from '../helpers/crash-runs.js'

t.test('a restore whose server is killed says so, and can be run again', async (t) => {
  t.setTimeout(120_000 + crashRuns(0) * 10_000)
  const tally = new Tally()
  await onLanes(t, crashRuns(15), async (lane, next) => {
    const id = await lane.backup()
    await lane.damage()
    const requests = await lane.requestsOf(() => lane.restore(id))
    const known = new Set((await lane.transactions()).map(({ tx_id }) => tx_id))
    while (next()) {
      await lane.damage()
      const where = await lane.crash(requests, () => lane.begin(() => lane.server.put(`/${id}`, {})))
      await lane.restart()
      const fresh = (await lane.endedTransactions()).filter(({ tx_id }) => !known.has(tx_id))
      t.ok(fresh.length <= 1, `a crash at ${where}`)
      const [transaction] = fresh
      if (!transaction) tally.add('had not begun')
      else if (transaction.status === 'success') {
        tally.add('had ended')
        t.equal(await lane.differences(), '', `ended before a crash at ${where}`)
      } else {
        tally.add('interrupted')
        t.match(transaction.athena_messages.at(-1), /^interrupted.*run it again/, `a crash at ${where}`)
      }
      const { status, failures } = await lane.restore(id)
      t.strictSame({ status, failures }, { status: 'success', failures: [] }, 'run again')
      t.equal(await lane.differences(), '', `after a crash at ${where} the databases are as they were`)
      for (const { tx_id } of await lane.transactions()) known.add(tx_id)
    }
  })
  t.comment(tally.toString())
})
