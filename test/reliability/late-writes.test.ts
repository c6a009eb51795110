import t, { type Test } from 'tap'
import { setupDatabases } from '../helpers/database.js'
import { expectTidy, seedSources } from '../helpers/fault-cells.js'
import { startFaultProxy } from '../helpers/fault-proxy.js'
import { poll } from '../helpers/poll.js'
import { startServer } from '../helpers/server-process.js'

const timeouts = { lease: 2000, control: 5000, idle: 10_000 }
const CHUNK = /backup_chunk_[0-9]+_components/
const PATIENCE = 60_000

/** Makes a backup, and stops the server of another one while its first chunk is on its way to the database. */
async function setup(t: Test, signal: 'SIGSTOP' | 'SIGKILL') {
  const databases = await setupDatabases(t)
  const proxy = await startFaultProxy(t, databases.url)
  await seedSources(databases, databases.names)
  const names = { ...databases.names, backups: databases.names.system }
  const start = (url = databases.url) => startServer(t, { url, databases: databases.names, timeouts })
  const tidy = () => expectTidy({ direct: databases.couch, names })
  const chunksOf = async (id: string) => {
    const { rows } = await databases.couch
      .use(names.backups)
      .list({ startkey: `backup_chunk_${id.slice(17)}_`, endkey: `backup_chunk_${id.slice(17)}_\ufff0` })
    return rows.map((row) => row.id)
  }

  const stopped = await start(proxy.url)
  const good = (await stopped.post('')).json.id as string
  t.match(await tidy(), [{ _id: good, error: undefined }])
  proxy.seen.length = 0
  const release = proxy.hold({ method: 'PUT', path: CHUNK })
  const { json } = await poll(
    'the lease',
    async () => {
      const reply = await stopped.post('')
      return reply.status === 202 ? reply : undefined
    },
    PATIENCE
  )
  await poll(
    'the chunk',
    async () => (proxy.seen.some(({ path }) => CHUNK.test(path)) ? true : undefined),
    PATIENCE
  )
  stopped.signal(signal)
  return {
    id: json.id as string,
    start,
    stopped,
    chunksOf,
    /** Waits until the backup is marked as failed and all its chunks are deleted. */
    async marked() {
      t.match(await tidy(), [{ _id: good }, { _id: json.id, in_progress: false, error: /^interrupted/ }])
      t.strictSame(await chunksOf(json.id), [])
      // a stale lease would make the next server look in any case
      await poll(
        'the lease',
        async () => {
          const lease = await databases.couch.use(names.backups).get('athena_backup_lease')
          return 'operation' in lease ? undefined : true
        },
        PATIENCE
      )
    },
    /** Lets the chunk arrive. It may be deleted before it is seen, but then it is known as deleted. */
    async comes() {
      release()
      const keys = [`backup_chunk_${json.id.slice(17)}_components_000000`]
      await poll(
        'the late chunk',
        async () => {
          const { rows } = await databases.couch.use(names.backups).fetchRevs({ keys })
          return 'value' in (rows[0] ?? {}) ? true : undefined
        },
        PATIENCE
      )
    },
    /** Waits until the late chunk is gone, and checks the other backup. */
    async swept(server: Awaited<ReturnType<typeof start>>) {
      await poll(
        'the sweeping',
        async () => ((await chunksOf(json.id)).length === 0 ? true : undefined),
        PATIENCE
      )
      t.match(await tidy(), [
        { _id: good, error: undefined },
        { _id: json.id, error: /^interrupted/ }
      ])
      const { status, json: read } = await server.get(`/${good}`)
      t.equal(status, 200)
      t.equal(read.dbs.athena_components.docs.length, 30, 'the good backup is whole')
    }
  }
}

t.test('a chunk that comes after another server has cleaned up is deleted', async (t) => {
  const { start, marked, comes, swept } = await setup(t, 'SIGSTOP')
  const other = await start()
  await marked()
  await comes()
  await swept(other)
})

t.test('a chunk that comes while no server runs is deleted by the next one', async (t) => {
  const { start, stopped, marked, comes, swept } = await setup(t, 'SIGKILL')
  await stopped.exited
  const second = await start()
  await marked()
  second.signal('SIGKILL')
  await second.exited
  await comes()
  await swept(await start())
})
