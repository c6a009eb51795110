import { Readable } from 'node:stream'
import t from 'tap'
import { apiOf, backupOf } from './helpers/api.js'
import { setupDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { bytesOf } from './helpers/seed.js'

const retry = { attempts: 3, wait: 5, longest: 10 }
const attachment = (size: number, content_type: unknown) => ({
  content_type,
  data: bytesOf('odd', size).toString('base64')
})

t.test('an attachment whose type is a list comes back from the database and from a download', async (t) => {
  const on = await setupDatabases(t)
  if (!on.real) return void t.comment('only CouchDB takes lists')
  const db = on.couch.use(on.names.components)
  for (const [i, type] of [[], [116, 101, 120, 116], ['a', '/b'], [[]]].entries()) {
    for (const size of [5, 4_500_000])
      await db.insert({ _id: `${i} ${size}`, _attachments: { a: attachment(size, type) } } as never)
  }
  const api = apiOf(await buildHost(t, { on, retry }))
  const id = await api.backup()
  const { rawPayload } = await api.call('GET', `/${id}`)
  for (const source of [id, rawPayload]) {
    await on.couch.db.destroy(on.names.components)
    const tx = await api.restore(source)
    t.match(tx, { status: 'success', databases: { components: { created: 8, failed: 0 } } })
    for (const { _attachments } of (await on.fetchAll(on.names.components)).values())
      t.ok([5, 4_500_000].includes(Buffer.from(_attachments!.a!.data, 'base64').length))
  }
})

t.test('a document of the target that cannot be told keeps no upload from being restored', async (t) => {
  const on = await setupDatabases(t)
  if (!on.real) return void t.comment('only CouchDB takes such revisions')
  const odd = { _id: 'odd', _revisions: { start: -5, ids: ['abc'] }, v: 1 }
  await on.couch.use(on.names.components).bulk({ docs: [odd], new_edits: false } as never)
  const api = apiOf(await buildHost(t, { on, retry }))
  const tx = await api.restore(backupOf([{ _id: 'good' }]))
  t.match(tx, { status: 'success', databases: { components: { created: 1 } } })
  const both = await api.restore(backupOf([{ _id: 'good' }, { _id: 'odd', v: 2 }]))
  t.match(both, { status: 'error', databases: { components: { unchanged: 1, failed: 1 } } })
  t.match(both.failures, [{ id: 'odd', error: 'unreadable' }])
})

t.test('an exact restore names a document that cannot be told, and deletes the others', async (t) => {
  const on = await setupDatabases(t)
  if (!on.real) return void t.comment('only CouchDB takes such revisions')
  const db = on.couch.use(on.names.components)
  const odd = { _id: 'odd', _revisions: { start: -5, ids: ['abc'] }, v: 1 }
  await db.bulk({ docs: [odd], new_edits: false } as never)
  for (const _id of ['a', 'z']) await db.insert({ _id } as never)
  const { app } = await buildHost(t, { on, retry })
  for (const dryRun of [true, false]) {
    const body = Readable.from([Buffer.from(JSON.stringify(backupOf([{ _id: 'good' }])))])
    const { finished } = await app.dbBackups.restore({ body }, { exact: true, dryRun })
    const failures = [{ id: 'odd', error: 'unreadable' }]
    const databases = { components: { total: 1, created: 1, deleted: 2, failed: 1 } }
    const error: unknown = await finished.catch((error: unknown) => error)
    t.match(error, { outcome: { databases, failures } }, dryRun ? 'would' : 'does')
  }
  t.strictSame((await db.list()).rows.map(({ id }) => id).sort(), ['good', 'odd'])
})

t.test('a large document whose revision fits in no header is restored', async (t) => {
  const on = await setupDatabases(t)
  if (!on.real) return void t.comment('only CouchDB takes such revisions')
  const { couch, names } = on
  const db = couch.use(names.components)
  const docs = ['1-a\r\nb', '1-a\u0001', `1-${'f'.repeat(9000)}`].map((_rev, i) => ({
    _id: `odd ${i}`,
    _rev,
    _attachments: { a: attachment(4_500_000, 'image/png') }
  }))
  for (const doc of docs) await db.bulk({ docs: [doc], new_edits: false } as never)
  const api = apiOf(await buildHost(t, { on, retry }))
  const id = await api.backup()
  await couch.db.destroy(names.components)
  t.match(await api.restore(id), { status: 'success', databases: { components: { created: 3, failed: 0 } } })
})

t.test('values of the caller or the host that no database could keep are refused by name', async (t) => {
  const on = await setupDatabases(t)
  const { app } = await buildHost(t, { on })
  const { id, finished } = await app.dbBackups.start()
  await finished
  for (const contentType of ['text/plain\r\nx: y', '漢', '', 'x'.repeat(256)]) {
    const refused = { code: 'DB_BACKUPS_INVALID_PARAMETER', message: /contentType/ }
    await t.rejects(app.dbBackups.attach(id, 'a', 'b', { contentType }), refused)
  }
  const { app: large } = await buildHost(t, { on, versions: () => ({ a: 'v'.repeat(100_000) }) })
  await t.rejects(large.dbBackups.start(), { code: 'DB_BACKUPS_HOST_VALUE', message: /versions/ })
  await t.rejects(buildHost(t, { on, excludeTypes: Array(1001).fill('x') }), /excludeTypes/)
})
