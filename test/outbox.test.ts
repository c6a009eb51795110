import { createServer } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'
import nano from 'nano'
import t from 'tap'
import { CouchClient } from '../lib/couch/client.js'
import { connectionTo } from '../lib/couch/connection.js'
import { CouchDatabase } from '../lib/couch/database.js'
import { ONCE } from '../lib/couch/retry.js'
import { EventStream } from '../lib/observe/event-stream.js'
import type { Instance } from '../lib/operations/instance.js'
import { Outbox } from '../lib/operations/outbox.js'
import { Transactions } from '../lib/operations/transactions.js'
import { createMemoryWebhookStore } from '../lib/webhooks/memory-store.js'
import type { WebhookTransaction } from '../types/index.js'
import { setupDatabases } from './helpers/database.js'
import { startFaultProxy } from './helpers/fault-proxy.js'
import { listen } from './helpers/listen.js'
import { poll } from './helpers/poll.js'

t.test(
  'a notice that another instance has removed is gone; one that cannot be removed is told',
  async (t) => {
    const { url, names } = await setupDatabases(t)
    const proxy = await startFaultProxy(t, url)
    const couch = nano(proxy.url)
    const settings = { connect: () => connectionTo(couch), retry: ONCE, control: 30_000, idle: 30_000 }
    const db = new CouchDatabase(new CouchClient(settings), names.system)
    const events = new EventStream([], () => {})
    const options = { timeouts: { lease: 1000 } }
    const transactions = new Transactions(createMemoryWebhookStore(), 1000)
    const outbox = new Outbox({ events, options } as unknown as Instance, db, transactions)
    t.teardown(() => outbox.close())
    const noticed = async () => (await nano(url).use(names.system).list()).rows.map(({ id }) => id)
    await outbox.add(['a', 'a'])
    t.strictSame(await noticed(), ['athena_backup_notice_a'])
    for (const [fault, status] of [
      ['conflict_storm', 409],
      ['status_401', 401]
    ] as const) {
      const rule = proxy.add({ fault, method: 'DELETE' })
      const removed = outbox.send('a')
      if (status === 409) await t.resolves(removed)
      else await t.rejects(removed, { name: 'CouchError', status } as object as Error)
      t.equal(rule.hits, 1, fault)
    }
    await outbox.send('a')
    await outbox.send('a')
    t.strictSame(await noticed(), [])
  }
)

t.test('clients whose notices are overdue are told a few at a time, and all', async (t) => {
  const { url, names } = await setupDatabases(t)
  let [telling, most] = [0, 0]
  const receiver = createServer(async (request, response) => {
    request.resume()
    most = Math.max(most, ++telling)
    await delay(20)
    telling--
    response.writeHead(request.url === '/bad' ? 400 : 200).end()
  })
  const origin = await listen(t, receiver)
  const couch = nano(url)
  const settings = { connect: () => connectionTo(couch), retry: ONCE, control: 30_000, idle: 30_000 }
  const client = new CouchClient(settings)
  const store = createMemoryWebhookStore()
  const txIds = Array.from({ length: 40 }, (_, i) => `tx_${i}`)
  for (const [i, tx_id] of txIds.entries()) {
    const client_webhook_url = `${origin}/${i % 2 ? 'bad' : 'good'}`
    const about = { type: 'webhook_tx', sub_type: 'backup_restore', status: 'success' }
    await store.create({ tx_id, ...about, client_webhook_url } as unknown as WebhookTransaction)
  }
  const options = { timeouts: { lease: 0 } }
  const instance = { events: new EventStream([], () => {}), options } as unknown as Instance
  const outbox = new Outbox(instance, new CouchDatabase(client, names.system), new Transactions(store, 1000))
  t.teardown(async () => {
    await outbox.close()
    await client.close()
  })
  await outbox.add(txIds)
  await outbox.sendOverdue()
  t.ok(most > 1 && most <= 8, `${most} at a time`)
  const delivered = await Promise.all(txIds.map(async (txId) => (await store.get(txId))?.client_webhook))
  t.equal(delivered.filter((delivery) => delivery?.delivered).length, 20)
  t.strictSame((await couch.use(names.system).list()).rows, [], 'no notice is left')
})

t.test('a client is told by one instance, and by others only when that takes too long', async (t) => {
  const { url, names } = await setupDatabases(t)
  let asked = 0
  let answer = () => {}
  const answering = new Promise<void>((resolve) => {
    answer = resolve
  })
  const receiver = createServer(async (request, response) => {
    request.resume()
    asked++
    await answering
    response.end()
  })
  const client_webhook_url = `${await listen(t, receiver)}/`
  const store = createMemoryWebhookStore()
  const about = { type: 'webhook_tx', sub_type: 'backup_restore', status: 'success' }
  await store.create({ tx_id: 'tx', ...about, client_webhook_url } as unknown as WebhookTransaction)
  const couch = nano(url)
  const settings = { connect: () => connectionTo(couch), retry: ONCE, control: 30_000, idle: 30_000 }
  const client = new CouchClient(settings)
  const options = { timeouts: { lease: 1000 } }
  const instance = { events: new EventStream([], () => {}), options } as unknown as Instance
  const database = new CouchDatabase(client, names.system)
  const [own, other] = [0, 1].map(() => new Outbox(instance, database, new Transactions(store, 30_000)))
  t.teardown(async () => {
    for (const outbox of [own!, other!]) await outbox.close()
    await client.close()
  })
  await own!.add(['tx'])
  const sent = own!.send('tx')
  await poll('the client', () => (asked > 0 ? true : undefined))
  for (const outbox of [own!, other!]) await outbox.sendOverdue()
  t.equal(asked, 1, 'the other instance is patient')
  await delay(2 * options.timeouts.lease)
  await own!.sendOverdue()
  t.equal(asked, 1, 'nobody is told twice at a time')
  const again = other!.sendOverdue()
  await poll('the other instance', () => (asked > 1 ? true : undefined))
  answer()
  await Promise.all([sent, again])
  t.equal(asked, 2)
  t.match(await store.get('tx'), { client_webhook: { delivered: true } })
})
