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
import { setupDatabases } from './helpers/database.js'
import { startFaultProxy } from './helpers/fault-proxy.js'

t.test(
  'a notice that another instance has removed is gone; one that cannot be removed is told',
  async (t) => {
    const { url, names } = await setupDatabases(t)
    const proxy = await startFaultProxy(url)
    t.teardown(() => proxy.close())
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
