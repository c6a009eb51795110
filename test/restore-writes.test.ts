/** What a transaction shows of a restore while documents are being written, and when it ends. */
import { setTimeout as delay } from 'node:timers/promises'
import nano from 'nano'
import t, { type Test } from 'tap'
import { apiOf, backupOf } from './helpers/api.js'
import { setupDatabases } from './helpers/database.js'
import { startFaultProxy } from './helpers/fault-proxy.js'
import { buildHost } from './helpers/host.js'
import { poll } from './helpers/poll.js'

/** Documents in one request. */
const BATCH = 250
const WRITE = { method: 'POST', path: /components\/_bulk_docs/ }

async function setup(t: Test) {
  const on = await setupDatabases(t)
  const proxy = await startFaultProxy(t, on.url)
  const retry = { attempts: 2, wait: 5, longest: 10 }
  const host = await buildHost(t, { on: { ...on, couch: nano(proxy.url) }, retry })
  return { host, api: apiOf(host), proxy }
}

/** Returns documents for one request after another, each with this text. */
const batches = (...texts: string[]) =>
  backupOf(
    texts.flatMap((text, batch) => Array.from({ length: BATCH }, (_, i) => ({ _id: `${batch} ${i}`, text })))
  )

t.test('it shows what has been written while the rest is', async (t) => {
  const { host, api, proxy } = await setup(t)
  const release = proxy.hold({ ...WRITE, body: /slow/ })
  const { url } = (await api.call('PUT', '', batches('quick', 'slow'))).json()
  const id = url.slice(url.lastIndexOf('/') + 1)
  const created = async () => (await host.webhooks.get(id))?.databases?.components?.created || undefined
  t.equal(await poll('the count of the first', created, 60_000), BATCH)
  release()
  t.match(await host.waitForRestore(url), {
    status: 'success',
    databases: { components: { created: 2 * BATCH } }
  })
})

t.test('a restore that fails has ended when its last write has', async (t) => {
  const { host, api, proxy } = await setup(t)
  const release = proxy.hold({ ...WRITE, body: /slow/ })
  const failures = proxy.add({ ...WRITE, body: /poison/, fault: 'status_503', times: 1e9 })
  // as many requests as are made at a time, of which the last fails, and one more
  const texts = [...Array<string>(7).fill('slow'), 'poison', 'good']
  const { url } = (await api.call('PUT', '', batches(...texts))).json()
  await poll('the failure', () => failures.hits >= 2 || undefined)
  await delay(300)
  t.equal((await host.webhooks.get(url.slice(url.lastIndexOf('/') + 1)))?.status, 'pending')
  release()
  t.match(await host.waitForRestore(url), {
    status: 'error',
    databases: { components: { created: 7 * BATCH } }
  })
})
