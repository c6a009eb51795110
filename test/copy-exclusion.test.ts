import { setTimeout as delay } from 'node:timers/promises'
import nano from 'nano'
import t, { type Test } from 'tap'
import { CouchDatabase } from '../lib/couch/database.js'
import { LeaseDocument } from '../lib/lease/lease-document.js'
import { Leases } from '../lib/lease/leases.js'
import { backUp } from './helpers/chain.js'
import { type CopySites, isThere, QUICK, setupCopySites } from './helpers/copies.js'
import { clientOf } from './helpers/couch-client.js'
import { type FaultProxy, type SeenRequest, startFaultProxy } from './helpers/fault-proxy.js'
import { buildHost } from './helpers/host.js'
import { poll } from './helpers/poll.js'

const LEASE = /athena_backup_lease/
const CHUNK = /documents\.ndjson/

/** Waits until chunks are being stored. */
const storing = (proxy: FaultProxy) =>
  poll('the copy', async () => proxy.seen.some(({ path }) => CHUNK.test(path)) || undefined)

const headerWrite =
  (id: string) =>
  ({ method, path }: SeenRequest) =>
    method === 'PUT' && path.endsWith(`/${id}`)

/** Takes the lease of the database that backups are copied to. It lasts for `ttl` milliseconds. */
async function takeLease(test: Test, { to }: CopySites, operation: 'backup' | 'copy' | 'prune', ttl: number) {
  const document = new LeaseDocument(new CouchDatabase(clientOf(test, to.url), to.names.backups))
  const leases = new Leases(document, document, ttl)
  const holder = { operation, id: `${operation}_1`, instance: 'another' }
  return leases.acquire({ holder: (carried) => ({ holder, carried }), onLost: () => {} })
}

t.test('whoever works there is waited for by nobody: a copy is refused by its name', async (t) => {
  const sites = await setupCopySites(t, { count: 5 })
  const { id } = await backUp(sites.host)
  const lease = await takeLease(t, sites, 'prune', 1000)
  await t.rejects(sites.copy(id), {
    code: 'DB_BACKUPS_IN_PROGRESS',
    message: 'prune_in_progress',
    operation: 'prune',
    id: 'prune_1'
  })
  await lease.release()
  t.match(await sites.copy(id), { already: false })
})

t.test('a lease that is left is waited for, and taken over where nothing has to be ended', async (t) => {
  const sites = await setupCopySites(t, { count: 5 })
  const { id } = await backUp(sites.host)
  ;(await takeLease(t, sites, 'copy', 1000)).abandon()
  t.match(await sites.copy(id), { already: false })
  ;(await takeLease(t, sites, 'backup', 1000)).abandon()
  await t.rejects(sites.copy(id), {
    code: 'DB_BACKUPS_COPY_CONFLICT',
    message: /a backup was interrupted there/
  })
})

t.test('while a copy runs, nothing else does there, and it is named', async (t) => {
  const sites = await setupCopySites(t)
  const { host, to, from } = sites
  const { id } = await backUp(host)
  const there = await sites.there()
  const kept = await backUp(there)
  const proxy = await startFaultProxy(t, to.url)
  const release = proxy.hold({ method: 'PUT', path: CHUNK })
  const copying = sites.copy(id, proxy)
  await storing(proxy)
  const refused = {
    code: 'DB_BACKUPS_IN_PROGRESS',
    message: 'copy_in_progress',
    operation: 'copy',
    id: /^copy_/
  }
  await t.rejects(there.app.dbBackups.start(), refused)
  await t.rejects(there.app.dbBackups.prune({ keep: { last: 1 } }), refused)
  const second = await buildHost(t, { on: from, databases: from.names, ...QUICK })
  await t.rejects(
    second.app.dbBackups.copy(id, { to: { couch: nano(to.url), database: to.names.backups } }),
    { code: 'DB_BACKUPS_IN_PROGRESS', message: 'already_in_progress', operation: 'copy' }
  )
  await t.rejects(sites.copy(id), { code: 'DB_BACKUPS_TOO_MANY_REQUESTS' }, 'one at a time on an instance')
  // The console here goes on meanwhile.
  await backUp(host)
  release()
  t.match(await copying, { already: false })
  await there.app.dbBackups.prune({ keep: { last: 9 } })
  t.ok((await there.app.dbBackups.list()).ids.includes(kept.id))
})

