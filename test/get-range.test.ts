import { createHash } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { gzipSync } from 'node:zlib'
import fc from 'fast-check'
import nano, { type DocumentScope } from 'nano'
import t, { type Test } from 'tap'
import type { ChunkEntry, StoredHeader } from '../lib/repository/layout.js'
import { type Api, apiOf } from './helpers/api.js'
import { revisionIn, setupDatabases } from './helpers/database.js'
import { startFaultProxy } from './helpers/fault-proxy.js'
import { startGate } from './helpers/gate.js'
import { buildHost } from './helpers/host.js'
import { load, repeatedBytes, seedDocuments } from './helpers/seed.js'
import { cases } from './helpers/settings.js'

const ATTACHMENTS = { é漢: 'x', 'two.bin': 'xy', three: 'xyz', none: '', longer: 'data '.repeat(1001) }

/** Makes a backup of several chunks, one of them with a large document, and with attachments. */
async function setup(t: Test) {
  const on = await setupDatabases(t)
  const gate = await startGate(t, on)
  const components = on.couch.use(on.names.components)
  await load(components, seedDocuments({ count: 35, size: 40_000 }), 50)
  const data = Array.from({ length: 3 }, (_, i) => repeatedBytes(`part ${i}`, 1_500_000).toString('base64'))
  const _attachments = Object.fromEntries(data.map((data, i) => [i, { content_type: 'image/png', data }]))
  await components.insert({ _id: 'large', _attachments } as never)
  await load(components, seedDocuments({ count: 2, prefix: 'é' }))
  await load(on.couch.use(on.names.sessions), seedDocuments({ count: 3 }))
  const host = await buildHost(t, { on, couch: gate.couch })
  const api = apiOf(host)
  const id = await api.backup()
  for (const [name, attachment] of Object.entries(ATTACHMENTS)) {
    await api.call('PUT', `/${id}/attachments/${encodeURIComponent(name)}`, { attachment })
  }
  const system = on.couch.use(on.names.system)
  const { storage } = (await system.get(id)) as unknown as StoredHeader
  return { on, gate, host, api, id, system, chunks: storage.databases.components!.chunks }
}

const from = (api: Api, id: string, range: string, ifRange?: string) =>
  api.call('GET', `/${id}`, undefined, { range, ...(ifRange !== undefined && { 'if-range': ifRange }) })

t.test('a part of a finished backup', async (t) => {
  const { gate, host, api, id, chunks } = await setup(t)
  const reply = await api.call('GET', `/${id}`)
  const whole = reply.rawPayload
  const { etag } = reply.headers
  t.equal(reply.statusCode, 200)
  t.match(reply.headers, {
    'content-length': String(whole.length),
    'accept-ranges': 'bytes',
    etag: /^"[^"]+"$/
  })
  const backup = JSON.parse(whole.toString())
  t.equal(backup.dbs.athena_components.docs.length, 38)
  for (const [name, data] of Object.entries(ATTACHMENTS)) {
    t.equal(backup._attachments[name], Buffer.from(data).toString('base64'), name)
  }
  t.ok((await api.call('GET', `/${id}`)).rawPayload.equals(whole), 'the same bytes every time')

  const rest = async (start: number) => {
    const { statusCode, headers, rawPayload } = await from(api, id, `bytes=${start}-`)
    const { length } = whole
    return (
      statusCode === 206 &&
      headers['content-range'] === `bytes ${start}-${length - 1}/${length}` &&
      headers['content-length'] === String(length - start) &&
      headers.etag === etag &&
      rawPayload.equals(whole.subarray(start))
    )
  }

  // positions at which chunks and attachments begin
  const places = ['"docs":[', '"athena_sessions"', '"athena_system"', '"_attachments"', '"é漢":"', 'eHk=']
    .map((text) => whole.indexOf(text))
    .concat(0, whole.length - 1)
  let place = whole.indexOf('"docs":[') + '"docs":['.length
  t.ok(chunks.length >= 3 && chunks.some(({ large }) => large))
  for (const { raw } of chunks) {
    places.push(place, place + (raw >> 1))
    place += raw
  }
  places.push(place)

  await t.test('is the same as that part of the whole, at every boundary', async (t) => {
    t.ok(places.every((place) => place >= 0))
    const near = new Set(places.flatMap((place) => [-1, 0, 1].map((step) => place + step)))
    for (const start of near) {
      if (start >= 0 && start < whole.length) t.ok(await rest(start), `from ${start}`)
    }
  })

  await t.test('is the same as that part of the whole, anywhere', async () => {
    await fc.assert(fc.asyncProperty(fc.nat(whole.length - 1), rest), { numRuns: cases(5) })
  })

  await t.test('is made without reading the chunks before it', async (t) => {
    gate.requests.length = 0
    t.ok(await rest(place - chunks.at(-1)!.raw))
    const read = gate.requests.filter((line) => /backup_chunk_[0-9]+_components/.test(line))
    t.equal(read.length, 1)
    t.match(read[0], chunks.at(-1)!.id)
    gate.requests.length = 0
    t.ok(await rest(whole.length - 1))
    t.notOk(
      gate.requests.some((line) => /backup_chunk_|longer/.test(line)),
      'nor attachments'
    )
  })

  await t.test('can be had of the decorator', async (t) => {
    const { length, bodyFrom } = await host.app.dbBackups.get(id)
    t.equal(length, whole.length)
    t.ok(Buffer.concat(await bodyFrom!(place).toArray()).equals(whole.subarray(place)))
    t.strictSame(await bodyFrom!(whole.length).toArray(), [], 'nothing from the end')
  })

  await t.test('that begins after the end is refused with 416', async (t) => {
    for (const start of [whole.length, whole.length + 1, '99999999999999999999999999']) {
      const reply = await from(api, id, `bytes=${start}-`)
      t.equal(reply.statusCode, 416)
      t.match(reply.headers, { 'content-range': `bytes */${whole.length}`, etag })
      t.match(reply.json(), { statusCode: 416, code: 'DB_BACKUPS_RANGE', message: /range/ })
    }
  })

  await t.test('with If-Range needs the tag of what is there', async (t) => {
    t.equal((await from(api, id, 'bytes=7-', etag as string)).statusCode, 206)
    for (const other of [
      '"other"',
      `W/${etag}`,
      String(etag).slice(1, -1),
      new Date().toUTCString(),
      '*',
      ''
    ]) {
      const reply = await from(api, id, 'bytes=7-', other)
      t.equal(reply.statusCode, 200, other)
      t.equal(reply.rawPayload.length, whole.length)
    }
  })

  await t.test('asked for in another way is the whole', async (t) => {
    for (const range of [
      'bytes=0-5',
      'bytes=-5',
      'bytes=5-,7-',
      'bytes=0-1,5-',
      'bytes=x-',
      'bytes=-',
      'bytes=',
      'bytes=1.5-',
      'bytes 5-',
      'documents=5-',
      'bytes=+5-',
      'bytes=5-\u00a0'
    ]) {
      const reply = await from(api, id, range)
      t.equal(reply.statusCode, 200, range)
      t.equal(reply.headers['content-range'], undefined)
      t.equal(reply.rawPayload.length, whole.length)
    }
    t.equal((await from(api, id, 'Bytes= 5- ')).statusCode, 206, 'spaces and case do not matter')
  })

  await t.test('is of another backup once an attachment has been appended', async (t) => {
    await api.call('PUT', `/${id}/attachments/late`, { attachment: 'x' })
    const reply = await from(api, id, 'bytes=7-', etag as string)
    t.equal(reply.statusCode, 200)
    t.not(reply.headers.etag, etag)
    t.equal(JSON.parse(reply.body)._attachments.late, 'eA==')
  })
})

