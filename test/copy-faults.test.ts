import t from 'tap'
import { backUp, change, docs } from './helpers/chain.js'
import { checkSame, isThere, setupCopySites } from './helpers/copies.js'
import { type Fault, type FaultProxy, startFaultProxy } from './helpers/fault-proxy.js'
import { cases, extent } from './helpers/settings.js'

/** Faults that pass: the copy goes on. */
const PASSING: readonly Fault[] = ['reset', 'reply_lost', 'status_503', 'cut_mid', 'reset_mid', 'accepted']
/** Requests that are struck, spread over all of them: each fault once, or several times. */
const STRUCK = PASSING.length * cases(extent(1, 2))

t.test('a copy through one fault at any request there is complete', async (t) => {
  const sites = await setupCopySites(t, { count: 20 })
  const { host, from, to, copy, stored } = sites
  const first = await backUp(host)
  await host.app.dbBackups.attach(first.id, 'notes.txt', 'hello', { contentType: 'text/plain' })
  await change(from, from.names.components, docs('added'))
  const second = await backUp(host)
  const proxy = await startFaultProxy(t, to.url)
  const there = await sites.there()
  await copy(second.id, proxy)
  await copy(first.id, proxy)
  const requests = proxy.seen.length
  t.ok(requests > 20, `${requests} requests`)
  const wipe = async () => {
    const { rows } = await to.couch.use(to.names.backups).list()
    const docs = rows.map(({ id, value }) => ({ _id: id, _rev: value.rev, _deleted: true }))
    await to.call('POST', `${to.names.backups}/_bulk_docs`, { docs })
  }
  const step = Math.max(1, requests / STRUCK)
  for (let round = 0; Math.round(1 + round * step) <= requests; round++) {
    const nth = Math.round(1 + round * step)
    await wipe()
    await proxy.clear()
    const fault = PASSING[round % PASSING.length] as Fault
    proxy.add({ fault, nth })
    for (const { id } of [second, first]) await copy(id, proxy)
    const what = `${fault} at request ${nth}`
    t.strictSame(await stored.parts(), await stored.listed([first.id, second.id]), what)
    t.strictSame(await stored.marked(), [], what)
  }
  for (const { id } of [second, first]) {
    await checkSame(t, host, there, id)
    t.match(await there.app.dbBackups.verify(id), { good: true })
  }
})

t.test('a copy that ends at any write leaves no backup, and the next one goes on', async (t) => {
  const sites = await setupCopySites(t, { count: 20 })
  const { host, to, copy, from } = sites
  const { id } = await backUp(host)
  await host.app.dbBackups.attach(id, 'notes.txt', 'hello')
  const proxy = await startFaultProxy(t, to.url)
  let copied = 0
  let rounds = 0
  for (let writes = 0; ; writes++) {
    const ended = await endedAtWrite(proxy, writes, (signal) => copy(id, proxy, signal))
    rounds++
    if (ended) {
      copied = ended.reused.parts
      break
    }
    t.notOk(await isThere(sites, id), `after ${writes} writes`)
  }
  t.ok(rounds > 3, `${rounds} rounds`)
  t.ok(copied > 0, 'the last one found what others had stored')
  await checkSame(t, host, await sites.there(), id)
  t.ok(from)
})

t.test('what a copy that ended at any write has left is deleted by the next pruning', async (t) => {
  for (let writes = 1; ; writes++) {
    const sites = await setupCopySites(t, { count: 20 })
    const { id } = await backUp(sites.host)
    const there = await sites.there()
    const own = await backUp(there)
    const proxy = await startFaultProxy(t, sites.to.url)
    if (await endedAtWrite(proxy, writes, (signal) => sites.copy(id, proxy, signal))) break
    await there.app.dbBackups.prune({ keep: { last: 1 } })
    t.strictSame(await sites.stored.parts(id), [], `after ${writes} writes`)
    t.strictSame((await there.app.dbBackups.list()).ids, [own.id])
  }
})

/** Makes a copy whose process dies after so many writes. @returns what the copy did, if it came to its end */
async function endedAtWrite<T>(
  proxy: FaultProxy,
  writes: number,
  copy: (signal: AbortSignal) => Promise<T>
): Promise<T | undefined> {
  let left = writes
  const abort = new AbortController()
  proxy.onRequest = ({ method, path }) => {
    if (!/PUT|_bulk_docs/.test(`${method} ${path}`) || /lease/.test(path)) return undefined
    if (left-- > 0) return undefined
    abort.abort(new Error('died'))
    return false
  }
  return copy(abort.signal).catch((error: Error) => {
    if (error.message !== 'died') throw error
    return undefined
  })
}
