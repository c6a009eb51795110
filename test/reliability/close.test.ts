import t, { type Test } from 'tap'
import type { WebhookTransaction } from '../../types/index.js'
import { setupDatabases } from '../helpers/database.js'
import { expectTidy, seedSources } from '../helpers/fault-cells.js'
import { startFaultProxy } from '../helpers/fault-proxy.js'
import { poll } from '../helpers/poll.js'
import { startServer } from '../helpers/server-process.js'

const timeouts = { close: 2000, lease: 2000, control: 1000, idle: 20_000 }
/** Milliseconds that a process may take to end on a busy machine, in addition to closing. */
const MARGIN = 3000

async function setup(t: Test) {
  const databases = await setupDatabases(t)
  const proxy = await startFaultProxy(t, databases.url)
  await seedSources(databases, databases.names)
  const names = { ...databases.names, backups: databases.names.system }
  const start = () => startServer(t, { url: proxy.url, databases: databases.names, timeouts })
  const server = await start()
  return {
    proxy,
    server,
    start,
    headers: () => expectTidy({ direct: databases.couch, names }),
    read: async (id: string) => (await databases.couch.use(names.system).get(id)) as object,
    /** Waits until the operation hangs on a request that the proxy holds back. */
    held: (path: RegExp) =>
      poll(
        'the held request',
        async () => (proxy.seen.some((seen) => path.test(seen.path)) ? true : undefined),
        5000
      ),
    /** Returns how long the server took to close and its process to end. */
    async close() {
      const from = performance.now()
      server.signal('SIGTERM')
      t.strictSame(await server.exited, [0, null], 'the process ends by itself')
      t.equal(server.errors, '')
      return performance.now() - from
    }
  }
}

t.test('an idle server closes at once', async (t) => {
  const { close } = await setup(t)
  t.ok((await close()) < timeouts.close + MARGIN)
})

t.test('closing stops a backup, and marks it', async (t) => {
  const { proxy, server, held, close, read } = await setup(t)
  proxy.hold({ path: /_changes/ })
  const { json } = await server.post('')
  await held(/_changes/)
  t.ok((await close()) < timeouts.close + MARGIN)
  t.match(await read(json.id), { in_progress: false, error: /^interrupted/ })
  t.match(await read('athena_backup_lease'), { operation: undefined }, 'the lease is free')
})

t.test('closing stops a restore, and its transaction says so', async (t) => {
  const { proxy, server, held, close, read, headers } = await setup(t)
  const { json } = await server.post('')
  t.match(await headers(), [{ _id: json.id, error: undefined }])
  await poll(
    'the lease',
    async () => ('operation' in (await read('athena_backup_lease')) ? undefined : true),
    5000
  )
  proxy.seen.length = 0
  proxy.hold({ method: 'GET', path: /_all_docs\?(?!startkey="(backup|03))/ })
  const started = await server.put(`/${json.id}`, {})
  t.equal(started.status, 202)
  await held(/_all_docs\?(?!startkey="(backup|03))/)
  t.ok((await close()) < timeouts.close + MARGIN)
  const tx = (await read(started.json.url.split('/').at(-1))) as WebhookTransaction
  t.match(tx, { status: 'error' })
  t.match(tx.athena_messages.at(-1), /^interrupted/)
  t.match(await read('athena_backup_lease'), { operation: undefined }, 'the lease is free')
})

t.test('a database that does not answer does not keep the server from closing', async (t) => {
  const { proxy, server, held, close, start, headers } = await setup(t)
  proxy.hold({ path: /_changes/ })
  const { json } = await server.post('')
  await held(/_changes/)
  proxy.hold({ path: /./ })
  t.ok((await close()) < timeouts.close + MARGIN)
  await proxy.clear()
  await start()
  const header = (await headers()).find(({ _id }) => _id === json.id)
  t.match(header, { in_progress: false, error: /^interrupted/ }, 'the next server marks the backup')
})
