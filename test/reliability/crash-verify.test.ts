import t from 'tap'
import { type CrashRig, onRigs, TAKEOVER } from '../helpers/crash-runs.js'
import { poll } from '../helpers/poll.js'

/** Lists the databases into which a verification has restored. */
async function scratchDatabases(rig: CrashRig, before: ReadonlySet<string>): Promise<string[]> {
  const names = await rig.databases.couch.db.list()
  return names.filter((name) => name.startsWith('db_backups_scratch_') && !before.has(name))
}

t.test(
  'a verification whose server is killed leaves no scratch database, and can be run again',
  async (t) => {
    // One rig at a time, since scratch databases do not tell whose they are.
    await onRigs(
      t,
      3,
      async (rig, next, tally) => {
        const before = new Set(await rig.databases.couch.db.list())
        const id = await rig.backup()
        const verify = () => rig.begin(() => rig.server.post(`/${id}/verify/restore`))
        const requests = await rig.requestsOf(async () =>
          t.match((await verify()).json, { good: true, complete: true })
        )
        while (next()) {
          const where = await rig.crash(requests, verify)
          tally.add((await scratchDatabases(rig, before)).length > 0 ? 'interrupted' : 'had ended')
          await rig.restart()
          const gone = async () => ((await scratchDatabases(rig, before)).length === 0 ? true : undefined)
          await poll(`the end of the scratch databases after a crash at ${where}`, gone, TAKEOVER)
          t.match(
            (await verify()).json,
            { good: true, complete: true, problem_count: 0 },
            `after a crash at ${where}`
          )
          t.strictSame(await scratchDatabases(rig, before), [])
          t.equal(await rig.differences(), '', 'the databases are as they were')
        }
      },
      { jobs: 1, perCrash: 20_000 }
    )
  }
)
