import t from 'tap'
import { onRigs } from '../helpers/crash-runs.js'

t.test('a restore whose server is killed says so, and can be run again', async (t) => {
  await onRigs(t, 4, async (rig, next, tally) => {
    const id = await rig.backup()
    await rig.damage()
    const requests = await rig.requestsOf(() => rig.restore(id))
    const known = new Set((await rig.transactions()).map(({ tx_id }) => tx_id))
    while (next()) {
      await rig.damage()
      const where = await rig.crash(requests, () => rig.begin(() => rig.server.put(`/${id}`, {})))
      await rig.restart()
      const fresh = (await rig.endedTransactions()).filter(({ tx_id }) => !known.has(tx_id))
      t.ok(fresh.length <= 1, `a crash at ${where}`)
      const [transaction] = fresh
      if (!transaction) tally.add('had not begun')
      else if (transaction.status === 'success') {
        tally.add('had ended')
        t.equal(await rig.differences(), '', `ended before a crash at ${where}`)
      } else {
        tally.add('interrupted')
        t.match(transaction.athena_messages.at(-1), /^interrupted.*run it again/, `a crash at ${where}`)
      }
      const { status, failures } = await rig.restore(id)
      t.strictSame({ status, failures }, { status: 'success', failures: [] }, 'run again')
      t.equal(await rig.differences(), '', `after a crash at ${where} the databases are as they were`)
      for (const { tx_id } of await rig.transactions()) known.add(tx_id)
    }
  })
})
