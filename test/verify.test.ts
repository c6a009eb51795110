import { createHash } from 'node:crypto'
import { gunzipSync, gzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { type ChunkEntry, contentDigest } from '../lib/repository/layout.js'
import type { BackupSummary, VerifyProblem, VerifyReport } from '../types/index.js'
import {
  backUp,
  type ChainDatabases,
  change,
  contentOf,
  docs,
  download,
  headerOf,
  listedChunks,
  remove,
  setupPair
} from './helpers/chain.js'
import { bytesOf } from './helpers/seed.js'

const KEY = 'athena_components'
const ATTACHMENT = 'documents.ndjson.gz'

const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')

/** Reads and writes the chunks of backups by hand. */
function chunksOf(on: ChainDatabases) {
  const db = on.couch.use(on.names.backups)
  const read = async (id: string) => (await db.attachment.get(id, ATTACHMENT)) as Buffer
  return {
    db,
    read,
    async write(id: string, bytes: Buffer) {
      const { _rev: rev } = await db.get(id)
      return db.attachment.insert(id, ATTACHMENT, bytes, 'application/gzip', { rev })
    },
    async flip(id: string) {
      const bytes = Buffer.from(await read(id))
      bytes[bytes.length >> 1]! ^= 1
      await this.write(id, bytes)
    },
    first: async (id: string) => (await listedChunks(on, on.names.backups, id, 'components'))[0]!
  }
}

/** Makes a chain of two backups that share chunks. */
async function setup(t: Test, { large = false } = {}) {
  const { on, pair } = await setupPair(t, { count: 60 })
  if (large) {
    const data = bytesOf('large', 4_500_000).toString('base64')
    await on.write(on.names.components, [
      { _id: 'large', _attachments: { a: { content_type: 'image/png', data } } }
    ])
  }
  await on.write(on.names.components, [
    { _id: '_design/one', views: {} },
    { _id: 'ünïcode', text: 'é\u2028' },
    '{"_id":"rare","n":1e5,"deep":[[[]]],"\\u0061":"\\ud83d\\ude00"}'
  ])
  const first = await backUp(pair.chain)
  await change(on, on.names.components, docs('doc_00001', 'new'))
  await remove(on, on.names.components, 'doc_00002')
  const second = await backUp(pair.chain)
  const verify = (id: string, options = {}) => pair.chain.app.dbBackups.verify(id, options)
  return { on, pair, first, second, verify, chunks: chunksOf(on) }
}

const named = ({ problems }: VerifyReport) => problems.map(({ part, id }) => `${part} ${id}`)

const problemOf = ({ problems }: VerifyReport, id: string) =>
  problems.find((problem) => problem.id === id) as VerifyProblem

t.test('a whole backup is told to be whole at every depth, with exact counts', async (t) => {
  const { pair, first, second, verify } = await setup(t, { large: true })
  for (const { id, dbs } of [first, second]) {
    for (const depth of ['structure', 'data'] as const) {
      const report = await verify(id, { depth })
      t.strictSame(report.problems, [], `${depth}: no problem`)
      t.match(report, { id, depth, good: true, complete: true, problem_count: 0 })
      for (const database of ['components', 'sessions', 'system'] as const) {
        const { doc_count, raw_bytes, new_chunks = 0, reused_chunks = 0 } = dbs[`athena_${database}`]!
        const chunks = new_chunks + reused_chunks
        t.strictSame(report.databases[database], { chunks, documents: doc_count, bytes: raw_bytes })
      }
    }
  }
  const { verified, damaged } = await pair.chain.app.dbBackups.summary(second.id)
  t.match(verified, { depth: 'data', good: true, at: Number })
  t.equal(damaged, undefined)
  t.equal((await verify(second.id)).good, true, 'again, with that in its header')
})

/** Changes a backup, and returns what a verification is to find. */
type Damage = (
  context: { on: ChainDatabases; chunks: ReturnType<typeof chunksOf>; id: string },
  entry: ChunkEntry
) => Promise<unknown>

/** Rewrites a chunk, with an entry that tells its new digest: as a faulty program would. */
const rewrite =
  (change: (lines: string[]) => string[], alter: (entry: ChunkEntry) => void = () => {}): Damage =>
  async ({ on, chunks, id: backup }, { id }) => {
    const lines = gunzipSync(await chunks.read(id))
      .toString()
      .split('\n')
    const changed = Buffer.from(change(lines).join('\n'))
    const stored = gzipSync(changed)
    const { rev } = await chunks.write(id, stored)
    const header = await headerOf(on, backup)
    const entry = header.storage.databases.components!.chunks.find((chunk) => chunk.id === id)!
    Object.assign(entry, { rev, stored: stored.length, raw: changed.length, sha256: sha256(stored) })
    alter(entry)
    await chunks.db.insert(header as never)
  }

const DAMAGES: Record<
  string,
  { depth: 'structure' | 'data'; reason: RegExp; ofChain?: true; apply: Damage }
> = {
  missing: {
    depth: 'structure',
    reason: /is missing/,
    apply: async ({ chunks }, { id, rev }) => chunks.db.destroy(id, rev)
  },
  'of one changed byte': {
    depth: 'data',
    reason: /digest differs|missing, or was changed/,
    apply: ({ chunks }, { id }) => chunks.flip(id)
  },
  'with a line that is no JSON': {
    depth: 'data',
    reason: /line 3 is no document/,
    apply: rewrite((lines) => lines.with(3, lines[3]!.replace('}', ']')))
  },
  'with two lines that are no JSON': {
    depth: 'data',
    reason: /line 3 is no document.*, and 1 more line is wrong$/,
    apply: rewrite((lines) => lines.map((line, i) => (i === 3 || i === 4 ? line.replace('}', ']') : line)))
  },
  'with bytes that are no UTF-8': {
    depth: 'data',
    reason: /line 3 is no document: it is not UTF-8/,
    async apply(context, entry) {
      const lines = gunzipSync(await context.chunks.read(entry.id))
        .toString('latin1')
        .split('\n')
      const bytes = Buffer.from(lines.with(3, lines[3]!.replace('fabric-peer', '\xff')).join('\n'), 'latin1')
      const stored = gzipSync(bytes)
      const { rev } = await context.chunks.write(entry.id, stored)
      const header = await headerOf(context.on, context.id)
      const found = header.storage.databases.components!.chunks.find(({ id }) => id === entry.id)!
      Object.assign(found, { rev, stored: stored.length, raw: bytes.length, sha256: sha256(stored) })
      await context.chunks.db.insert(header as never)
    }
  },
  'with a document without a revision': {
    depth: 'data',
    reason: /has no "_rev"|not what the index tells/,
    apply: rewrite((lines) => lines.with(3, lines[3]!.replace('"_rev"', '"_ver"')))
  },
  'with a line too few': {
    depth: 'data',
    reason: /documents instead of/,
    apply: rewrite((lines) => lines.toSpliced(3, 1))
  },
  'with another document than the index tells': {
    depth: 'data',
    reason: /line 3 is not what the index tells/,
    apply: rewrite((lines) => lines.with(3, lines[3]!.replace('"_id":"doc_', '"_id":"cod_')))
  },
  'listed with other lines that do not count': {
    depth: 'structure',
    reason: /lines that do not count|lines beyond its last/,
    ofChain: true,
    async apply({ on, chunks, id: backup }, { id }) {
      const header = await headerOf(on, backup)
      const entry = header.storage.databases.components!.chunks.find((chunk) => chunk.id === id)!
      entry.dead!.docs++
      await chunks.db.insert(header as never)
    }
  }
}

t.test('damage of every kind is found, and named by its chunk', async (t) => {
  const context = await setup(t)
  const { pair, chunks, verify, on, second } = context
  for (const [what, { depth, reason, ofChain, apply }] of Object.entries(DAMAGES)) {
    const { id } = ofChain ? second : await backUp(pair.chain, { full: true })
    const entry = (await listedChunks(on, on.names.backups, id, 'components')).at(0)!
    await apply({ on, chunks, id }, entry)
    const report = await verify(id, { depth })
    t.match(report, { good: false, complete: true }, what)
    const problem = problemOf(report, ofChain ? id : entry.id)
    t.match(
      report.problems.find((one) => one.id === problem?.id && reason.test(one.reason)),
      { backups: [id] },
      `${what}: ${JSON.stringify(report.problems)}`
    )
  }
})

t.test('a damaged chunk names the backups that share it, and heals by the next backup', async (t) => {
  const { on, pair, first, second, verify, chunks } = await setup(t)
  const third = await backUp(pair.chain, { full: true })
  await change(on, on.names.components, docs('doc_00005'))
  const fourth = await backUp(pair.chain)
  const entry = await chunks.first(second.id)
  const whole = await chunks.read(entry.id)
  await chunks.flip(entry.id)

  const report = await verify(first.id)
  t.strictSame([...problemOf(report, entry.id).backups].sort(), [first.id, second.id].sort())
  for (const { id } of [first, second]) {
    const { damaged } = await pair.chain.app.dbBackups.summary(id)
    t.match(damaged, { found: Number, databases: { components: { parts: [entry.id], count: 1 } } })
    t.notOk(damaged!.databases.system)
  }
  for (const { id } of [third, fourth])
    t.equal(
      (await pair.chain.app.dbBackups.summary(id)).damaged,
      undefined,
      'what shares nothing is not marked'
    )

  await t.test('the one that is its base', async (t) => {
    const entry = await chunks.first(fourth.id)
    await chunks.flip(entry.id)
    await verify(fourth.id)
    const next = await backUp(pair.chain)
    t.equal(next.dbs[KEY]!.full_reason, 'damaged_base')
    t.equal(next.dbs.athena_system!.base, fourth.id, 'other databases go on')
    t.equal(next.dbs.athena_sessions!.base, fourth.id)
    t.equal((await verify(next.id)).good, true)
    const full = await backUp(pair.full, { full: true })
    t.strictSame(
      contentOf(await download(pair.chain, next.id)),
      contentOf(await download(pair.full, full.id)),
      'byte for byte what the sources have'
    )
  })

  await chunks.write(entry.id, whole)
  // A revision is not the one that is listed any more: as a replica would, it is taken back.
  const { _rev: rev } = await chunks.db.get(entry.id)
  for (const { id } of [first, second]) {
    const header = await headerOf(on, id)
    header.storage.databases.components!.chunks.find(({ id }) => id === entry.id)!.rev = rev
    header.storage.sha256 = createHash('sha256')
      .update(JSON.stringify({ dbs: header.dbs, databases: header.storage.databases }))
      .digest('hex')
    await chunks.db.insert(header as never)
  }
  t.strictSame((await verify(first.id)).problems, [])
  for (const { id } of [first, second])
    t.equal((await pair.chain.app.dbBackups.summary(id)).damaged, undefined, 'whole again')
})

t.test('a header that was changed by hand is found', async (t) => {
  const { on, second, verify, chunks } = await setup(t)
  const header = await headerOf(on, second.id)
  const summary: Partial<BackupSummary['dbs'][string]> = header.dbs[KEY]!
  summary.raw_bytes!++
  await chunks.db.insert(header as never)
  const report = await verify(second.id, { depth: 'structure' })
  t.strictSame(new Set(named(report)), new Set([`header ${second.id}`]))
  t.match(report.problems.map(({ reason }) => reason).join(), /its digest differs.*bytes for components/)
})

t.test(
  'what a manifest lists as a chunk and is none is told once: what follows from it is not',
  async (t) => {
    const { on, second, verify, chunks } = await setup(t)
    const header = await headerOf(on, second.id)
    const stored = header.storage.databases.components!
    const id = `backup_manifest_${second.id.slice('03_ibp_db_backup_'.length)}_components_000000`
    const entries = JSON.stringify([{}])
    const document = { type: 'athena_backup_manifest', backup_id: second.id, database: 'components', entries }
    await chunks.db.insert({ _id: id, ...document } as never)
    stored.manifests = [{ id, chunks: 1, sha256: sha256(Buffer.from(entries)) }]
    stored.chunks = stored.chunks.slice(1)
    header.storage.sha256 = contentDigest(header.dbs, header.storage.databases)
    await chunks.db.insert(header as never)
    const { problems } = await verify(second.id, { depth: 'data' })
    t.strictSame(
      problems.map(({ reason }) => reason),
      ['lists 1 chunks of components that are none']
    )
  }
)
