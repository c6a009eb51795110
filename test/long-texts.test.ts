import { createHash } from 'node:crypto'
import nano from 'nano'
import t, { type Test } from 'tap'
import { CouchDatabase } from '../lib/couch/database.js'
import { fitsUrl } from '../lib/couch/target.js'
import { LARGE_DOCUMENT } from '../lib/json/document.js'
import type { StoredHeader } from '../lib/repository/layout.js'
import { apiOf } from './helpers/api.js'
import { clientOf } from './helpers/couch-client.js'
import { setupDatabases, type TestDatabases } from './helpers/database.js'
import { startFaultProxy } from './helpers/fault-proxy.js'
import { buildHost } from './helpers/host.js'
import { setupRawDatabases } from './helpers/raw-databases.js'
import { repeatedBytes } from './helpers/seed.js'

const LARGE = repeatedBytes('large', LARGE_DOCUMENT + 1)
const sha256 = (data: Buffer) => createHash('sha256').update(data).digest('hex')

/** Servers that refuse long URLs: the raw server, and `COUCHDB_URL`. */
const setups: Record<string, (t: Test) => Promise<TestDatabases>> = { imitated: setupRawDatabases }
if (process.env.COUCHDB_URL) setups.CouchDB = setupDatabases

const attachment = (name: string, content_type = 'image/png') => ({
  [name]: { content_type, data: LARGE.toString('base64') }
})

/** Documents with large attachments that no URL of their own can name. */
const DOCUMENTS: { _id: string; _rev?: string; _attachments: object }[] = [
  { _id: 'k'.repeat(9000), _attachments: attachment('a') },
  { _id: '漢'.repeat(2000), _attachments: attachment('a', 'text/plain') },
  { _id: '漢'.repeat(900), _attachments: attachment('漢'.repeat(501)) },
  { _id: 'long revision', _rev: `1-${'r'.repeat(9000)}`, _attachments: attachment('a') },
  { _id: 'long name', _attachments: attachment('n'.repeat(100_000)) },
  { _id: 'dots', _attachments: { ...attachment('..'), '.': { content_type: 'a/b', data: 'YQ==' } } },
  { _id: '..', _attachments: attachment('a') },
  { _id: '.', _attachments: attachment('', `a/${'b'.repeat(9000)}`) },
  { _id: '\u0000\n', _attachments: attachment('\u0000\n', 'text/x\r\n\r\nof the head') },
  { _id: 'a/../b?c#d%2F+ ', _attachments: attachment('a/../b?c#d%2F+ ') }
]

