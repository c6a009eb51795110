import t from 'tap'
import { setupDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { leaveRemoval } from './helpers/interrupted-removal.js'
import { poll } from './helpers/poll.js'
import { fabricate, StoredBackupsOf } from './helpers/stored-backups.js'

t.test('an instance that has completed an interrupted removal completes the next one as well', async (t) => {
  const on = await setupDatabases(t)
  const ids = await fabricate(on, [{ at: 1001, chunks: 2 }, { at: 1002, chunks: 2 }, { at: 1003 }])
  const stored = new StoredBackupsOf(on)
  await buildHost(t, { on, timeouts: { lease: 2000 } })
  for (const id of ids.slice(0, 2)) {
    await leaveRemoval(stored, [id], on.names.system)
    t.equal((await stored.flaws()).length, 2, 'its chunks are there')
    await poll('the completion', async () => ((await stored.flaws()).length === 0 ? true : undefined), 20_000)
    await poll('its end', async () =>
      'operation' in (await stored.db.get('athena_backup_lease')) ? undefined : true
    )
  }
})
