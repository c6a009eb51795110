import { createHash } from 'node:crypto'
import { deflateSync, gzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import type { ChunkEntry } from '../lib/repository/layout.js'
import type { DocumentDiff } from '../types/index.js'
import { apiOf } from './helpers/api.js'
import { revisionIn, setupDatabases, type TestDatabases } from './helpers/database.js'
import { buildHost, type TestHost } from './helpers/host.js'

const OLD = '03_ibp_db_backup_1592922855871'

/** What an old backup holds of the components, and what the database holds now. */
const THEN = [
  { _id: 'changed', v: 1 },
  { _id: 'deleted', v: 1 },
  { _id: 'same', v: 1 }
]
const NOW = [
  { _id: 'changed', v: 2 },
  { _id: 'created', v: 1 },
  { _id: 'same', v: 1 }
]

const FORWARD = ['changed changed v', 'created created', 'deleted deleted']
const BACKWARD = ['changed changed v', 'created deleted', 'deleted created']

type Told = readonly string[]

async function told({ app }: TestHost, id: string, against: string): Promise<Told> {
  const found: DocumentDiff[] = await app.dbBackups.diff(id, { against, databases: ['components'] }).toArray()
  return found
    .map(({ id, change, fields }) => [id, change, ...(change === 'changed' ? (fields ?? []) : [])].join(' '))
    .sort()
}

/** Compares an old backup with one of today, both ways, and with the databases. */
async function compare(t: Test, on: TestDatabases, put: (on: TestDatabases) => Promise<unknown>) {
  await on.couch.use(on.names.components).bulk({ docs: NOW })
  await put(on)
  const host = await buildHost(t, { on })
  const today = await apiOf(host).backup()
  t.strictSame(await told(host, OLD, today), FORWARD, 'with a backup of today')
  t.strictSame(await told(host, today, OLD), BACKWARD, 'the other way round')
  t.strictSame(await told(host, OLD, 'now'), FORWARD, 'with the databases')
}

const HEADER = { type: 'athena_backup', backup_version: '1.0.0', in_progress: false, start_timestamp: 1 }

const FORMS = {
  docs: (docs: object[]) => ({ docs }),
  compressed_docs: (docs: object[]) => ({
    compressed_docs: deflateSync(JSON.stringify(docs)).toString('base64')
  })
}

for (const [form, write] of Object.entries(FORMS)) {
  t.test(`a backup with its documents inside, as ${form}, is compared with others`, async (t) => {
    const on = await setupDatabases(t)
    await compare(t, on, ({ couch, names }) =>
      couch.use(names.system).insert({
        _id: OLD,
        ...HEADER,
        doc_count: THEN.length,
        dbs: { DB_COMPONENTS: write(THEN), DB_SYSTEM: write([]), DB_SESSIONS: write([]) }
      } as never)
    )
  })
}

/** Stores lines as a chunk, and returns what a header tells of it. */
async function chunk({ couch, names }: TestDatabases, id: string, lines: unknown[]): Promise<ChunkEntry> {
  const db = couch.use(names.system)
  const bytes = Buffer.from(lines.map((line) => `${JSON.stringify(line)}\n`).join(''))
  const stored = gzipSync(bytes)
  const { rev } = await db.insert({ _id: id, type: 'athena_backup_chunk' } as never)
  const written = await db.attachment.insert(id, 'documents.ndjson.gz', stored, 'application/gzip', { rev })
  const sha256 = createHash('sha256').update(stored).digest('hex')
  const sizes = { docs: lines.length, design: 0, raw: bytes.length, stored: stored.length }
  return { id, rev: revisionIn(written), ...sizes, sha256 }
}

t.test('of a backup of layout 2, the last version of each document is compared', async (t) => {
  const on = await setupDatabases(t)
  await compare(t, on, async ({ couch, names }) => {
    const lines = [{ _id: 'changed', v: 0 }, { _id: 'gone', v: 1 }, ...THEN]
    const chunks = [await chunk(on, 'backup_chunk_1592922855871_components_000000', lines)]
    // The numbers of the versions that count, and of one that was deleted meanwhile.
    const last = [
      ['changed', 2],
      ['gone', -1]
    ]
    const superseded = [await chunk(on, 'backup_chunk_1592922855872_components_000000', last)]
    const storage = {
      layout: 2,
      instance: 'x',
      system: names.system,
      databases: { components: { manifests: [], chunks, superseded } }
    }
    const about = { doc_count: THEN.length, last_sequence: '5', start_timestamp: 1, finish_timestamp: 2 }
    await couch.use(names.system).insert({
      _id: OLD,
      ...HEADER,
      doc_count: THEN.length,
      dbs: { athena_components: about },
      storage
    } as never)
  })
})
