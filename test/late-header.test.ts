import { setTimeout as delay } from 'node:timers/promises'
import nano from 'nano'
import t from 'tap'
import type { BackupEvent } from '../types/index.js'
import { setupDatabases } from './helpers/database.js'
import { startFaultProxy } from './helpers/fault-proxy.js'
import { buildHost } from './helpers/host.js'
import { poll } from './helpers/poll.js'

const PATIENCE = 30_000

t.test('a header that comes after its backup was given up is marked', async (t) => {
  const on = await setupDatabases(t)
  const proxy = await startFaultProxy(t, on.url)
  const { app } = await buildHost(t, {
    on,
    couch: nano(proxy.url),
    timeouts: { lease: 2000, control: 1500 }
  })
  const release = proxy.hold({ method: 'PUT', path: /03_ibp_db_backup_/ })
  await t.rejects(app.dbBackups.start(), { message: /not available/ } as never)
  t.strictSame(await app.dbBackups.list(), { ids: [] })
  release()
  const [id] = await poll(
    'the late header',
    async () => {
      const { ids } = await app.dbBackups.list()
      return ids.length > 0 ? ids : undefined
    },
    PATIENCE
  )
  const summary = await poll(
    'the marking',
    async () => {
      const found = await app.dbBackups.summary(id as string)
      return found.in_progress ? undefined : found
    },
    PATIENCE
  )
  t.match(summary, { doc_count: 0, error: /^interrupted/ })
})

t.test('a chunk that comes after the operation of a stale lease was ended is deleted', async (t) => {
  const on = await setupDatabases(t)
  const events: BackupEvent[] = []
  const { app } = await buildHost(t, {
    on,
    timeouts: { lease: 2000 },
    onEvent: (event) => void events.push(event)
  })
  // takes the lease once, so that the first look at earlier backups is over
  await (await app.dbBackups.start()).finished
  await delay(1000)
  const system = on.couch.use<{ type: string }>(on.names.system)
  const number = Date.now() + 1000
  const id = `03_ibp_db_backup_${number}`
  const operation = {
    operation: 'backup',
    id,
    instance: 'x',
    claim: 'x',
    beat: 1,
    ttl: 500,
    backups: on.names.system
  }
  const { _rev } = await system.get('athena_backup_lease')
  const lease = { _id: 'athena_backup_lease', _rev, type: 'athena_backup_lease', ...operation }
  await system.insert(lease)
  await poll(
    'the end of the operation',
    () => (events.some(({ type }) => type === 'recovered') ? true : undefined),
    PATIENCE
  )
  const chunk = `backup_chunk_${number}_components_000000`
  const late = { _id: chunk, type: 'athena_backup_chunk', backup_id: id }
  await system.insert(late)
  await poll(
    'its deletion',
    async () => ((await on.fetchAll(on.names.system)).has(chunk) ? undefined : true),
    PATIENCE
  )
  t.notOk((await app.dbBackups.list()).ids.includes(id))
})
