import { createHash } from 'node:crypto'
import { gunzipSync, gzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import type { ChunkEntry, StoredHeader } from '../lib/repository/layout.js'
import { apiOf } from './helpers/api.js'
import { revisionIn, setupDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { load, repeatedBytes, seedDocuments } from './helpers/seed.js'
import { extent } from './helpers/settings.js'

const ATTACHMENT = 'documents.ndjson.gz'

const isLetter = (c: number) => c >= 0x61 && c <= 0x7a

/** Makes a backup of several chunks, one of them with a large document, and deletes its databases. */
async function setup(t: Test) {
  const on = await setupDatabases(t)
  const { couch, names } = on
  const components = couch.use(names.components)
  await load(components, seedDocuments({ count: 140, size: 20_000 }), 50)
  const data = Array.from({ length: 3 }, (_, i) => repeatedBytes(`part ${i}`, 1_500_000).toString('base64'))
  const _attachments = Object.fromEntries(data.map((data, i) => [i, { content_type: 'image/png', data }]))
  await components.insert({ _id: 'large', _attachments } as never)
  await load(couch.use(names.sessions), seedDocuments({ count: 3 }))
  const host = await buildHost(t, { on })
  const api = apiOf(host)
  const id = await api.backup()
  await couch.db.destroy(names.components)
  await couch.db.destroy(names.sessions)

  const system = couch.use(names.system)
  const header = async () => (await system.get(id)) as unknown as StoredHeader
  const entries = (await header()).storage.databases.components!.chunks
  const changeHeader = async (change: (header: StoredHeader) => void) => {
    const { _rev, ...before } = await header()
    const changed = structuredClone({ _rev, ...before })
    change(changed)
    await system.insert(changed as never)
    return async () => {
      await system.insert({ ...before, _rev: (await header())._rev } as never)
    }
  }
  const readChunk = async ({ id }: ChunkEntry) => (await system.attachment.get(id, ATTACHMENT)) as Buffer
  const writeChunk = async ({ id }: ChunkEntry, bytes: Buffer) => {
    const { _rev: rev } = await system.get(id)
    await system.attachment.insert(id, ATTACHMENT, bytes, 'application/gzip', { rev })
  }
  return { on, host, api, id, system, entries, changeHeader, readChunk, writeChunk }
}

type Context = Awaited<ReturnType<typeof setup>>

/** Damages a backup, and returns a function that repairs it. */
const DAMAGES: Record<string, (context: Context, entry: ChunkEntry) => Promise<() => Promise<unknown>>> = {
  async 'is missing'({ system, readChunk, writeChunk }, entry) {
    const bytes = await readChunk(entry)
    const { _rev, _attachments, ...document } = (await system.get(entry.id)) as unknown as Record<
      string,
      string
    >
    await system.destroy(entry.id, _rev!)
    return async () => {
      await system.insert(document as never)
      await writeChunk(entry, bytes)
    }
  },
  async 'has one changed byte'({ readChunk, writeChunk }, entry) {
    const bytes = await readChunk(entry)
    const changed = Buffer.from(bytes)
    changed[bytes.length >> 1]! ^= 1
    await writeChunk(entry, changed)
    return () => writeChunk(entry, bytes)
  },
  async 'holds other documents, of the same lengths'({ readChunk, writeChunk }, entry) {
    const bytes = await readChunk(entry)
    const lines = gunzipSync(bytes)
    for (let at = lines.length >> 1; ; at++) {
      const changed = Buffer.from(lines)
      if (!isLetter(changed[at]!)) continue
      changed[at] = changed[at] === 0x61 ? 0x62 : 0x61
      const stored = gzipSync(changed, { level: 3 })
      if (stored.length !== bytes.length || changed.equals(lines)) continue
      await writeChunk(entry, stored)
      return () => writeChunk(entry, bytes)
    }
  },
  async 'is cut off'({ readChunk, writeChunk }, entry) {
    const bytes = await readChunk(entry)
    await writeChunk(entry, bytes.subarray(0, -10))
    return () => writeChunk(entry, bytes)
  },
  async 'has more after its end'({ readChunk, writeChunk }, entry) {
    const bytes = await readChunk(entry)
    await writeChunk(entry, Buffer.concat([bytes, Buffer.from('more')]))
    return () => writeChunk(entry, bytes)
  },
  async 'is another chunk'({ entries, readChunk, writeChunk }, entry) {
    const other = entries[entry === entries[0] ? 1 : 0]!
    const bytes = [await readChunk(entry), await readChunk(other)] as const
    await writeChunk(entry, bytes[1])
    await writeChunk(other, bytes[0])
    return async () => {
      await writeChunk(entry, bytes[0])
      await writeChunk(other, bytes[1])
    }
  }
}

/** Changes that make a header contradict its chunks. */
const HEADERS: Record<string, (header: StoredHeader) => void> = {
  'one document too many in the count': ({ dbs }) => {
    dbs.athena_components!.doc_count++
  },
  'one document too few in the count': ({ dbs }) => {
    dbs.athena_components!.doc_count--
  },
  'a chunk left out': ({ storage }) => {
    storage.databases.components!.chunks.splice(1, 1)
  },
  'a chunk named twice': ({ storage }) => {
    const { chunks } = storage.databases.components!
    chunks.push(chunks[0]!)
  }
}

/** Returns what a client receives before the connection ends. */
async function download(
  url: string,
  coding = 'identity'
): Promise<{ status: number; text: string; complete: boolean }> {
  const response = await fetch(url, { headers: { 'x-role': 'manager', 'accept-encoding': coding } })
  const { status } = response
  const decoder = new TextDecoder()
  let text = ''
  try {
    for await (const piece of response.body!) text += decoder.decode(piece as Uint8Array, { stream: true })
    return { status, text, complete: true }
  } catch {
    return { status, text, complete: false }
  }
}

async function checkUnusable(t: Test, { on, host, api, id }: Context, named: string) {
  const url = `${host.app.listeningOrigin}/api/v1/backups/${id}`
  const { text, complete } = await download(url)
  t.equal(complete, false, 'GET is cut off')
  t.throws(() => JSON.parse(text), 'and is no complete JSON')
  const coded = await download(url, 'gzip')
  // It is coded some bytes at a time: a failure among the first is found before anything is sent.
  if (coded.complete) t.match(JSON.parse(coded.text), { statusCode: 500, code: 'DB_BACKUPS_DAMAGED' })
  else t.throws(() => JSON.parse(coded.text), 'and no complete JSON as gzip')
  const tx = await api.restore(id)
  t.equal(tx.status, 'error')
  t.match(tx.athena_messages.at(-1), named, 'the restore ends by naming it')
  const databases = await on.couch.db.list()
  t.notOk(
    databases.includes(on.names.components) || databases.includes(on.names.sessions),
    'nothing was written'
  )
}

t.test('a damaged backup is not handed out as if it were whole, and nothing of it is restored', async (t) => {
  const context = await setup(t)
  const { host, api, id, system, entries, changeHeader } = context
  await host.app.listen({ port: 0, host: '127.0.0.1' })
  t.ok(entries.length >= 4)
  const large = entries.find((entry) => entry.large === 'large')!
  const last = entries.findLast((entry) => entry !== large)!

  const places: [which: string, entry: ChunkEntry][] = [
    ['the first', entries[0]!],
    ['the last', last],
    ['the large', large]
  ]
  for (const [i, [damage, apply]] of Object.entries(DAMAGES).entries()) {
    // Each damage at one place, and each place with two damages; in the long version everything everywhere.
    for (const [which, entry] of extent([places[i % places.length]!], places)) {
      await t.test(`${which} chunk ${damage}`, async (t) => {
        const repair = await apply(context, entry)
        await checkUnusable(t, context, damage === 'is another chunk' ? 'backup_chunk_' : entry.id)
        await repair()
      })
    }
  }

  for (const [what, change] of Object.entries(HEADERS)) {
    await t.test(`a header with ${what}`, async (t) => {
      const repair = await changeHeader(change)
      await checkUnusable(t, context, id)
      await repair()
    })
  }

  await t.test('manifest documents', async (t) => {
    const manifest = `backup_manifest_${id.slice('03_ibp_db_backup_'.length)}_components_000000`
    const text = JSON.stringify(entries.slice(0, 2))
    const document = { type: 'athena_backup_manifest', backup_id: id, database: 'components' }
    const insert = async (entries: string) => {
      const { _rev } = (await system.get(manifest).catch(() => ({}))) as { _rev?: string }
      await system.insert({ _id: manifest, ...(_rev && { _rev }), ...document, entries } as never)
    }
    const repair = await changeHeader(({ storage }) => {
      const stored = storage.databases.components!
      const sha256 = createHash('sha256').update(text).digest('hex')
      stored.manifests = [{ id: manifest, chunks: 2, sha256 }]
      stored.chunks = entries.slice(2)
    })
    await t.test('missing', (t) => checkUnusable(t, context, manifest))
    await insert(text.replace(/"docs":[0-9]+/, '"docs":1'))
    await t.test('damaged', (t) => checkUnusable(t, context, manifest))
    await insert(text)
    const { complete } = await download(`${host.app.listeningOrigin}/api/v1/backups/${id}`)
    t.equal(complete, true, 'whole')
    await repair()
  })

  const backup = await api.get(id)
  t.equal(backup.dbs.athena_components!.docs.length, 141, 'repaired, it is whole')
  t.match(await api.restore(id), { status: 'success', databases: { components: { created: 141 } } })
})

t.test('nor is one whose header disagrees, where documents changed while it was made', async (t) => {
  const context = await setup(t)
  const { host, api, id, system, entries, changeHeader } = context
  await host.app.listen({ port: 0, host: '127.0.0.1' })
  const lines = Buffer.from(`${JSON.stringify(['doc_00000007', -1])}\n`)
  const stored = gzipSync(lines)
  const chunk = `${entries[0]!.id.slice(0, -6)}900000`
  const { rev } = await system.insert({ _id: chunk, type: 'athena_backup_chunk' } as never)
  const written = await system.attachment.insert(chunk, ATTACHMENT, stored, 'application/gzip', { rev })
  const sha256 = createHash('sha256').update(stored).digest('hex')
  await changeHeader(({ dbs, storage }) => {
    dbs.athena_components!.doc_count--
    storage.databases.components!.superseded = [
      {
        id: chunk,
        rev: revisionIn(written),
        docs: 1,
        design: 0,
        raw: lines.length,
        stored: stored.length,
        sha256
      }
    ]
  })

  /** Verifies, and returns what is told of the documents that count. */
  const countsFound = async () => {
    const { problems } = await host.app.dbBackups.verify(id)
    return problems.map(({ reason }) => reason).filter((reason) => /its chunks hold/.test(reason))
  }

  for (const [what, change] of Object.entries(HEADERS)) {
    await t.test(`a header with ${what}`, async (t) => {
      const repair = await changeHeader(change)
      await checkUnusable(t, context, id)
      if (/count/.test(what))
        t.match(await countsFound(), [/^says 1(39|41) documents .*, its chunks hold 140$/])
      await repair()
    })
  }
  await t.test('a large chunk that is missing', async (t) => {
    const large = entries.find((entry) => entry.large === 'large')!
    const repair = await DAMAGES['is missing']!(context, large)
    await checkUnusable(t, context, large.id)
    t.notOk((await countsFound()).length, 'a verification that could not read all of it compares no counts')
    await repair()
  })
  t.match(await api.restore(id), { status: 'success', databases: { components: { created: 140 } } })
})