t.test('a copy whose lease cannot be renewed fails, and writes nothing more', async (t) => {
  const sites = await setupCopySites(t)
  const { host, to } = sites
  const { id } = await backUp(host)
  const proxy = await startFaultProxy(t, to.url)
  const release = proxy.hold({ method: 'PUT', path: CHUNK })
  const copying = sites.copy(id, proxy)
  await storing(proxy)
  proxy.add({ fault: 'status_503', path: LEASE, times: Number.POSITIVE_INFINITY })
  await t.rejects(copying, { code: 'DB_BACKUPS_LEASE_LOST' })
  proxy.seen.length = 0
  release()
  await delay(300)
  t.strictSame(
    proxy.seen.filter(({ method, path }) => method !== 'GET' && !LEASE.test(path) && !/_bulk_get/.test(path)),
    []
  )
  t.notOk(await isThere(sites, id))
  t.match(sites.events.at(-1), { type: 'copy_failed', error: { code: 'DB_BACKUPS_LEASE_LOST' } })
  await proxy.clear()
  t.match(await sites.copy(id, proxy), { already: false }, 'the next one waits for the lease, and goes on')
})

t.test('a copy ends with its signal, and with the server', async (t) => {
  const sites = await setupCopySites(t)
  const { host, to } = sites
  const { id } = await backUp(host)
  const proxy = await startFaultProxy(t, to.url)
  const reason = new Error('no longer wanted')
  await t.rejects(sites.copy(id, proxy, AbortSignal.abort(reason)), reason)
  t.strictSame(proxy.seen, [])
  const abort = new AbortController()
  const release = proxy.hold({ method: 'PUT', path: CHUNK })
  const copying = sites.copy(id, proxy, abort.signal)
  await storing(proxy)
  abort.abort(reason)
  await t.rejects(copying, reason)
  t.notOk(
    (await to.call('GET', `${to.names.backups}/athena_backup_lease`)).operation,
    'the lease is given back'
  )
  release()
  const closing = await buildHost(t, {
    on: sites.from,
    databases: sites.from.names,
    timeouts: { close: 200 }
  })
  proxy.seen.length = 0
  const held = proxy.hold({ method: 'PUT', path: CHUNK })
  const interrupted = closing.app.dbBackups.copy(id, {
    to: { couch: nano(proxy.url), database: to.names.backups }
  })
  const rejected = t.rejects(interrupted, { code: 'DB_BACKUPS_CLOSING' })
  await storing(proxy)
  await closing.app.close()
  await rejected
  held()
  t.notOk(await isThere(sites, id))
})

t.test('a console there ends the lease of a copy that died, and prunes what that left', async (t) => {
  const sites = await setupCopySites(t)
  const { host, to, stored } = sites
  const { id } = await backUp(host)
  const there = await sites.there()
  const own = await backUp(there)
  const proxy = await startFaultProxy(t, to.url)
  const stopped = proxy.hold({ path: new RegExp(`/${id}$`), method: 'PUT', body: /"in_progress"/ })
  const abort = new AbortController()
  const copying = sites.copy(id, proxy, abort.signal)
  await poll('the header', async () => proxy.seen.filter(headerWrite(id)).length > 1 || undefined)
  abort.abort(new Error('died'))
  await t.rejects(copying, { message: 'died' })
  stopped()
  t.ok((await stored.parts(id)).length > 0)
  ;(await takeLease(t, sites, 'copy', 2000)).abandon()
  await poll('the lease', () =>
    there.app.dbBackups.prune({ keep: { last: 1 } }).then(
      () => true,
      () => undefined
    )
  )
  t.strictSame(await stored.parts(id), [])
  t.strictSame(await stored.marked(), [])
  t.strictSame(await there.app.dbBackups.list(), { ids: [own.id] })
  t.match(await sites.copy(id), { already: false, reused: { parts: 0 } })
})
