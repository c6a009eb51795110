import nano from 'nano'
import t from 'tap'
import { setupDatabases } from './helpers/database.js'
import { startFaultProxy } from './helpers/fault-proxy.js'
import { buildHost } from './helpers/host.js'
import { poll } from './helpers/poll.js'

const PATIENCE = 60_000

t.test('a header that comes after its backup was given up is marked', async (t) => {
  const on = await setupDatabases(t)
  const proxy = await startFaultProxy(on.url)
  t.teardown(() => proxy.close())
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
