import { gzipSync } from 'node:zlib'
import nano from 'nano'
import t, { type Test } from 'tap'
import type { CouchDatabase } from '../lib/couch/database.js'
import { ChunkReader } from '../lib/repository/chunk-reader.js'
import type { ChunkWriter } from '../lib/repository/chunk-writer.js'
import { gzip } from '../lib/repository/codec.js'
import type { ChunkEntry } from '../lib/repository/layout.js'
import { chunkWriter, factsOf } from './helpers/chunk-writer.js'
import { faultyDatabase } from './helpers/couch-client.js'
import { setupDatabases } from './helpers/database.js'
import { type Fault, startFaultProxy } from './helpers/fault-proxy.js'
import { buildHost } from './helpers/host.js'
import { poll } from './helpers/poll.js'
import { bytesOf, load, seedDocuments } from './helpers/seed.js'

const ATTACHMENT = { method: 'PUT', path: /backup_chunk_.*ndjson/ }
const BACKUP = '03_ibp_db_backup_1592924104038'

/** Creates a writer of chunks behind a proxy that plays faults. */
async function setup(t: Test, timeouts?: { control: number; idle: number }) {
  const { on, proxy, db } = await faultyDatabase(t, 'system', timeouts)
  const writer = () => chunkWriter(t, db, { backup: BACKUP })
  const sent = () => proxy.seen.filter(({ method, path }) => method === 'PUT' && ATTACHMENT.path.test(path))
  return { on, proxy, db, writer, sent }
}

/** Both kinds of chunks: one held in memory, and one that is a stream. */
const KINDS: Record<string, (writer: ChunkWriter) => Promise<ChunkEntry[]>> = {
  async 'a chunk'(writer) {
    await writer.add(Buffer.from('{"_id":"a","n":1}'))
    return writer.flush()
  },
  async 'a large document'(writer) {
    await writer.addLarge('a', factsOf('a'), async function* () {
      yield Buffer.from('{"_id":"a",')
      yield Buffer.from('"n":1}')
    })
    return writer.flush()
  }
}

async function lineOf(db: CouchDatabase, entry: ChunkEntry): Promise<string> {
  const reader = new ChunkReader(db, gzip)
  if (entry.large === undefined) return (await reader.lines(entry)).toString().trimEnd()
  let text = ''
  for await (const piece of reader.document(entry)) text += piece
  return text
}

for (const [kind, store] of Object.entries(KINDS)) {
  for (const fault of [
    'effect_no_answer',
    'reply_lost',
    'duplicate',
    'accepted',
    'stall_mid',
    'cut_mid'
  ] satisfies Fault[]) {
    t.test(`${kind} that was stored is not sent again: ${fault}`, async (t) => {
      const { proxy, db, writer, sent } = await setup(t)
      const rule = proxy.add({ ...ATTACHMENT, fault })
      const startedAt = performance.now()
      const entries = await store(writer())
      t.ok(performance.now() - startedAt < 10_000, 'no time-out is waited for')
      t.equal(rule.hits, 1)
      t.equal(sent().length, 1)
      t.equal(entries.length, 1)
      t.equal(entries[0]!.rev, (await db.get(entries[0]!.id))?._rev)
      t.equal(await lineOf(db, entries[0]!), '{"_id":"a","n":1}')
    })
  }

  t.test(`${kind} whose first request comes late is stored once, by another id`, async (t) => {
    const { proxy, db, writer, sent } = await setup(t, { control: 1000, idle: 1000 })
    const release = proxy.hold(ATTACHMENT)
    const stored = store(writer())
    const [first] = await poll('the first request', () => (sent().length > 0 ? sent() : undefined))
    const [second] = await poll('the second', () => (sent().length > 1 ? sent().slice(1) : undefined), 20_000)
    release()
    const [entry] = await stored
    t.not(first!.path, second!.path)
    t.ok(second!.path.includes(entry!.id))
    t.equal(await lineOf(db, entry!), '{"_id":"a","n":1}')
    t.equal(entry!.rev, (await db.get(entry!.id))?._rev)
  })
}

t.test('a chunk is not counted as stored when other bytes are', async (t) => {
  const { proxy, db, writer, sent } = await setup(t)
  const other = gzipSync('{"_id":"a","n":1}\n', { level: 3 })
  other[other.length >> 1]! ^= 1
  let spoiled = false
  proxy.onRequest = ({ method, path }) => {
    if (spoiled || method !== 'PUT' || !ATTACHMENT.path.test(path)) return
    spoiled = true
    // the chunk's document gets another attachment, and the request is lost
    const [, name, id, query] = /^\/([^/]+)\/([^/]+)\/[^?]+\?rev=(.*)$/.exec(path) ?? []
    const db = nano(proxy.url).use(name!)
    void db.attachment.insert(id!, 'documents.ndjson.gz', other, 'application/gzip', {
      rev: query!
    })
    return false
  }
  const [entry] = await KINDS['a chunk']!(writer())
  t.ok(sent().length >= 2)
  t.equal(await lineOf(db, entry!), '{"_id":"a","n":1}')
})

t.test('ids that other documents have are passed over, but not for ever', async (t) => {
  const { proxy, writer, on } = await setup(t)
  const system = on.couch.use(on.names.system)
  const ids = Array.from(
    { length: 300 },
    (_, i) => `backup_chunk_1592924104038_components_${String(i).padStart(6, '0')}`
  )
  await system.bulk({ docs: ids.slice(0, 5).map((_id) => ({ _id })) })
  const [entry] = await KINDS['a chunk']!(writer())
  t.match(entry!.id, /_000005$/)
  await system.bulk({ docs: ids.slice(6).map((_id) => ({ _id })) })
  proxy.seen.length = 0
  await t.rejects(KINDS['a chunk']!(writer()), { error: 'conflict' } as never)
  t.ok(proxy.seen.length < 100)
})

t.test('a backup keeps nothing of attempts that failed, nor documents that no chunk needed', async (t) => {
  const on = await setupDatabases(t)
  const proxy = await startFaultProxy(t, on.url)
  const components = on.couch.use(on.names.components)
  await load(components, seedDocuments({ count: 250, size: 30_000 }), 50)
  const data = bytesOf('large', 5_000_000).toString('base64')
  await components.insert({ _id: 'large', _attachments: { a: { content_type: 'image/png', data } } } as never)
  const { app } = await buildHost(t, { on, couch: nano(proxy.url), retry: { wait: 10, longest: 100 } })
  const rule = proxy.add({ ...ATTACHMENT, fault: 'status_500', nth: 2, times: 2 })
  const { id, finished } = await app.dbBackups.start()
  await finished
  t.equal(rule.hits, 2)
  const { storage } = (await on.couch.use(on.names.system).get(id)) as unknown as {
    storage: { databases: Record<string, { chunks: ChunkEntry[]; index: ChunkEntry[] }> }
  }
  const needed = Object.values(storage.databases).flatMap(({ chunks, index }) =>
    [...chunks, ...index].map(({ id }) => id)
  )
  const { rows } = await on.couch.use(on.names.system).list({ startkey: 'backup_', endkey: 'backup_z' })
  t.ok(needed.length > 4)
  t.strictSame(
    rows.map((row) => row.id),
    needed.sort()
  )
})