async function damage(system: DocumentScope<unknown>, { id }: ChunkEntry) {
  const name = 'documents.ndjson.gz'
  const bytes = (await system.attachment.get(id, name)) as Buffer
  bytes[bytes.length >> 1]! ^= 1
  const { _rev: rev } = await system.get(id)
  await system.attachment.insert(id, name, bytes, 'application/gzip', { rev })
}

t.test('damage is found in a part of a backup as in the whole', async (t) => {
  const { host, api, id, system, chunks } = await setup(t)
  const whole = (await api.call('GET', `/${id}`)).rawPayload
  const origin = await host.app.listen({ port: 0, host: '127.0.0.1' })
  const first = whole.indexOf('"docs":[') + '"docs":['.length
  const at = (index: number) => chunks.slice(0, index).reduce((sum, { raw }) => sum + raw, first)
  /** Returns the status and the body, or `null` for the body when the connection was cut. */
  const download = async (start: number) => {
    const headers = { ...host.as('manager'), range: `bytes=${start}-` }
    const response = await fetch(`${origin}/api/v1/backups/${id}`, { headers })
    return { status: response.status, bytes: await response.arrayBuffer().catch(() => null) }
  }
  const last = chunks.length - 1

  const { _rev, ...header } = (await system.get(id)) as unknown as StoredHeader
  const change = async (change: (changed: StoredHeader) => void) => {
    const changed = structuredClone({ ...header, _rev: (await system.get(id))._rev })
    change(changed)
    await system.insert(changed as never)
  }
  await change(({ dbs }) => void dbs.athena_components!.doc_count++)
  t.match(await download(at(last)), { status: 206, bytes: null }, 'a wrong count')
  await change(({ dbs }) => void dbs.athena_components!.raw_bytes--)
  t.match(await download(at(last)), { status: 500 }, 'a wrong length')
  await change(() => {})
  t.equal((await download(at(last))).bytes!.byteLength, whole.length - at(last), 'repaired, it is whole')

  // CouchDB decides the order
  const large = chunks.findIndex(({ large }) => large)
  const plain = chunks.findLastIndex(({ large }, i) => !large && i > 0)
  await damage(system, chunks[plain]!)
  await damage(system, chunks[large]!)
  t.match(await download(at(0)), { status: 206, bytes: null }, 'in a chunk after the first')
  t.match(await download(at(large) + 1000), { status: 206, bytes: null }, 'in a large document begun within')
  const { status, bytes } = await download(at(plain) + 5)
  t.equal(status, 500, 'in the first chunk: nothing was sent yet')
  t.match(JSON.parse(Buffer.from(bytes!).toString()), { statusCode: 500, error: 'Internal Server Error' })
  const behind = at(Math.max(large, plain) + 1)
  const after = await download(behind)
  t.equal(after.status, 206)
  t.ok(Buffer.from(after.bytes!).equals(whole.subarray(behind)), 'not where it lies before')
})

