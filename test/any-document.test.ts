import { isDeepStrictEqual } from 'node:util'
import { gzipSync } from 'node:zlib'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { fitsUrl } from '../lib/couch/target.js'
import { LARGE_DOCUMENT } from '../lib/json/document.js'
import { apiOf } from './helpers/api.js'
import { character, jsonNode } from './helpers/arbitraries.js'
import {
  type FetchedDocument,
  putAttachment,
  recreate,
  setupDatabases,
  type TestDatabases
} from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { setupRawDatabases } from './helpers/raw-databases.js'
import { bytesOf } from './helpers/seed.js'
import { cases, extent } from './helpers/settings.js'

interface Attachment {
  name: string
  content_type: string
  data: string
}

/** A document, and the attachments that are added to it after the write. */
interface Written {
  id: string
  revs: string[]
  deletedRevs: string[]
  /** Members and the texts of their values. */
  body: Record<string, string>
  attachments: Attachment[]
  /** An attachment sent with `Content-Encoding: gzip`, and whether it is gzip. */
  encoded?: { name: string; content_type: string; data: Buffer; gzip: boolean }
}

/** Seed of the generated documents. */
const SEED = 1

interface Server {
  setup(t: Test): Promise<TestDatabases>
  /** Generates documents that the server stores unchanged. */
  document: fc.Arbitrary<Written>
  numRuns: number
}

const text = fc.oneof(
  { weight: 4, arbitrary: fc.string({ minLength: 1, maxLength: 20 }) },
  { weight: 4, arbitrary: fc.string({ minLength: 1, maxLength: 20, unit: character }) },
  {
    weight: 2,
    arbitrary: fc.constantFrom(
      '.',
      '..',
      '../x',
      'a/b',
      '//',
      '%2F',
      '+ &=?#',
      '\u0000',
      '\n',
      '"',
      '\\',
      '\ufffe'
    )
  },
  { weight: 2, arbitrary: fc.integer({ min: 1, max: 9000 }).map((length) => 'k'.repeat(length)) },
  { weight: 1, arbitrary: fc.integer({ min: 1, max: 3000 }).map((length) => '漢'.repeat(length)) }
)
const id = fc.oneof(
  { weight: 4, arbitrary: text.filter((name) => !name.startsWith('_')) },
  { weight: 1, arbitrary: text.map((name) => `_design/${name}`) }
)
const rev = fc
  .tuple(fc.integer({ min: 1, max: 5 }), fc.oneof(text, fc.stringMatching(/^[0-9a-f]{32}$/)))
  .map(([generation, digest]) => `${generation}-${digest}`)
const contentType = fc.oneof(
  fc.constantFrom('text/plain', 'application/json', 'image/png', 'text/plain; charset=utf-8', ''),
  text
)
/** Generates sizes. Those around the limit for reading in pieces are rare, since such documents take long. */
const data = fc
  .oneof(
    { weight: 20, arbitrary: fc.integer({ min: 0, max: 3000 }) },
    { weight: 1, arbitrary: fc.constantFrom(LARGE_DOCUMENT - 1, LARGE_DOCUMENT, LARGE_DOCUMENT + 1) }
  )
  .chain((length) =>
    fc.boolean().map((random) => (random ? bytesOf('a', length) : Buffer.alloc(length, 'x')))
  )
const attachments = fc.uniqueArray(
  fc.record({
    name: fc.oneof(
      text.filter((name) => !name.startsWith('_')),
      fc.constant('')
    ),
    content_type: contentType,
    data: data.map((bytes) => bytes.toString('base64'))
  }),
  { maxLength: 3, selector: ({ name }) => name }
)
const encoded = fc.record({
  name: fc.constantFrom('encoded', 'with/slash'),
  content_type: fc.constantFrom('text/plain', 'image/png'),
  data,
  gzip: fc.boolean()
})
/** Names of members that CouchDB keeps for itself begin with an underscore. */
const member = text.filter((name) => !name.startsWith('_'))
const deep = fc.integer({ min: 1, max: 700 }).map((depth) => '['.repeat(depth) + ']'.repeat(depth))
/** JSON texts, with escapes, numbers and surrogates that some servers refuse. */
const value = fc.oneof(
  fc.json({ stringUnit: 'binary' }),
  deep,
  jsonNode.map(({ text }) => text)
)

const documentWith = (withEncoded: fc.Arbitrary<Written['encoded']>): fc.Arbitrary<Written> =>
  fc.record({
    id,
    revs: fc.uniqueArray(rev, { minLength: 1, maxLength: 3 }),
    deletedRevs: fc.uniqueArray(rev, { maxLength: 1 }),
    body: fc.dictionary(member, value, { maxKeys: 4 }),
    attachments,
    encoded: withEncoded
  })

