import { gzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { apiOf, backupOf } from './helpers/api.js'
import { putAttachment, setupDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { bytesOf } from './helpers/seed.js'

const MiB = 1024 * 1024

async function setup(t: Test) {
  const on = await setupDatabases(t)
  const api = apiOf(await buildHost(t, { on }))
  const db = on.couch.use(on.names.components)
  const read = async (id: string) =>
    (await db.get(id, { attachments: true } as never)) as unknown as Record<string, unknown> & {
      _rev: string
      _attachments: Record<string, { data: string; digest: string; content_type: string }>
    }
  return { on, api, db, read }
}

const base64 = (bytes: Buffer) => bytes.toString('base64')

t.test('an upload that claims the current revision for other content is restored', async (t) => {
  const { api, db, read } = await setup(t)
  const { rev } = await db.insert({ _id: 'peer', v: 'old' } as never)
  const edited = { _id: 'peer', _rev: rev, v: 'edited' }
  t.match((await api.restore(backupOf([edited]))).databases, { components: { changed: 1, unchanged: 0 } })
  t.match(await read('peer'), { v: 'edited' })
  t.match((await api.restore(backupOf([edited]))).databases, { components: { changed: 0, unchanged: 1 } })
})

t.test('the last of several versions wins, whatever revision they claim', async (t) => {
  const { api, db, read } = await setup(t)
  const { rev } = await db.insert({ _id: 'peer', v: 1 } as never)
  const versions = [1, 2].map((v) => ({ _id: 'peer', _rev: rev, v }))
  t.match((await api.restore(backupOf(versions))).databases, { components: { changed: 1 } })
  t.match(await read('peer'), { v: 2 })
})

for (const [type, size] of [
  ['application/octet-stream', 100],
  ['text/plain', 100],
  ['application/octet-stream', 5 * MiB],
  ['text/plain', 5 * MiB]
] as const) {
  t.test(`the digest that an upload claims for ${size} bytes of ${type} counts for nothing`, async (t) => {
    const { api, db, read } = await setup(t)
    const [first, second] = ['first', 'second'].map((seed) => bytesOf(seed, size))
    const document = (data: Buffer) => ({
      _id: 'with',
      _attachments: { a: { content_type: type, data: base64(data) } }
    })
    await db.insert(document(first!) as never)
    const { _rev, _attachments } = await read('with')
    const claim = { ...document(second!), _rev }
    claim._attachments.a = { ...claim._attachments.a, digest: _attachments.a!.digest } as never
    t.match((await api.restore(backupOf([claim]))).databases, { components: { changed: 1, unchanged: 0 } })
    t.ok(Buffer.from((await read('with'))._attachments.a!.data, 'base64').equals(second!))
    t.match((await api.restore(backupOf([claim]))).databases, { components: { changed: 0, unchanged: 1 } })
    const other = structuredClone(claim)
    other._attachments.a.content_type = 'image/png' as never
    t.match((await api.restore(backupOf([other]))).databases, { components: { changed: 1 } })
  })
}

t.test('a backup is restored over what an edited download of it has left', async (t) => {
  const { on, api, db, read } = await setup(t)
  const large = { content_type: 'image/png', data: base64(bytesOf('large', 5 * MiB)) }
  await db.insert({ _id: 'peer', v: 'true' } as never)
  await db.insert({ _id: 'same', v: 'true' } as never)
  await db.insert({ _id: 'large', v: 'true', _attachments: { large } } as never)
  const id = await api.backup()
  const download = JSON.parse((await api.call('GET', `/${id}`)).body)
  for (const doc of download.dbs.athena_components.docs) if (doc._id !== 'same') doc.v = 'edited'
  await on.couch.db.destroy(on.names.components)
  t.match((await api.restore(download)).databases, { components: { created: 3 } })
  t.match(await read('peer'), { v: 'edited' })
  t.match((await api.restore(id)).databases, { components: { changed: 2, unchanged: 1, created: 0 } })
  for (const name of ['peer', 'large']) t.match(await read(name), { v: 'true' })
  t.match((await api.restore(id)).databases, { components: { changed: 0, unchanged: 3 } })
})

t.test(
  'an upload of documents of one revision brings back the revisions that the database made',
  async (t) => {
    const { on, api, db, read } = await setup(t)
    const _attachments = { a: { content_type: 'text/plain', data: base64(bytesOf('a', 100)) } }
    await db.bulk({
      docs: [
        { _id: 'plain', v: 1.5 },
        { _id: 'with', _attachments }
      ]
    } as never)
    const before = [(await read('plain'))._rev, (await read('with'))._rev]
    const { rawPayload } = await api.call('GET', `/${await api.backup()}`)
    await on.couch.db.destroy(on.names.components)
    t.match((await api.restore(rawPayload)).databases, { components: { created: 2 } })
    const after = [(await read('plain'))._rev, (await read('with'))._rev]
    if (on.real) t.strictSame(after, before)
    else for (const rev of after) t.match(rev, /^1-/)
  }
)

t.test('an upload restored a second time writes nothing', async (t) => {
  const { on, api, db } = await setup(t)
  const insert = (type: string, size: number) => {
    const _attachments = { a: { content_type: type, data: base64(bytesOf(type, size)) } }
    return db.insert({ _id: `${type} ${size}`, _attachments } as never)
  }
  for (const type of ['text/plain', 'application/json', 'image/png', 'image/svg+xml']) {
    for (const size of [0, 1, 1000]) await insert(type, size)
  }
  // One type that CouchDB stores compressed, and one that it does not.
  for (const type of ['text/plain', 'image/png']) await insert(type, 5 * MiB)
  await db.insert({ _id: 'plain', v: 1 } as never)
  const id = await api.backup()
  const { rawPayload } = await api.call('GET', `/${id}`)
  const again = async () => {
    for (const source of [rawPayload, id])
      t.match((await api.restore(source)).databases, { components: { unchanged: 15, changed: 0 } })
  }
  await again()
  await on.couch.db.destroy(on.names.components)
  t.match((await api.restore(rawPayload)).databases, { components: { created: 15 } })
  await again()
})

t.test('the digest of what is stored compressed proves nothing of other bytes', async (t) => {
  const { on, api, read } = await setup(t)
  if (!on.real) return void t.comment('the embedded database compresses nothing')
  const stored = gzipSync('hello world')
  const headers = { 'content-type': 'image/png', 'content-encoding': 'gzip' }
  await putAttachment(on.url, [on.names.components, 'p', 'a'], stored, headers)
  const a = { content_type: 'image/png', data: base64(stored) }
  const backup = backupOf([{ _id: 'p', _attachments: { a } }])
  t.match((await api.restore(backup)).databases, { components: { changed: 1, unchanged: 0 } })
  t.ok(Buffer.from((await read('p'))._attachments.a!.data, 'base64').equals(stored))
  t.match((await api.restore(backup)).databases, { components: { unchanged: 1 } })
})

t.test('the last of several attachments of one name counts, however large they are', async (t) => {
  const { api, read } = await setup(t)
  for (const size of [10, 3_000_000]) {
    const [first, last] = ['first', 'last'].map((seed) => base64(bytesOf(seed, size)))
    const member = (data?: string) => `"a":{"content_type":"image/png","data":"${data}"}`
    const doc = `{"_id":"of ${size}","_attachments":{${member(first)},${member(last)}}}`
    const body = Buffer.from(`{"dbs":{"components":{"docs":[${doc}]}}}`)
    t.match((await api.restore(body)).databases, { components: { created: 1 } })
    t.ok((await read(`of ${size}`))._attachments.a!.data === last)
  }
})

t.test('an attachment without its data is named, whatever the database has', async (t) => {
  const { api, db, read } = await setup(t)
  const a = { content_type: 'image/png', data: base64(bytesOf('a', 10)) }
  await db.insert({ _id: 'p', _attachments: { a } } as never)
  const { digest } = (await read('p'))._attachments.a!
  for (const stub of [
    { stub: true, digest, length: 10 },
    { stub: true, length: 999 }
  ]) {
    const docs = [{ _id: 'p', _attachments: { a: { content_type: 'image/png', ...stub } } }, { _id: 'good' }]
    const tx = await api.restore(backupOf(docs))
    t.match(tx, { status: 'error', databases: { components: { failed: 1, changed: 0 } } })
    t.match(tx.failures, [{ id: 'p', error: 'missing_stub' }])
  }
})
