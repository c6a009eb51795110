import { createServer } from 'node:http'
import { isDeepStrictEqual } from 'node:util'
import nano, { type ServerScope } from 'nano'
import t, { type Test } from 'tap'
import type { StoredHeader } from '../lib/repository/layout.js'
import type { DatabaseNames } from '../types/index.js'
import { apiOf, type SentBackup } from './helpers/api.js'
import { type FetchedDocument, setupDatabases, type TestDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { listen } from './helpers/listen.js'
import { type RawDatabases, setupRawDatabases } from './helpers/raw-databases.js'
import { startPagingProxy } from './helpers/relay.js'
import { DOCUMENTS, read, said, sorted, stateAt, Writer, type Written } from './helpers/writer.js'

const WRITES = 600
/** Number of writes between two requests of the backup. */
const WRITES_BETWEEN = 60

const deletionOf = (id: string) => {
  const rev = `2-${'d'.repeat(32)}`
  return JSON.stringify({
    seq: '4-x',
    id,
    changes: [{ rev }],
    deleted: true,
    doc: { _id: id, _rev: rev, _deleted: true }
  })
}

/** Starts a proxy that rewrites answers in JSON. */
async function startRewriter(
  t: Test,
  url: string,
  rewrite: (path: string, body: string) => string
): Promise<ServerScope> {
  const server = createServer(async (request, response) => {
    const { method, url: path = '/', headers } = request
    const pieces: Buffer[] = []
    for await (const piece of request) pieces.push(piece as Buffer)
    const body = pieces.length > 0 ? Buffer.concat(pieces) : undefined
    const type = headers['content-type']
    const answer = await fetch(`${url}${path}`, {
      method,
      body,
      headers: { accept: 'application/json', ...(type && { 'content-type': type }) }
    })
    response.writeHead(answer.status, { 'content-type': String(answer.headers.get('content-type')) })
    const bytes = Buffer.from(await answer.arrayBuffer())
    const isJson = String(answer.headers.get('content-type')).startsWith('application/json')
    response.end(isJson ? rewrite(path, bytes.toString()) : bytes)
  })
  return nano(await listen(t, server))
}

interface Scenario {
  on: TestDatabases
  names: DatabaseNames
  page: number | undefined
  sequence: () => Promise<number>
}

/** Backs up components while a client writes to it, and restores the backup elsewhere. */
async function backUpWhileWriting(t: Test, { on, names, page, sequence }: Scenario) {
  const writer = new Writer(on.couch.use(names.components), sequence)
  await writer.load(DOCUMENTS)
  let backingUp = false
  const proxy = await startPagingProxy(t, on.url, {
    page,
    async before(line) {
      if (backingUp && line.includes(`/${names.components}/`)) await writer.writes(WRITES_BETWEEN)
    }
  })
  const host = await buildHost(t, { on, couch: proxy.couch, databases: names })
  const api = apiOf(host)
  const loaded = writer.log.length
  backingUp = true
  const [id] = await Promise.all([api.backup(), writer.run(WRITES)])
  const backup = await api.get(id)
  return { writer, backup, api, id, loaded, pages: proxy.pages() }
}

function checkDocuments(t: Test, backup: SentBackup) {
  const database = backup.dbs.athena_components!
  const found = new Map(database.docs.map((document) => [document._id, document]))
  t.equal(found.size, database.docs.length, 'every document stands there once')
  t.equal(database.doc_count, database.docs.length, 'doc_count is the number of documents')
  t.equal(backup.doc_count, database.docs.length)
  return found
}

async function checkAgainstLog(
  t: Test,
  scenario: Scenario,
  { writer, backup, loaded }: Awaited<ReturnType<typeof backUpWhileWriting>>
) {
  const found = checkDocuments(t, backup)
  const seq = Number.parseInt(backup.dbs.athena_components!.last_sequence, 10)
  const during = writer.log.slice(loaded).filter((written) => written.seq <= seq)
  t.ok(during.length >= WRITES_BETWEEN, `${during.length} writes came while the backup ran`)
  t.ok(during.some(({ doc }) => doc === null))
  const expected = stateAt(writer.log, seq)
  const documents = new Map([...found].map(([id, document]) => [id, read(document)]))
  t.strictSame(sorted(documents), sorted(expected), 'the backup is the database at last_sequence')
  return { expected, seq, scenario }
}

async function checkRestored(
  t: Test,
  on: TestDatabases,
  names: DatabaseNames,
  { backup }: { backup: SentBackup },
  expected: Map<string, object>
) {
  const target = { ...names, components: `${names.components}_restored` }
  const other = apiOf(await buildHost(t, { on, databases: target }))
  t.match(await other.restore(backup), { status: 'success' })
  const restored = new Map<string, object>()
  const { rows } = await on.couch
    .use(target.components)
    .list({ include_docs: true, attachments: true } as object)
  for (const { id, doc } of rows) restored.set(id, read(doc as unknown as FetchedDocument))
  // the database gives uploaded documents revisions of its own
  const content = (all: Map<string, object>) =>
    sorted(new Map([...all].map(([id, document]) => [id, { ...document, rev: undefined }])))
  t.strictSame(content(restored), content(expected), 'and so is what is restored from it')
  await on.couch.db.destroy(target.components)
}

const rawScenario = (on: RawDatabases): Scenario => ({
  on,
  names: on.names,
  page: 600,
  sequence: async () => on.raw.store.get(on.names.components)!.seq
})

t.test('a backup is the database at its last_sequence, over pages, while it is written to', async (t) => {
  const on = await setupRawDatabases(t)
  const scenario = rawScenario(on)
  const done = await backUpWhileWriting(t, scenario)
  t.ok(done.pages > 5, `${done.pages} pages`)
  const { expected } = await checkAgainstLog(t, scenario, done)
  await checkRestored(t, on, on.names, done, expected)
  const { components, sessions, system } = on.names
  for (const name of [components, sessions, system]) await on.couch.db.destroy(name)
  t.match(await done.api.restore(done.id), { status: 'success' }, 'restored by id')
  const restored = on.content(components)
  t.strictSame(
    Object.fromEntries(Object.entries(restored).map(([id, { rev }]) => [id, rev])),
    Object.fromEntries([...expected].map(([id, { rev }]) => [id, rev]))
  )
})

t.test('a damaged header of a backup during which documents changed is detected', async (t) => {
  const on = await setupRawDatabases(t)
  const { api, id } = await backUpWhileWriting(t, rawScenario(on))
  const { components, backups } = on.names
  const db = on.couch.use(backups)
  const { _rev, ...header } = (await db.get(id)) as unknown as StoredHeader
  const stored = header.storage.databases.components!
  t.ok(stored.chunks.some(({ dead }) => dead))
  const damages: Record<string, (header: StoredHeader) => void> = {
    'a chunk left out': ({ storage }) => void storage.databases.components!.chunks.shift(),
    'a document too many in the count': ({ dbs }) => void dbs.athena_components!.doc_count++,
    'a document too few in the count': ({ dbs }) => void dbs.athena_components!.doc_count--
  }
  for (const [damage, change] of Object.entries(damages)) {
    const damaged = structuredClone({ ...header, _rev: (await db.get(id))._rev })
    change(damaged)
    await db.insert(damaged as never)
    if (on.raw.store.has(components)) await on.couch.db.destroy(components)
    const { status, athena_messages } = await api.restore(id)
    t.equal(status, 'error', damage)
    t.match(athena_messages.at(-1), id)
    t.notOk(on.raw.store.has(components), 'nothing was written')
  }
})

t.test('a backup is consistent also when the feed leaves out large legacy backups', async (t) => {
  const on = await setupRawDatabases(t)
  const docs = [{ _id: 'x', text: 'x'.repeat(17 * 1024 * 1024) }]
  const legacy = { _id: '03_ibp_db_backup_1', type: 'athena_backup', dbs: { athena_system: { docs } } }
  const scenario = rawScenario(on)
  // the sequences in the log begin after the seeding
  const sequence = async () => (await scenario.sequence()) - 1
  await on.write(on.names.components, [JSON.stringify(legacy)])
  const done = await backUpWhileWriting(t, { ...scenario, sequence })
  const { last_sequence: last } = done.backup.dbs.athena_components!
  done.backup.dbs.athena_components!.last_sequence = String(Number.parseInt(last, 10) - 1)
  await checkAgainstLog(t, scenario, done)
})

t.test(
  'the backup holds documents that did not change after last_sequence as the database does',
  async (t) => {
    const on = await setupDatabases(t)
    const { couch, real } = on
    const names = { ...on.names, backups: on.names.system }
    const components = couch.use(names.components)
    // sequences of a real CouchDB are opaque, and the embedded database does not tell whether more is pending
    const scenario = { on, names, page: real ? 600 : undefined, sequence: async () => 0 }
    const done = await backUpWhileWriting(t, scenario)
    const found = checkDocuments(t, done.backup)
    const since = done.backup.dbs.athena_components!.last_sequence
    const { results } = await components.changes({ since })
    const changedSince = new Set(results.map(({ id }) => id))
    const versions = new Map<string, Written[]>()
    for (const written of done.writer.log) {
      versions.set(written.id, [...(versions.get(written.id) ?? []), written])
    }
    const wrong: string[] = []
    for (const [id, all] of versions) {
      const document = found.get(id)
      const living = all.filter(({ doc }) => doc && doc.type !== 'pillow_talk_doc')
      const last = all[all.length - 1]!
      const version = living.find(({ rev }) => rev === document?._rev)
      const same = document && version && isDeepStrictEqual(read(document), said(id, version))
      if (changedSince.has(id)) {
        // the feed of the embedded database leaves out what changes while it is read
        const maybeAbsent = !real || id.startsWith('new_') || living.length < all.length
        if (document ? !same : !maybeAbsent) wrong.push(id)
      } else if (living.includes(last) ? !same || version !== last : document) wrong.push(id)
    }
    t.strictSame(wrong, [], `${changedSince.size} documents changed after last_sequence`)
    t.ok(changedSince.size < done.writer.log.length - done.loaded, 'some changed before')
    t.strictSame(
      [...found.keys()].filter((id) => !versions.has(id)),
      []
    )
    const expected = new Map([...found].map(([id, document]) => [id, read(document)]))
    await checkRestored(t, on, names, done, expected)
  }
)

t.test('a document that one page tells of, and then of its deletion, is not in the backup', async (t) => {
  const on = await setupRawDatabases(t)
  const { components } = on.names
  await on.write(components, ['{"_id":"a"}', '{"_id":"b"}', '{"_id":"c"}'])
  // CouchDB does the same when another node takes over a shard in the middle of an answer
  const couch = await startRewriter(t, on.url, (path, body) =>
    path.startsWith(`/${components}/_changes`)
      ? body.replace(/\],\s*"last_seq"/, (end) => `,${deletionOf('b')}${end}`)
      : body
  )
  const api = apiOf(await buildHost(t, { on, couch, databases: on.names }))
  const backup = await api.get(await api.backup())
  const ids = backup.dbs.athena_components!.docs.map(({ _id }) => _id)
  t.strictSame(ids, ['a', 'c'])
  t.equal(backup.dbs.athena_components!.doc_count, 2)
})