for (const [database, setup] of Object.entries(setups)) {
  t.test(
    `${database}: a document is backed up whatever the length of its id, revision and names`,
    async (t) => {
      const on = await setup(t)
      const db = on.couch.use(on.names.components)
      for (const document of DOCUMENTS) {
        const docs = [{ ...document, _rev: document._rev ?? '1-a' }]
        t.strictSame(await db.bulk({ new_edits: false, docs } as never), [])
      }
      const api = apiOf(await buildHost(t, { on }))
      const id = await api.backup()
      const { docs, unreadable } = (await api.get(id)).dbs.athena_components!
      t.strictSame(unreadable, undefined)
      t.equal(docs.length, DOCUMENTS.length)
      for (const { _id, _rev = '1-a', _attachments } of DOCUMENTS) {
        const found = docs.find((document) => document._id === _id)!
        t.equal(found._rev, _rev, JSON.stringify(_id.slice(0, 30)))
        const told = Object.entries(found._attachments!).map(([name, { content_type, data }]) => {
          return [name, content_type, sha256(Buffer.from(data, 'base64'))]
        })
        const expected = Object.entries(_attachments).map(([name, { content_type, data }]) => {
          return [name, content_type, sha256(Buffer.from(data, 'base64'))]
        })
        t.strictSame(told.sort(), expected.sort())
      }
    }
  )

  t.test(`${database}: the header holds many long ids of large documents`, async (t) => {
    const on = await setup(t)
    const db = on.couch.use(on.names.components)
    const ids = Array.from({ length: 3 }, (_, i) => String(i).repeat(1_000_000))
    for (const _id of ids) await db.bulk({ docs: [{ _id, _attachments: attachment('a') }] } as never)
    const api = apiOf(await buildHost(t, { on, databases: { ...on.names, backups: on.names.system } }))
    const id = await api.backup()
    const header = await on.couch.use(on.names.system).get(id)
    t.ok(JSON.stringify(header).length < 100_000)
    const { docs } = (await api.get(id)).dbs.athena_components!
    t.strictSame(docs.map(({ _id }) => _id).sort(), ids)
  })

  t.test(`${database}: of a long id that is read twice, the last version counts`, async (t) => {
    const on = await setup(t)
    const ids = ['k', 'm'].map((letter) => letter.repeat(9000))
    const docs = ids.map((_id) => ({ _id, _attachments: attachment('a') }))
    await on.couch.use(on.names.components).bulk({ docs } as never)
    const proxy = await startFaultProxy(t, on.url)
    const broken = proxy.add({ path: /components\/_changes/, fault: 'stall_mid' })
    const databases = { ...on.names, backups: on.names.system }
    const host = await buildHost(t, { on, databases, couch: nano(proxy.url), timeouts: { idle: 1000 } })
    const api = apiOf(host)
    const id = await api.backup()
    t.equal(broken.hits, 1)
    const header = (await on.couch.use(on.names.system).get(id)) as unknown as StoredHeader
    const { chunks } = header.storage.databases.components!
    // the shards of a CouchDB decide where a page of its feed ends
    const stored = chunks.filter(({ large }) => large !== undefined).length
    if (database === 'imitated') t.equal(stored, 2, 'the earlier version is not listed')
    t.equal(header.dbs.athena_components!.doc_count, 2)
    t.strictSame((await api.get(id)).dbs.athena_components!.docs.map(({ _id }) => _id).sort(), ids)
    t.match((await api.restore(id)).databases, { components: { total: 2, unchanged: 2 } })
  })

  t.test(`${database}: ids are listed from one that no URL holds`, async (t) => {
    const on = await setup(t)
    const ids = ['a', 'k'.repeat(9000), 'm', 'z'.repeat(9000)]
    await on.couch.use(on.names.components).bulk({ docs: ids.map((_id) => ({ _id })) })
    const components = new CouchDatabase(clientOf(t, on.url), on.names.components)
    const list = async (range: { from?: string; to?: string; limit?: number }) => {
      const found: string[] = []
      for await (const rows of components.allDocs(range)) for (const { id } of rows) found.push(id)
      return found
    }
    t.strictSame(await list({ from: ids[1] }), ids.slice(1))
    t.strictSame(await list({ from: ids[1], limit: 2 }), ids.slice(1, 3))
    t.strictSame(await list({ from: ids[1], to: ids[3] }), ids.slice(1))
    t.strictSame(await list({ from: 'b', to: 'n' }), ids.slice(1, 3))
  })

  t.test(`${database}: an attachment of a header may have any name`, async (t) => {
    const on = await setup(t)
    const databases = { ...on.names, backups: on.names.system }
    const api = apiOf(await buildHost(t, { on, databases }))
    const id = await api.backup()
    const db = on.couch.use(on.names.system)
    const header = (await db.get(id)) as object
    const names = ['', '..', 'n'.repeat(9000), 'with\nbreak']
    const attachments = Object.fromEntries(
      names.map((name) => [name, { content_type: 'a/b', data: Buffer.from(`of ${name}`).toString('base64') }])
    )
    await db.insert({ ...header, _attachments: attachments } as never)
    const { _attachments } = await api.get(id)
    const expected = names.map((name) => [name, attachments[name]!.data])
    t.strictSame(_attachments, Object.fromEntries(expected))
  })
}

t.test('a URL holds 4 KiB as they are sent, and no segment that names another place', async (t) => {
  const fits = (path: string[], query = {}) => fitsUrl({ path, query })
  t.ok(fits(['db', 'k'.repeat(4000)]))
  t.notOk(fits(['db', 'k'.repeat(4096)]))
  t.ok(fits(['db', '漢'.repeat(400)]))
  t.notOk(fits(['db', '漢'.repeat(500)]), 'percent-encoded')
  t.notOk(fits(['db', 'a', '漢'.repeat(300)], { rev: 'r'.repeat(2000) }), 'with its query')
  for (const segment of ['', '.', '..', '_design/..', '_local/', '\n', '\u0000', '\ud800'])
    t.notOk(fits(['db', segment]), JSON.stringify(segment))
  for (const segment of ['a', '...', 'a/..', '_design/a', '_design//', '漢', ' ', '%'])
    t.ok(fits(['db', segment]), segment)
})
