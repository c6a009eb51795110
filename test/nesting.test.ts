import { randomBytes } from 'node:crypto'
import t, { type Test } from 'tap'
import { apiOf } from './helpers/api.js'
import { setupDatabases, type TestDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { setupRawDatabases } from './helpers/raw-databases.js'

/** A document of 8 MB that nests as deep as its size allows. CouchDB has no other limit. */
const DEEPEST = 3_990_000

const arrays = (depth: number) => `${'['.repeat(depth)}${']'.repeat(depth)}`
const objects = (depth: number) => `${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}`
/** Returns an array of `count` containers. */
const repeated = (value: string, times: number) => `[${Array(times).fill(value).join(',')}]`

const DOCUMENTS: Record<string, string> = {
  flat: '1',
  'arrays 600': arrays(600),
  'objects 600': objects(600),
  'arrays 100000': arrays(100_000),
  'objects 100000': objects(100_000),
  'arrays and objects 10000': `${'[{"a":'.repeat(5000)}1${'}]'.repeat(5000)}`,
  'empty arrays': repeated('[]', 2_166_000),
  'empty objects': repeated('{}', 1_000_000),
  'empty objects in arrays': repeated('[{}]', 1_500_000),
  deepest: arrays(DEEPEST)
}

/** Databases that accept such documents. A JSON parser in JavaScript does not. */
const setup = (t: Test): Promise<TestDatabases> =>
  process.env.COUCHDB_URL ? setupDatabases(t) : setupRawDatabases(t)

function requester({ url: text }: TestDatabases) {
  const { username, password, origin } = new URL(text)
  const authorization = `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`
  const headers = { 'content-type': 'application/json', ...(username && { authorization }) }
  return async (method: string, path: string, body?: string) => {
    const response = await fetch(`${origin}/${path}`, { method, headers, body })
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`)
    return response.text()
  }
}

t.test(
  'documents however deep they nest come back, by id and from their own download',
  { timeout: 600_000 },
  async (t) => {
    const on = await setup(t)
    const request = requester(on)
    const database = on.names.components
    const path = (id: string) => `${database}/${encodeURIComponent(id)}`
    const stored = new Map<string, string>()
    for (const [id, value] of Object.entries(DOCUMENTS)) {
      await request('PUT', path(id), `{"value":${value}}`)
      stored.set(id, await request('GET', path(id)))
    }
    const host = await buildHost(t, { on, databases: on.names })
    const api = apiOf(host)
    const { id, finished } = await host.app.dbBackups.start()
    t.match(await finished, { doc_count: stored.size })
    const download = await api.call('GET', `/${id}`)
    t.equal(download.statusCode, 200)

    const sources: Record<string, () => Promise<string>> = {
      'by id': async () => (await api.call('PUT', `/${id}`)).json().url,
      'from its own download': async () => (await api.call('PUT', '', download.rawPayload)).json().url
    }
    for (const [how, start] of Object.entries(sources)) {
      await t.test(how, async (t) => {
        await request('DELETE', database)
        await request('PUT', database)
        const { status, databases, failures } = await host.waitForRestore(await start(), 300_000)
        t.strictSame(failures, [])
        t.equal(status, 'success')
        t.match(databases, { components: { created: stored.size, failed: 0 } })
        for (const [id, text] of stored) t.ok((await request('GET', path(id))) === text, id)
      })
    }

    await t.test('and are compared with what is there', async (t) => {
      const tag = randomBytes(4).toString('hex')
      const other = JSON.parse(await request('GET', path('arrays 600')))
      await request('PUT', path('arrays 600'), JSON.stringify({ ...other, tag }))
      const { finished } = await host.app.dbBackups.restore({ id }, { dryRun: true })
      t.match((await finished).databases, {
        components: { changed: 1, unchanged: stored.size - 1, failed: 0 }
      })
    })
  }
)

t.test(
  'a document of an upload that nests in more bytes than CouchDB takes is named alone',
  { skip: !process.env.COUCHDB_URL && 'the embedded database has no such bound' },
  async (t) => {
    const api = apiOf(await buildHost(t))
    const documents = [
      ['before', '1'],
      ['deep', arrays(6_500_000)],
      ['between', '1'],
      ['many', repeated('[]', 5_000_000)],
      ['after', '1']
    ]
    const docs = documents.map(([id, value]) => `{"_id":"${id}","value":${value}}`)
    const upload = Buffer.from(`{"dbs":{"DB_COMPONENTS":{"docs":[${docs.join(',')}]}}}`)
    const expected = [
      { created: 3, unchanged: 0, failed: 2 },
      { created: 0, unchanged: 3, failed: 2 }
    ]
    for (const components of expected) {
      const { status, databases, failures } = await api.restore(upload)
      t.equal(status, 'error')
      t.match(databases, { components })
      t.strictSame(failures?.map(({ id, error }) => `${id}: ${error}`).sort(), [
        'deep: document_too_large',
        'many: document_too_large'
      ])
    }
  }
)