const servers: Record<string, Server> = {
  embedded: {
    setup: setupDatabases,
    document: documentWith(fc.constant(undefined)),
    numRuns: cases(extent(3, 5))
  },
  imitated: {
    setup: setupRawDatabases,
    document: documentWith(fc.option(encoded, { nil: undefined, freq: 3 })),
    numRuns: cases(extent(3, 5))
  }
}
if (process.env.COUCHDB_URL) {
  delete servers.embedded
  servers.CouchDB = { ...servers.imitated!, setup: setupDatabases, numRuns: cases(extent(10, 40)) }
}

const headersOf = (url: URL) => ({
  'content-type': 'application/json',
  ...(url.username && {
    authorization: `Basic ${Buffer.from(`${url.username}:${url.password}`).toString('base64')}`
  })
})

/** Returns what the components database answers, or `undefined` when it refuses. */
async function post({ url, names }: TestDatabases, path: string, body: string): Promise<unknown> {
  const server = new URL(url)
  const target = `${server.origin}/${names.components}/${path}`
  const answer = await fetch(target, { method: 'POST', headers: headersOf(server), body })
  const json: unknown = await answer.json()
  return answer.ok ? json : undefined
}

/** Returns a document with attachments inline, or `undefined` when the database cannot send it. */
async function read(on: TestDatabases, id: string): Promise<FetchedDocument | undefined> {
  const path = '_all_docs?include_docs=true&attachments=true'
  const answer = (await post(on, path, JSON.stringify({ keys: [id] }))) as
    | { rows: { doc?: FetchedDocument | null }[] }
    | undefined
  return answer?.rows[0]?.doc ?? undefined
}

/** Writes a document through the database's API, and returns whether the database accepts it. */
async function write(on: TestDatabases, document: Written): Promise<boolean> {
  const { id, body, attachments } = document
  const members = Object.entries(body).map(([name, value]) => `,${JSON.stringify(name)}:${value}`)
  const inline = Object.fromEntries(attachments.map(({ name, ...attachment }) => [name, attachment]))
  if (attachments.length > 0) members.push(`,"_attachments":${JSON.stringify(inline)}`)
  const leaf = (rev: string, rest: string) =>
    `{"_id":${JSON.stringify(id)},"_rev":${JSON.stringify(rev)}${rest}}`
  const leaves = [
    ...document.revs.map((rev) => leaf(rev, members.join(''))),
    ...document.deletedRevs.map((rev) => leaf(rev, ',"_deleted":true'))
  ]
  const results = await post(on, '_bulk_docs', `{"new_edits":false,"docs":[${leaves.join(',')}]}`)
  if (!isDeepStrictEqual(results, [])) return false
  return true
}

/** Adds an attachment marked as gzip to a document, if a URL can name it. Returns whether it was added. */
async function putEncoded(on: TestDatabases, { id, encoded }: Written): Promise<boolean> {
  const path = [on.names.components, id, encoded?.name ?? '']
  const rev = (await read(on, id))?._rev
  if (!encoded || !rev || !fitsUrl({ path, query: { rev } })) return false
  const bytes = encoded.gzip ? gzipSync(encoded.data) : encoded.data
  const headers = { 'content-type': encoded.content_type, 'content-encoding': 'gzip' }
  await putAttachment(on.url, path, bytes, headers, rev)
  return true
}

for (const [name, { setup, document, numRuns }] of Object.entries(servers)) {
  t.test(`${name}: no document that the database takes makes a backup fail, and none is lost`, async (t) => {
    const on = await setup(t)
    const host = await buildHost(t, { on, retry: { attempts: 2, wait: 1, longest: 1 } })
    const api = apiOf(host)
    let taken = 0
    const documents = fc.uniqueArray(document, { minLength: 1, maxLength: 12, selector: ({ id }) => id })
    const property = fc.asyncProperty(documents, async (all) => {
      await recreate(on.couch, on.names.components)
      const damaged = new Set<string>()
      const written: string[] = []
      for (const one of all) {
        if (!(await write(on, one))) continue
        written.push(one.id)
        if ((await putEncoded(on, one)) && !one.encoded?.gzip) damaged.add(one.id)
      }
      taken += written.length
      const backup = await api.get(await api.backup())
      const { docs, unreadable = [], doc_count } = backup.dbs.athena_components!
      if (docs.length !== doc_count) throw new Error(`${docs.length} documents of ${doc_count}`)
      for (const id of written) {
        const expected = await read(on, id)
        const found = docs.find(({ _id }) => _id === id)
        const named = unreadable.find((one) => id.startsWith(one.id))
        if (named && damaged.has(id)) continue
        if (!found || !isDeepStrictEqual(found, expected))
          throw new Error(
            `${JSON.stringify(id)}: ${JSON.stringify({ named, found, expected }).slice(0, 2000)}`
          )
      }
    })
    await fc.assert(property, { numRuns, seed: SEED, endOnFailure: true })
    t.ok(taken > numRuns, `${taken} documents were taken`)
  })
}
