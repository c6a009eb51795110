import t from 'tap'
import { LEASE, setupDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { poll } from './helpers/poll.js'
import { fabricate, StoredBackupsOf } from './helpers/stored-backups.js'

t.test('an instance that has completed an interrupted removal completes the next one as well', async (t) => {
  const on = await setupDatabases(t)
  const ids = await fabricate(on, [{ at: 1001, chunks: 2 }, { at: 1002, chunks: 2 }, { at: 1003 }])
  const stored = new StoredBackupsOf(on)
  await buildHost(t, { on, timeouts: { lease: 2000 } })
  for (const id of ids.slice(0, 2)) {
    await stored.leaveRemoval([id])
    t.equal((await stored.flaws()).length, 2, 'its chunks are there')
    await poll('the completion', async () => ((await stored.flaws()).length === 0 ? true : undefined), 20_000)
    await poll('its end', async () => ('operation' in (await stored.db.get(LEASE)) ? undefined : true))
  }
})

t.test('a dry run takes nothing as its own that another instance removes afterwards', async (t) => {
  const on = await setupDatabases(t)
  const ids = await fabricate(on, [{ at: 1001 }, { at: 1002 }, { at: 1003 }])
  await new StoredBackupsOf(on).markRemoved(ids.slice(0, 1))
  const [one, other] = [
    (await buildHost(t, { on })).app.dbBackups,
    (await buildHost(t, { on })).app.dbBackups
  ]
  const keep = { last: 1 }
  const idsOf = ({ removed }: { removed: readonly { id: string }[] }) => removed.map(({ id }) => id)
  t.strictSame(idsOf(await one.prune({ keep, dryRun: true })), ids.slice(0, 2))
  t.strictSame(idsOf(await other.prune({ keep })), ids.slice(0, 2))
  t.strictSame(idsOf(await one.prune({ keep })), [])
})
