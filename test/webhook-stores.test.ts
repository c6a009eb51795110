import { createServer, type ServerResponse } from 'node:http'
import nano from 'nano'
import t, { type Test } from 'tap'
import { createCouchWebhookStore, createMemoryWebhookStore } from '../lib/index.js'
import type { WebhookStore, WebhookTransaction } from '../types/index.js'
import { setupDatabases } from './helpers/database.js'
import { startFaultProxy } from './helpers/fault-proxy.js'
import { listen } from './helpers/listen.js'
import { load } from './helpers/seed.js'

const transaction = (txId: string, more: Partial<WebhookTransaction> = {}): WebhookTransaction => ({
  tx_id: txId,
  type: 'webhook_tx',
  sub_type: 'backup_restore',
  description: 'restoring dbs from backup',
  status: 'pending',
  by: 'somebody',
  uuid: '123',
  url: `http://localhost/ak/api/v1/webhooks/txs/${txId}`,
  ts_started: 1,
  ts_last_updated: 1,
  on_step: 1,
  total_steps: 5,
  athena_messages: ['é 漢字'],
  timeout_ms: 1000,
  ...more
})

const STORES: Record<string, (t: Test) => Promise<WebhookStore>> = {
  memory: async () => createMemoryWebhookStore(),
  couch: async (t) => {
    const { couch, names } = await setupDatabases(t)
    return createCouchWebhookStore({ couch: () => couch, database: names.system })
  }
}

for (const [name, open] of Object.entries(STORES)) {
  t.test(`the ${name} store`, async (t) => {
    const store = await open(t)

    await t.test('gives back what was created', async (t) => {
      await store.create(transaction('a'))
      await store.create(transaction('b', { backup_id: '03_ibp_db_backup_1' }))
      t.strictSame(await store.get('a'), transaction('a'))
      t.strictSame(await store.get('b'), transaction('b', { backup_id: '03_ibp_db_backup_1' }))
    })

    await t.test('knows nothing of others', async (t) => {
      for (const id of ['', 'unknown', '_all_docs', '_design/x', '__proto__', 'constructor', '../a', 'a/b']) {
        t.equal(await store.get(id), null, id)
      }
    })

    await t.test('does not create one twice', async (t) => {
      await store.create(transaction('twice'))
      await t.rejects(store.create(transaction('twice', { ts_started: 2 })), {
        code: name === 'memory' ? 'DB_BACKUPS_TRANSACTION_EXISTS' : 'DB_BACKUPS_DATABASE_ERROR'
      })
      t.strictSame(await store.get('twice'), transaction('twice'))
    })

    await t.test('merges an update, and says when', async (t) => {
      await store.create(transaction('c'))
      const before = Date.now()
      const updated = await store.update('c', { status: 'success', on_step: 5, athena_messages: ['x', 'y'] })
      const { ts_last_updated, ...others } = updated
      t.ok(before <= ts_last_updated && ts_last_updated <= Date.now())
      const { ts_last_updated: _, ...expected } = transaction('c', {
        status: 'success',
        on_step: 5,
        athena_messages: ['x', 'y']
      })
      t.strictSame(others, expected)
      t.strictSame(await store.get('c'), updated)
    })

    await t.test('does not update what is not there', async (t) => {
      await t.rejects(store.update('unknown', { on_step: 2 }), {
        name: 'TransactionNotFoundError',
        code: 'DB_BACKUPS_NO_TRANSACTION',
        statusCode: 404
      })
      t.equal(await store.get('unknown'), null)
    })

    await t.test('keeps all of several updates at a time', async (t) => {
      await store.create(transaction('d'))
      await Promise.all([
        store.update('d', { on_step: 3 }),
        store.update('d', { status: 'error' }),
        store.update('d', { ts_completed: 7 }),
        store.update('d', { athena_messages: ['z'] })
      ])
      t.match(await store.get('d'), { on_step: 3, status: 'error', ts_completed: 7, athena_messages: ['z'] })
    })

    await t.test('is not changed by what callers do with what they were given', async (t) => {
      const given = transaction('e')
      await store.create(given)
      given.athena_messages.push('changed')
      const read = await store.get('e')
      read?.athena_messages.push('changed')
      const updated = await store.update('e', { on_step: 2 })
      updated.athena_messages.push('changed')
      t.strictSame((await store.get('e'))?.athena_messages, ['é 漢字'])
    })
  })
}