t.test(
  'a backup during which documents changed has a length and parts, older ones are sent whole',
  async (t) => {
    const on = await setupDatabases(t)
    const proxy = await startFaultProxy(t, on.url)
    const { couch, names } = on
    const components = couch.use<Record<string, unknown>>(names.components)
    await load(couch.use(names.components), seedDocuments({ count: 20 }))
    const host = await buildHost(t, { on, couch: nano(proxy.url), retry: { wait: 1 } })
    const api = apiOf(host)
    // a page is cut off, and a document in it changes before the plugin continues
    proxy.add({ fault: 'cut_mid', path: new RegExp(`${names.components}/_changes`) })
    const next = new RegExp(`${names.components}/_changes.*since=(?!0&)`)
    const release = proxy.hold({ path: next })
    const { id: changing } = (await api.call('POST')).json()
    while (!proxy.seen.some(({ path }) => next.test(path))) await delay(5)
    const { _rev } = await components.get('doc_00000000')
    await components.insert({ _rev, changed: true } as never, 'doc_00000000')
    release()
    t.match(await host.waitForBackup(changing), { doc_count: 20, error: undefined })
    const whole = (await api.call('GET', `/${changing}`)).rawPayload
    t.equal(JSON.parse(whole.toString()).dbs.athena_components.docs.length, 20)
    const system = couch.use<Record<string, unknown>>(names.system)
    const header = (await system.get(changing)) as unknown as StoredHeader
    t.ok(header.storage.databases.components!.chunks.some(({ dead }) => dead))
    for (let start = 0; start < whole.length; start += 397) {
      const reply = await from(api, changing, `bytes=${start}-`)
      t.ok(reply.statusCode === 206 && reply.rawPayload.equals(whole.subarray(start)), `from ${start}`)
    }

    const earlier = '03_ibp_db_backup_1592922855872'
    await system.insert((await asLayout2(header, system)) as never, earlier)
    const older = '03_ibp_db_backup_1592922855871'
    const dbs = { athena_components: { docs: [{ _id: 'a' }] } }
    await system.insert({ type: 'athena_backup', in_progress: false, dbs } as never, older)
    for (const id of [earlier, older]) {
      const reply = await from(api, id, 'bytes=5-')
      t.equal(reply.statusCode, 200)
      t.match(reply.headers, { etag: String })
      for (const name of ['accept-ranges', 'content-range', 'content-length']) {
        t.equal(reply.headers[name], undefined, name)
      }
      t.equal(reply.json().id, id)
      const content = await host.app.dbBackups.get(id)
      t.notOk('length' in content || 'bodyFrom' in content)
    }
  }
)

t.test('a running backup and a failed one have a length', async (t) => {
  const on = await setupDatabases(t)
  const gate = await startGate(t, on)
  const host = await buildHost(t, { on, couch: gate.couch, retry: { attempts: 1 } })
  const api = apiOf(host)
  const release = gate.hold(/_changes/)
  const { id } = (await api.call('POST')).json()
  await gate.held(/_changes/)
  const running = await api.call('GET', `/${id}`)
  t.equal(running.headers['content-length'], String(running.rawPayload.length))
  t.match(running.json(), { in_progress: true })
  await on.couch.db.destroy(on.names.components)
  release()
  await host.waitForBackup(id)
  const failed = await api.call('GET', `/${id}`)
  t.match(failed.json(), { in_progress: false, error: String })
  t.equal(failed.headers['content-length'], String(failed.rawPayload.length))
  t.not(failed.headers.etag, running.headers.etag)
})

/** Returns a header as earlier versions wrote them, which lists documents that are in no chunk as deleted. */
async function asLayout2(
  { storage, ...header }: StoredHeader,
  db: DocumentScope<Record<string, unknown>>
): Promise<object> {
  const lines = Buffer.from('["other",-1]\n')
  const stored = gzipSync(lines)
  const id = 'backup_chunk_1592922855872_components_000000'
  const { rev } = await db.insert({ _id: id, type: 'athena_backup_chunk' } as never)
  const written = await db.attachment.insert(id, 'documents.ndjson.gz', stored, 'application/gzip', { rev })
  const sha256 = createHash('sha256').update(stored).digest('hex')
  const entry = {
    id,
    rev: revisionIn(written),
    docs: 1,
    design: 0,
    raw: lines.length,
    stored: stored.length,
    sha256
  }
  const { dbs } = header
  const empty = { manifests: [], chunks: [], superseded: [] }
  return {
    ...header,
    _id: undefined,
    _rev: undefined,
    dbs: { athena_components: { ...dbs.athena_components, doc_count: 0 } },
    storage: { ...storage, layout: 2, databases: { components: { ...empty, superseded: [entry] } } }
  }
}
