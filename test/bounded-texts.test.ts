import { createServer } from 'node:http'
import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import nano from 'nano'
import t, { type Test } from 'tap'
import { createCouchWebhookStore, createMemoryWebhookStore } from '../lib/index.js'
import type { TransactionUpdate, WebhookStore } from '../types/index.js'
import { apiOf, backupOf } from './helpers/api.js'
import { setupDatabases, type TestDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { listen } from './helpers/listen.js'
import { observe } from './helpers/observed-host.js'
import { poll } from './helpers/poll.js'

const MB = 1024 * 1024
const long = (what: string) => `${what} ${'x'.repeat(MB)}`
const sizeOf = (value: unknown) => Buffer.byteLength(JSON.stringify(value))
/** Bytes in which twenty failures, a message and the counts fit. */
const A_FEW_KB = 16 * 1024
const SHORT = 4 * 1024

/** Returns documents that every database refuses. */
const refused = (count: number, id = (i: number) => `${i}-${'k'.repeat(MB)}`) =>
  Array.from({ length: count }, (_, i) => ({ _id: id(i), _foo: 1 }))

async function webhookReceiver(t: Test) {
  const bodies: string[] = []
  const server = createServer(async (request, response) => {
    bodies.push(await text(request))
    response.end()
  })
  const origin = await listen(t, server)
  return { bodies, url: `${origin}/` }
}

const couchStore = ({ couch, names }: TestDatabases) =>
  createCouchWebhookStore({ couch: () => couch, database: names.system })

t.test('documents with ids of a megabyte that are refused leave an outcome of a few KB', async (t) => {
  const receiver = await webhookReceiver(t)
  const on = await setupDatabases(t)
  const webhooks = couchStore(on)
  const host = await observe(t, { on, webhooks })
  const api = apiOf(host)
  const docs = [{ _id: 'good' }, ...refused(25)]
  const tx = await api.restore(backupOf(docs, { client_webhook_url: receiver.url }))
  t.match(tx, {
    status: 'error',
    databases: { components: { total: 26, created: 1, failed: 25 } },
    ts_completed: Number
  })
  t.equal(tx.failures?.length, 20)
  for (const { id, error } of tx.failures ?? []) {
    t.match(id, /^\d+-k+\.\.\. \(\d+ characters\)$/)
    t.equal(error, 'doc_validation')
  }
  t.match(tx.athena_messages.at(-1), /^25 documents were not restored: .* and 20 more$/)
  t.ok(sizeOf(tx) < A_FEW_KB, `the transaction has ${sizeOf(tx)} bytes`)

  const { outcome, error } = await host.event('restore_failed')
  t.ok(sizeOf(outcome) < A_FEW_KB, `the event's outcome has ${sizeOf(outcome)} bytes`)
  t.ok(error.message.length < SHORT)
  await poll('the webhook', async () => receiver.bodies[0])
  t.ok(receiver.bodies[0]!.length < A_FEW_KB, `the webhook gets ${receiver.bodies[0]!.length} bytes`)
  for (const line of host.lines) t.ok(sizeOf(line) < A_FEW_KB, `a line of the log: ${line.msg}`)
  t.equal((await api.call('POST')).statusCode, 202, 'nothing is blocked')
})

t.test('an id that is no Unicode does not keep the outcome from being stored', async (t) => {
  const on = await setupDatabases(t)
  const host = await buildHost(t, { on, webhooks: couchStore(on) })
  const upload = `{"dbs":{"components":{"docs":[{"_id":"lone\\ud800","_foo":1}]}}}`
  const tx = await apiOf(host).restore(Buffer.from(upload))
  t.match(tx, {
    status: 'error',
    databases: { components: { failed: 1 } },
    failures: [{ id: 'lone\\ud800' }]
  })
})

/** Wraps a store so that it refuses large transactions, like a CouchDB with a small `max_document_size`. */
function smallStore(bytes: number): WebhookStore & { refusals: number } {
  const store = createMemoryWebhookStore()
  const small = {
    ...store,
    refusals: 0,
    async update(txId: string, update: TransactionUpdate) {
      if (sizeOf({ ...(await store.get(txId)), ...update }) > bytes) {
        small.refusals++
        throw Object.assign(new Error(long('document_too_large')), { statusCode: 413 })
      }
      return store.update(txId, update)
    }
  }
  return small
}

t.test('a store that refuses the outcome is told how the restore ended', async (t) => {
  const webhooks = smallStore(3000)
  const host = await buildHost(t, { webhooks })
  const api = apiOf(host)
  const tx = await api.restore(backupOf([{ _id: 'good' }, ...refused(20)]))
  t.equal(webhooks.refusals, 1)
  t.match(tx, {
    status: 'error',
    databases: { components: { created: 1, failed: 20 } },
    failures: [],
    ts_completed: Number,
    athena_messages: [/^20 documents were not restored: .*; more could not be stored: document_too_large/]
  })
  const startedAt = Date.now()
  t.equal((await api.call('POST')).statusCode, 202, 'the next operation begins')
  t.ok(Date.now() - startedAt < 2000, 'at once')
})

t.test('a store that refuses to be told more of a success is told that it was one', async (t) => {
  const store = createMemoryWebhookStore()
  const host = await buildHost(t, {
    webhooks: {
      ...store,
      async update(txId, update) {
        if (update.status && (update.athena_messages?.length ?? 0) > 1) throw new Error('too large')
        return store.update(txId, update)
      }
    }
  })
  const { finished, tx_id } = await host.app.dbBackups.restore({ body: upload({ _id: 'a' }) })
  t.match(await finished, { databases: { components: { created: 1 } } })
  t.match(await store.get(tx_id), {
    status: 'success',
    databases: { components: { created: 1 } },
    athena_messages: ['the restore is done; more could not be stored: too large']
  })
})

t.test('a store that has written the outcome and fails all the same is not told again', async (t) => {
  const store = createMemoryWebhookStore()
  const host = await buildHost(t, {
    webhooks: {
      ...store,
      async update(txId, update) {
        const updated = await store.update(txId, update)
        if (updated.status !== 'pending') throw new Error('lost')
        return updated
      }
    }
  })
  const { finished, tx_id } = await host.app.dbBackups.restore({ body: upload({ _id: 'a' }) })
  t.match(await finished, { databases: { components: { created: 1 } } })
  t.match(await store.get(tx_id), { status: 'success', databases: { components: { created: 1 } } })
})

const upload = (...docs: object[]) => Readable.from([Buffer.from(JSON.stringify(backupOf(docs)))])

/** Starts a proxy that refuses matching requests with a long reason. */
async function refusing(t: Test, { url }: TestDatabases, path: RegExp) {
  const target = new URL(url)
  const authorization = `Basic ${Buffer.from(`${target.username}:${target.password}`).toString('base64')}`
  const server = createServer(async (request, response) => {
    response.setHeader('content-type', 'application/json')
    if (path.test(request.url ?? '')) {
      response.statusCode = 403
      return response.end(JSON.stringify({ error: 'e'.repeat(20_000), reason: 'r'.repeat(900_000) }))
    }
    const body = request.method === 'GET' || request.method === 'HEAD' ? undefined : await text(request)
    const headers = { 'content-type': 'application/json', ...(target.username && { authorization }) }
    const answer = await fetch(target.origin + request.url, { method: request.method, body, headers })
    response.statusCode = answer.status
    response.end(await answer.text())
  })
  return nano(await listen(t, server))
}

t.test('whatever reason the database gives, header, reply and log have a bound', async (t) => {
  const on = await setupDatabases(t)
  const host = await observe(t, { on, couch: await refusing(t, on, /_changes/) })
  const { id, finished } = await host.app.dbBackups.start()
  await t.rejects(finished, {
    message: /^GET .*: e+\.\.\. \(20000 characters\), r+\.\.\. \(900000 characters\)$/
  })
  const header = (await on.couch.use(on.names.system).get(id)) as unknown as { error: string }
  t.ok(header.error.length < SHORT, `${header.error.length} characters in the header`)
  t.match(header.error, /900000 characters/)
  const unlisted = await observe(t, { on, couch: await refusing(t, on, /startkey/) })
  const list = await apiOf(unlisted).call('GET')
  t.equal(list.statusCode, 502)
  t.ok(list.body.length < SHORT, `${list.body.length} bytes in the reply`)
  for (const line of [...host.lines, ...unlisted.lines])
    t.ok(sizeOf(line) < A_FEW_KB, `a line of the log: ${line.msg}`)
})

t.test("what the host's own code throws has a bound", async (t) => {
  const fails = (what: string) => () => {
    throw Object.assign(new Error(long(what), { cause: new Error(long('cause')) }), { code: 'E' })
  }
  await t.test('of hooks', async (t) => {
    const host = await observe(t, { versions: fails('versions'), rebuildWhitelist: fails('rebuild') })
    const api = apiOf(host)
    t.equal((await api.call('POST')).statusCode, 500)
    const tx = await api.restore(backupOf([{ _id: 'a' }]))
    t.match(tx, { status: 'error', athena_messages: /./ })
    t.ok(sizeOf(tx) < SHORT, `${sizeOf(tx)} bytes in the transaction`)
    for (const line of host.lines) t.ok(sizeOf(line) < 4 * A_FEW_KB, `a line of the log: ${line.msg}`)
  })
  await t.test('of its store', async (t) => {
    const store = createMemoryWebhookStore()
    const host = await observe(t, { webhooks: { ...store, create: fails('create') } })
    const reply = await apiOf(host).call('PUT', '', backupOf([]))
    t.equal(reply.statusCode, 500)
    t.ok(reply.body.length < SHORT)
    for (const line of host.lines) t.ok(sizeOf(line) < 4 * A_FEW_KB, `a line of the log: ${line.msg}`)
  })
  await t.test('of its refusals, and its names of people', async (t) => {
    let refuse = true
    const host = await buildHost(t, {
      authorize() {
        if (refuse) throw Object.assign(new Error(long('no')), { statusCode: 403 })
        return { name: long('name'), uuid: long('uuid') }
      },
      rebuildWhitelist() {
        throw undefined
      },
      clientWebhook: { allow: fails('allow') }
    })
    const api = apiOf(host)
    const reply = await api.call('GET')
    t.equal(reply.statusCode, 403)
    t.ok(reply.body.length < SHORT)
    refuse = false
    const tx = await api.restore(backupOf([]))
    t.match(tx, { status: 'error', by: /^name x+\.\.\. \(\d+ characters\)$/ })
    t.match(tx.athena_messages.at(-1), /white list could not be rebuilt: unknown error$/)
    t.ok(sizeOf(tx) < SHORT)
  })
})

t.test('a refusal that names what was sent has a bound', async (t) => {
  const host = await buildHost(t)
  const api = apiOf(host)
  const key = 'k'.repeat(50_000)
  const id = 'i'.repeat(MB)
  const document = (doc: object) => JSON.stringify(backupOf([doc]))
  const requests: [string, Parameters<typeof api.call>][] = [
    ['a member of a body', ['PUT', '/03_ibp_db_backup_1', { [key]: 1 }]],
    ['a member where none is expected', ['POST', '', { [key]: 1 }]],
    ['a query parameter', ['GET', `?${key.slice(0, 10_000)}=1`]],
    ['a member of a backup', ['PUT', '', { dbs: {}, [key]: 1 }]],
    ['a database', ['PUT', '', { dbs: { [key]: { docs: [] } } }]],
    ['a member of a database', ['PUT', '', { dbs: { components: { [key]: 1 } } }]],
    ['an id', ['PUT', '', document({ _id: `_${id}` })]],
    ['an id beside a revision', ['PUT', '', document({ _id: id, _rev: 'x' })]],
    ['an attachment', ['PUT', '', document({ _id: id, _attachments: { [id]: 1 } })]],
    [
      'an attachment of a large document',
      ['PUT', '', document({ _id: id, x: id.repeat(5), _attachments: { [key]: {} } })]
    ],
    ['an error', ['PUT', '', { dbs: {}, error: id }]],
    ['a webhook', ['PUT', '', { dbs: {}, client_webhook_url: `http://x/${id.slice(0, 100_000)}` }]],
    ['an encoding', ['PUT', '', '{}', { 'content-encoding': 'x'.repeat(10_000) }]]
  ]
  for (const [what, request] of requests) {
    const { statusCode, body } = await api.call(...request)
    t.ok(statusCode >= 400 && statusCode < 500, `${what}: ${statusCode}`)
    t.ok(body.length < SHORT, `${what}: ${body.length} bytes`)
  }
})
