import t from 'tap'
import { onRigs } from '../helpers/crash-runs.js'

t.test(
  'a restore that is killed while it backs up first has written nothing, and can be run again',
  async (t) => {
    await onRigs(
      t,
      4,
      async (rig, next, tally) => {
        const id = await rig.backup()
        await rig.configure({ safety: true })
        await rig.damage()
        const requests = await rig.requestsOf(() => rig.restore(id))
        /** Returns the backups that restores have made first, once none is in progress and nothing else is left. */
        const made = async () =>
          (await rig.headers())
            .filter(({ storage, error }) => 'before_restore' in storage && error === undefined)
            .map(({ _id }) => _id)
        while (next()) {
          await rig.damage()
          const [damaged, before] = [await rig.differences(), await made()]
          const where = await rig.crash(requests, () => rig.begin(() => rig.server.put(`/${id}`, {})))
          await rig.restart()
          await rig.endedTransactions()
          const whole = (await made()).length > before.length
          tally.add(whole ? 'had ended' : 'interrupted')
          if (!whole) t.equal(await rig.differences(), damaged, `nothing was written by a crash at ${where}`)
          const { status, failures, safety_backup: safety } = await rig.restore(id)
          t.strictSame({ status, failures }, { status: 'success', failures: [] }, `run again after ${where}`)
          t.equal(await rig.differences(), '')
          t.type(safety, 'string')
        }
      },
      { perCrash: 20_000 }
    )
  }
)
