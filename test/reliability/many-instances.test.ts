import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import type { WebhookTransaction } from '../../types/index.js'
import { setupDatabases } from '../helpers/database.js'
import { expectTidy, seedSources } from '../helpers/fault-cells.js'
import { startFaultProxy } from '../helpers/fault-proxy.js'
import { txIdOf } from '../helpers/host.js'
import { poll } from '../helpers/poll.js'
import { type ServerProcess, startServer } from '../helpers/server-process.js'

const INSTANCES = 4
const timeouts = { lease: 2000, control: 5000, idle: 10_000 }
const LEASE_LOST = 2 * timeouts.lease + 46_000

/** Starts servers on one database, the first behind a proxy of its own, the others behind another. */
async function setup(t: Test, count: number) {
  const databases = await setupDatabases(t)
  const proxies = [await startFaultProxy(t, databases.url), await startFaultProxy(t, databases.url)]
  await seedSources(databases, databases.names)
  const starting = Array.from({ length: count }, (_, i) =>
    startServer(t, { url: proxies[Math.min(i, 1)].url, databases: databases.names, timeouts })
  )
  const servers = await Promise.all(starting)
  const names = { ...databases.names, backups: databases.names.system }
  const rig = { direct: databases.couch, names }
  return {
    databases,
    names,
    servers,
    proxies,
    tidy: () => expectTidy(rig),
    transaction: (id: string) =>
      poll(
        'the transaction',
        async () => {
          const found = (await databases.couch.use(names.system).get(id)) as unknown as WebhookTransaction
          return found.status === 'pending' ? undefined : found
        },
        LEASE_LOST
      ),
    /** Holds back matching requests of all servers. */
    hold(path: RegExp) {
      const releases = proxies.map((proxy) => proxy.hold({ path }))
      return () => {
        for (const release of releases) release()
      }
    },
    leaseIsFree: () =>
      poll(
        'the lease',
        async () => {
          const lease = (await databases.couch.use(names.system).get('athena_backup_lease')) as {
            operation?: string
          }
          return lease.operation === undefined ? true : undefined
        },
        5000
      ),
    sequences: () =>
      Promise.all(
        Object.values(databases.names).map(async (name) => (await databases.couch.db.get(name)).update_seq)
      )
  }
}

async function finishedBackup(server: ServerProcess, tidy: () => Promise<{ _id: string; error?: string }[]>) {
  const { json } = await server.post('')
  const header = (await tidy()).find(({ _id }) => _id === json.id)
  if (!header || header.error) throw new Error(`no backup to begin with: ${JSON.stringify([json, header])}`)
  return json.id as string
}

t.test('one of several simultaneous requests is served, and the others are told which', async (t) => {
  const { servers, hold, tidy, transaction, leaseIsFree } = await setup(t, INSTANCES)
  const every = (ask: (server: ServerProcess) => ReturnType<ServerProcess['get']>) =>
    Promise.all(servers.map(ask))
  let id = ''
  for (let round = 0; round < 2; round++) {
    const release = hold(/_changes/)
    const replies = await every((server) => server.post(''))
    const [winner, ...more] = replies.filter(({ status }) => status === 202)
    id = winner?.json.id
    t.match(winner?.json, { message: 'in-progress', id: /^03_ibp_db_backup_/ })
    t.same(more, [], 'one backup')
    const refused = { statusCode: 400, message: 'already_in_progress', id }
    const others = replies.filter(({ status }) => status !== 202).map(({ json }) => json)
    t.strictSame(others, Array(INSTANCES - 1).fill(refused))

    const restores = await every((server) => server.put(`/${id}`, {}))
    const during = { statusCode: 400, message: 'backup_in_progress', id }
    t.strictSame(
      restores.map(({ json }) => json),
      Array(INSTANCES).fill(during),
      'no restore during a backup'
    )
    release()
    t.notOk((await tidy()).find(({ _id }) => _id === id)?.error)
    await leaseIsFree()
  }

  for (let round = 0; round < 2; round++) {
    const release = hold(/_all_docs/)
    const replies = await every((server) => server.put(`/${id}`, {}))
    const [winner, ...more] = replies.filter(({ status }) => status === 202)
    const tx = txIdOf(winner?.json.url)
    t.same(more, [], 'one restore')
    const refused = { statusCode: 400, message: 'already_in_progress', id: tx }
    const others = replies.filter(({ status }) => status !== 202).map(({ json }) => json)
    t.strictSame(others, Array(INSTANCES - 1).fill(refused))

    const backups = await every((server) => server.post(''))
    const during = { statusCode: 400, message: 'restore_in_progress', id: tx }
    t.strictSame(
      backups.map(({ json }) => json),
      Array(INSTANCES).fill(during),
      'no backup during a restore'
    )
    release()
    t.equal((await transaction(tx)).status, 'success')
    await leaseIsFree()
  }
})

t.test('a server that was stopped past its lease writes nothing when it goes on', async (t) => {
  const { servers, proxies, tidy, transaction, sequences, leaseIsFree } = await setup(t, 2)
  const [stopped, other] = servers
  const [proxy] = proxies
  const id = await finishedBackup(other, tidy)

  const operations = {
    backup: async () => (await stopped.post('')).json.id as string,
    restore: async () => txIdOf((await stopped.put(`/${id}`, {})).json.url)
  }
  for (const [name, start] of Object.entries(operations)) {
    // the server waits for the last read before it writes
    const held = name === 'backup' ? /_changes/ : /backup_chunk_[0-9]+_system/
    const before = proxy.seen.length
    const release = proxy.hold({ method: 'GET', path: held })
    const running = await start()
    await poll(
      'the held request',
      async () => (proxy.seen.slice(before).some(({ path }) => held.test(path)) ? true : undefined),
      5000
    )
    stopped.signal('SIGSTOP')
    release()
    if (name === 'backup') {
      const header = (await tidy()).find(({ _id }) => _id === running)
      t.match(header, { in_progress: false, error: /^interrupted/ })
    } else {
      t.match(await transaction(running), {
        status: 'error',
        athena_messages: [/./, /^interrupted.*run it again/]
      })
    }
    // shows that the lease is free, and that the stopped server would write while others work
    const next = await poll(
      'the lease',
      async () => {
        const reply = await other.post('')
        return reply.status === 202 ? (reply.json.id as string) : undefined
      },
      LEASE_LOST
    )
    t.notOk((await tidy()).find(({ _id }) => _id === next)?.error)
    await leaseIsFree()

    const sequence = await sequences()
    const from = proxy.seen.length
    stopped.signal('SIGCONT')
    const since = () => proxy.seen.slice(from)
    await poll(
      'a sign of life',
      async () => (since().some(({ path }) => path.endsWith('_bulk_get')) ? true : undefined),
      5000
    )
    t.equal((await stopped.get('')).status, 200, 'it serves')
    // longer than its timers for renewal, progress and watching
    await delay(timeouts.lease + 500)
    const reads = /_all_docs|_changes|_bulk_get|_revs_diff/
    const writes = since().filter(({ method, path }) => !/GET|HEAD/.test(method) && !reads.test(path))
    t.strictSame(writes, [], `${name}: it asks for no write`)
    t.strictSame(await sequences(), sequence, `${name}: nothing was written`)
    await tidy()
  }
})
