import { randomBytes } from 'node:crypto'
import t, { type Test } from 'tap'
import { apiOf } from './helpers/api.js'
import { setupDatabases, type TestDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { setupRawDatabases } from './helpers/raw-databases.js'

/** A document of 8 MB that nests as deep as its size lets it: CouchDB has no other bound. */
const DEEPEST = 3_990_000

const arrays = (depth: number) => `${'['.repeat(depth)}${']'.repeat(depth)}`
const objects = (depth: number) => `${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}`

const DOCUMENTS: Record<string, string> = {
  flat: '1',
  'arrays 600': arrays(600),
  'objects 600': objects(600),
  'arrays 100000': arrays(100_000),
  'objects 100000': objects(100_000),
  deepest: arrays(DEEPEST)
}

/** Databases that take such documents: a JSON parser in JavaScript does not. */
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