for (const [name, open] of Object.entries(STORES)) {
  t.test(`the ${name} store lists the latest restores, and no dry runs`, async (t) => {
    const store = await open(t)
    await store.create(transaction('a', { ts_started: 1 }))
    await store.create(transaction('dry', { ts_started: 2, dry_run: true }))
    await store.create(transaction('b', { ts_started: 3 }))
    await store.create(transaction('c', { ts_started: 4, status: 'success' }))
    t.strictSame(await store.list?.(2), ['c', 'b'])
    t.strictSame(await store.list?.(10), ['c', 'b', 'a'])
  })
}

t.test('the memory store forgets the oldest beyond its limit', async (t) => {
  const store = createMemoryWebhookStore({ limit: 2 })
  for (const id of ['a', 'b', 'c']) await store.create(transaction(id))
  t.equal(await store.get('a'), null)
  t.ok(await store.get('b'))
  t.ok(await store.get('c'))
})

t.test('the couch store keeps to transactions', async (t) => {
  const { couch, names } = await setupDatabases(t)
  const db = couch.use(names.system)
  const store = createCouchWebhookStore({ couch, database: names.system })
  await load(db, [{ _id: '00_settings_athena', type: 'settings', secret: 1 }])
  t.equal(await store.get('00_settings_athena'), null)
  await t.rejects(store.update('00_settings_athena', { on_step: 2 }))
  await t.rejects(store.create(transaction('00_settings_athena')))
  t.match(await db.get('00_settings_athena'), { type: 'settings', secret: 1 })

  await store.create(transaction('tx'))
  t.match(await db.get('tx'), { _id: 'tx', tx_id: 'tx', type: 'webhook_tx' }, 'as athena keeps them')
  const again = createCouchWebhookStore({ couch, database: names.system })
  t.strictSame(await again.get('tx'), transaction('tx'), 'another instance reads it')
  await t.rejects(
    createCouchWebhookStore({ couch, database: `${names.system}_none` }).create(transaction('x'))
  )
})

t.test('the couch store creates a transaction once when the reply to it is lost', async (t) => {
  const { url, couch, names } = await setupDatabases(t)
  const proxy = await startFaultProxy(t, url)
  const store = createCouchWebhookStore({ couch: nano(proxy.url), database: names.system })
  const lost = proxy.add({ fault: 'reply_lost', method: 'PUT', path: /lost/ })
  await store.create(transaction('lost'))
  t.equal(lost.hits, 1)
  t.strictSame(await store.get('lost'), transaction('lost'))

  proxy.add({ fault: 'reply_lost', method: 'PUT', path: /taken/ })
  await couch.use(names.system).insert({ _id: 'taken', type: 'other', ts_started: 2 } as never)
  await t.rejects(
    store.create(transaction('taken')),
    { name: 'CouchError', status: 409 },
    'of another writer it is a conflict'
  )
})

// nano resolves with '' for the JSON, and crashes the process for anything else, where no handler can help
t.test('the couch store fails in time when an answer ends or stays away, whatever it is', async (t) => {
  const broken: Record<string, (response: ServerResponse) => void> = {
    'JSON that is cut off': (response) => cut(response, 'application/json', '{"_id":"a","_rev":"1-a"'),
    'a page that is cut off': (response) => cut(response, 'text/html', '<html>'),
    'JSON that stalls': (response) =>
      response.writeHead(200, { 'content-type': 'application/json' }).write('{"_id":"a"'),
    'a page that stalls': (response) =>
      response.writeHead(200, { 'content-type': 'text/html' }).write('<html>'),
    'no answer': () => undefined
  }
  for (const [what, answer] of Object.entries(broken)) {
    const server = createServer((_request, response) => answer(response))
    const couch = nano(await listen(t, server))
    const store = createCouchWebhookStore({ couch, database: 'system', timeout: 200 })
    const since = performance.now()
    await t.rejects(store.get('a'), { name: 'CouchError', retryable: true }, `${what}: get`)
    t.ok(performance.now() - since < 3000, 'three times the time of one call, not of 14')
    await t.rejects(
      store.create(transaction('a')),
      { name: 'CouchError', retryable: true },
      `${what}: create`
    )
  }
})

function cut(response: ServerResponse, type: string, text: string): void {
  response.writeHead(200, { 'content-type': type, 'content-length': 100 })
  response.write(text, () => setTimeout(() => response.destroy(), 20))
}
