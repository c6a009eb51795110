import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Readable } from 'node:stream'
import nano from 'nano'
import t, { type Test } from 'tap'
import { Agent, type Dispatcher, RetryAgent } from 'undici'
import { discard } from '../lib/bytes/discard.js'
import { BulkBody } from '../lib/couch/bulk-body.js'
import { type ClientSettings, CouchClient } from '../lib/couch/client.js'
import { connectionOf } from '../lib/couch/connection.js'
import { CouchDatabase } from '../lib/couch/database.js'
import { LeaseLostError } from '../lib/errors.js'
import { createMemoryWebhookStore } from '../lib/index.js'
import type { WebhookStore } from '../types/index.js'
import { apiOf, backupOf } from './helpers/api.js'
import { asData } from './helpers/couch-client.js'
import { setupDatabases } from './helpers/database.js'
import { startFaultProxy } from './helpers/fault-proxy.js'
import { buildHost } from './helpers/host.js'
import { poll } from './helpers/poll.js'

/** What the server has received of a write. */
interface Received {
  what: string
  bytes: number
  end: 'whole' | 'cut' | undefined
}

const KIB = 1024

/** Starts a database that answers writes and stalls downloads, and a client that may write while `right.held`. */
async function setup(t: Test, dispatcher?: Dispatcher) {
  const received: Received[] = []
  let downloads = 0
  const reading = { allowed: Promise.resolve() }
  const take = async (request: IncomingMessage, response: ServerResponse) => {
    const seen: Received = { what: `${request.method} ${request.url}`, bytes: 0, end: undefined }
    received.push(seen)
    await reading.allowed
    request.on('data', (piece: Buffer) => {
      seen.bytes += piece.length
    })
    await once(request, 'end').then(
      () => {
        seen.end = 'whole'
      },
      () => {
        seen.end = 'cut'
      }
    )
    response.setHeader('content-type', 'application/json')
    response.end(request.url?.endsWith('_bulk_docs') ? '[{"id":"a","rev":"1-a"}]' : '{"ok":true,"rev":"2-a"}')
  }
  const server = createServer((request, response) => {
    if (request.method !== 'GET') return void take(request, response)
    response.setHeader('content-type', 'application/json')
    if (!request.url?.endsWith('/download')) return void response.end('{"_id":"doc","_rev":"1-a"}')
    downloads++
    response.setHeader('content-length', 2 ** 30)
    response.write(Buffer.alloc(256 * KIB, 0x20))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const couch = nano({ url, agentOptions: dispatcher } as never)
  const right = { held: true }
  const settings: ClientSettings = {
    connect: () => connectionOf(couch),
    retry: { attempts: 1, wait: 1, longest: 1 },
    control: 10_000,
    idle: 10_000,
    beforeWrite() {
      if (!right.held) throw new LeaseLostError()
    }
  }
  const client = new CouchClient(settings)
  t.teardown(async () => {
    await client.close()
    await dispatcher?.destroy()
    server.close()
    server.closeAllConnections()
  })
  const stall = async (count: number) => {
    const stalled = await Promise.all(
      Array.from({ length: count }, () => client.stream({ path: ['db', 'download'] }))
    )
    return () => {
      for (const download of stalled) download.discard()
    }
  }
  return {
    client,
    db: new CouchDatabase(client, 'db'),
    right,
    received,
    reading,
    downloads: () => downloads,
    stall
  }
}

const bulkOf = (bytes: number) => BulkBody.of(true, [Buffer.from(`{"_id":"a","v":"${'x'.repeat(bytes)}"}`)])

async function* pieces(count: number, bytes: number, before: (piece: number) => void) {
  for (let i = 0; i < count; i++) {
    before(i)
    yield Buffer.alloc(bytes)
  }
}

/** A write for each form of request. */
const writesOf = (db: CouchDatabase): Record<string, () => Promise<unknown>> => ({
  'a batch of documents': () => db.once.writeBulk(bulkOf(352 * KIB)),
  'a document': () => db.put({ _id: 'doc' }),
  'an attachment': () => db.putAttachment('doc', 'a', '1-a', 'text/plain', asData('text')),
  'a streamed attachment': () =>
    db.once.putAttachment('doc', 'a', '1-a', 'text/plain', {
      length: undefined,
      open: () => pieces(2, 1000, () => {})
    }),
  'a deletion': () => db.delete('doc', '1-a'),
  'a new database': () => db.client.send({ method: 'PUT', path: ['db'], write: true })
})

const dispatchers: Record<string, { connections: number; make: () => Dispatcher | undefined }> = {
  "the plugin's own connections": { connections: 64, make: () => undefined },
  "a host's dispatcher": { connections: 2, make: () => new Agent({ connections: 2 }) },
  "a host's dispatcher that repeats requests": {
    connections: 2,
    make: () => new RetryAgent(new Agent({ connections: 2 }), { minTimeout: 10, maxTimeout: 10 })
  }
}

for (const [name, { connections, make }] of Object.entries(dispatchers)) {
  t.test(`${name}: what waits for a connection is not sent when the right to write has ended`, async (t) => {
    const { db, right, received, stall, downloads } = await setup(t, make())
    const release = await stall(connections)
    t.equal(downloads(), connections, 'every connection has a download that nobody reads')
    const outcomes = Object.entries(writesOf(db)).map(async ([what, write]) => {
      await t.rejects(write(), new LeaseLostError(), what)
    })
    right.held = false
    release()
    await Promise.all(outcomes)
    // everything sent before this has arrived as well
    t.match(await db.get('doc'), { _id: 'doc' })
    t.strictSame(received, [])
  })

  t.test(`${name}: writes arrive whole while the right to write is held`, async (t) => {
    const { db, received } = await setup(t, make())
    for (const write of Object.values(writesOf(db))) await write()
    t.strictSame(
      received.map(({ what, bytes, end }) => [what, bytes, end]),
      [
        ['POST /db/_bulk_docs', bulkOf(352 * KIB).bytes().length, 'whole'],
        ['PUT /db/doc', '{"_id":"doc"}'.length, 'whole'],
        ['PUT /db/doc/a?rev=1-a', 4, 'whole'],
        ['PUT /db/doc/a?rev=1-a', 2000, 'whole'],
        ['DELETE /db/doc?rev=1-a', 0, 'whole'],
        ['PUT /db', 0, 'whole']
      ]
    )
  })
}

t.test(
  'a streamed body stays incomplete when the right to write ends in its middle, or at its end',
  async (t) => {
    const { db, right, received } = await setup(t)
    const put = (endsAt: number) => {
      right.held = true
      const open = async function* () {
        yield* pieces(2, 1000, (piece) => {
          if (piece === endsAt) right.held = false
        })
        if (endsAt === 2) right.held = false
      }
      return db.once.putAttachment('doc', 'a', '1-a', 'application/gzip', { length: undefined, open })
    }
    await put(3)
    await t.rejects(put(1), new LeaseLostError())
    await t.rejects(put(2), new LeaseLostError())
    await poll('the requests', () => (received.every(({ end }) => end) && received.length === 3) || undefined)
    t.strictSame(
      received.map(({ end }) => end),
      ['whole', 'cut', 'cut']
    )
  }
)
t.test('a body that is one buffer stays incomplete when the database reads it too late', async (t) => {
  const { db, right, received, reading } = await setup(t)
  let read = () => {}
  reading.allowed = new Promise((resolve) => {
    read = resolve
  })
  // more than the buffers of the sockets hold
  const write = db.once.writeBulk(bulkOf(64 * KIB * KIB))
  await poll('the request', () => received[0])
  right.held = false
  read()
  await t.rejects(write, new LeaseLostError())
  const { end } = await poll('the end', () => received.find(({ end }) => end))
  t.equal(end, 'cut')
})

t.test('reserved connections are not waited for while stalled downloads take all others', async (t) => {
  const { client, db, received, stall } = await setup(t)
  const release = await stall(64)
  const waiting = db.get('doc')
  const reserved = db.on(client.for('renewals'))
  t.match(await reserved.get('doc'), { _id: 'doc' })
  t.equal(await reserved.put({ _id: 'doc' }), '2-a')
  t.match(
    await db.on(client.for('renewals').with({ control: 1000 })).get('doc'),
    { _id: 'doc' },
    'with settings'
  )
  t.equal(received.length, 1)
  const overtaken = await Promise.race([waiting, 'still waiting'])
  t.equal(overtaken, 'still waiting')
  release()
  t.match(await waiting, { _id: 'doc' })
})

t.test('closing a client ends its reserved connections as well', async (t) => {
  const { client, db } = await setup(t)
  const reserved = client.for('renewals')
  await db.on(reserved).get('doc')
  await client.close()
  await t.rejects(db.on(reserved).get('doc'), { message: /unreachable/ })
})

t.test(
  'batches that wait behind stalled downloads are not sent once another server has taken over',
  async (t) => {
    const on = await setupDatabases(t)
    const proxy = await startFaultProxy(t, on.url)
    const dispatcher = new Agent({ connections: 6 })
    t.teardown(() => dispatcher.destroy())
    const webhooks = createMemoryWebhookStore()
    const timeouts = { lease: 2000 }
    const couch = nano({ url: proxy.url, agentOptions: dispatcher } as never)
    const first = await buildHost(t, { on, couch, webhooks, timeouts })
    const second = await buildHost(t, { on, webhooks, timeouts })

    proxy.add({ path: /download/, fault: 'stall_mid', times: Number.POSITIVE_INFINITY })
    const { origin } = new URL(proxy.url)
    const stalled = await Promise.all(
      Array.from({ length: 4 }, () => dispatcher.request({ origin, path: '/?download', method: 'GET' }))
    )
    const batches = () => proxy.seen.filter(({ path }) => path.endsWith('_bulk_docs')).length
    const release = proxy.hold({ path: /_bulk_docs/ })
    const documents = Array.from({ length: 2500 }, (_, i) => ({ _id: `doc ${i}` }))
    const { finished } = await first.app.dbBackups.restore({ body: bodyOf(backupOf(documents)) })
    // renewals wait behind the downloads as well, since the host provides no other connections
    const lost = t.rejects(finished, { message: 'the lease could not be renewed in time' })
    await poll('batches in flight', () => batches() === 2 || undefined)

    const backup = await poll('the second server', async () => {
      const reply = await apiOf(second).call('POST')
      return reply.statusCode === 202 ? (reply.json().id as string) : undefined
    })
    t.match(await second.waitForBackup(backup), { in_progress: false, error: undefined })
    // writes in flight do not reach the database, so that only the later ones can change it
    proxy.add({ path: /_bulk_docs/, fault: 'reset', times: 2 })
    release()
    for (const { body } of stalled) discard(body)
    await lost
    t.equal(batches(), 2)
    t.strictSame([...(await on.fetchAll(on.names.components)).keys()], [])
  }
)

t.test('a restore that lost its lease while its transaction was read does not end it', async (t) => {
  const on = await setupDatabases(t)
  const memory = createMemoryWebhookStore()
  const system = on.couch.use(on.names.system)
  const asked: unknown[] = []
  let atEnd = false
  const webhooks: WebhookStore = {
    ...memory,
    async get(txId) {
      const transaction = await memory.get(txId)
      if (atEnd) {
        atEnd = false
        // another instance takes over the lease, and this one notices
        const lease = (await system.get('athena_backup_lease')) as unknown as { claim: string }
        await system.insert({ ...lease, claim: 'other', after: lease.claim, beat: 0 } as object)
        await new Promise((resolve) => setTimeout(resolve, 2000))
      }
      return transaction
    },
    async update(txId, update) {
      asked.push(update.status)
      return memory.update(txId, update)
    }
  }
  const host = await buildHost(t, {
    on,
    webhooks,
    timeouts: { lease: 2000 },
    rebuildWhitelist() {
      atEnd = true
    }
  })
  const { finished } = await host.app.dbBackups.restore({ body: bodyOf(backupOf([{ _id: 'a' }])) })
  await t.rejects(finished, { message: 'another server instance has taken over' })
  t.notOk(asked.includes('success'), 'it is not said to be a success')
  t.notOk(asked.includes('error'), 'whoever took over says how it ended')
  t.equal((await apiOf(host).call('GET')).statusCode, 200)
})

const bodyOf = (backup: object) => Readable.from([Buffer.from(JSON.stringify(backup))], { objectMode: false })
