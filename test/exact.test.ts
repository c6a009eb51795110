import nano from 'nano'
import t, { type Test } from 'tap'
import { apiOf } from './helpers/api.js'
import { setupDatabases, type TestDatabases } from './helpers/database.js'
import { startFaultProxy } from './helpers/fault-proxy.js'
import { buildHost } from './helpers/host.js'

async function restoreExactly(t: Test, on: TestDatabases, excludeTypes: string[], source: string | Buffer) {
  const { app } = await buildHost(t, { on, excludeTypes })
  const { Readable } = await import('node:stream')
  const from = typeof source === 'string' ? { id: source } : { body: Readable.from([source]) }
  const dry = await (await app.dbBackups.restore(from, { exact: true, dryRun: true })).finished
  const again = typeof source === 'string' ? from : { body: Readable.from([source]) }
  const { databases } = await (await app.dbBackups.restore(again, { exact: true })).finished
  t.strictSame(databases, dry.databases, 'a dry run tells the same')
  return databases
}

t.test('exact deletes a document with all its conflicting revisions', async (t) => {
  const on = await setupDatabases(t)
  const db = on.couch.use(on.names.components)
  await db.insert({ _id: 'kept' } as never)
  const id = await apiOf(await buildHost(t, { on })).backup()
  const docs = ['a', 'b', 'c'].flatMap((digit) =>
    ['many', 'more'].map((_id) => ({ _id, _rev: `1-${digit.repeat(32)}`, v: digit }))
  )
  await db.bulk({ docs, new_edits: false } as never)
  await db.insert({ _id: 'one' } as never)
  t.match(await restoreExactly(t, on, [], id), { components: { deleted: 3, unchanged: 1, failed: 0 } })
  t.strictSame([...(await on.fetchAll(on.names.components)).keys()], ['kept'])
  t.match(await restoreExactly(t, on, [], id), { components: { deleted: 0, unchanged: 1 } })
})

t.test('exact keeps documents of types that the backup left out', async (t) => {
  const on = await setupDatabases(t)
  const db = on.couch.use(on.names.components)
  await db.insert({ _id: 'peer', type: 'peer' } as never)
  await db.insert({ _id: 'cache', type: 'cache' } as never)
  const api = apiOf(await buildHost(t, { on, excludeTypes: ['cache'] }))
  const id = await api.backup()
  const got = await api.call('GET', `/${id}`)
  t.ok(got.json().dbs.athena_components.excluded_types.includes('cache'))
  await db.insert({ _id: 'late', type: 'peer' } as never)
  for (const source of [id, got.rawPayload]) {
    const databases = await restoreExactly(t, on, [], source)
    t.equal(databases.components!.deleted, source === id ? 1 : 0)
    t.strictSame([...(await on.fetchAll(on.names.components)).keys()], ['cache', 'peer'])
  }
})

t.test('an upload that names the types it left out in another way is refused', async (t) => {
  const api = apiOf(await buildHost(t))
  for (const excluded_types of ['cache', [1], {}, null]) {
    const reply = await api.call('PUT', '', { dbs: { components: { excluded_types, docs: [] } } })
    t.equal(reply.statusCode, 400)
    t.match(reply.json().message, /"dbs.components.excluded_types" must be an array of strings/)
  }
})

t.test('exact deletes what an upload says is deleted', async (t) => {
  const on = await setupDatabases(t)
  const db = on.couch.use(on.names.components)
  await db.insert({ _id: 'gone' } as never)
  await db.insert({ _id: 'kept' } as never)
  const docs = [{ _id: 'kept' }, { _id: 'gone', _deleted: true }]
  const body = Buffer.from(JSON.stringify({ dbs: { components: { docs } } }))
  t.match(await restoreExactly(t, on, [], body), { components: { deleted: 1, unchanged: 1, skipped: 1 } })
  t.strictSame([...(await on.fetchAll(on.names.components)).keys()], ['kept'])
})

t.test('exact deletes nothing when what was written cannot be confirmed', async (t) => {
  const on = await setupDatabases(t)
  const { components } = on.names
  await on.couch.use(components).insert({ _id: 'created' } as never)
  const proxy = await startFaultProxy(t, on.url)
  const retry = { attempts: 2, wait: 5, longest: 10 }
  const { app } = await buildHost(t, { on: { ...on, couch: nano(proxy.url) }, retry })
  const { id, finished } = await app.dbBackups.start()
  await finished
  await on.couch.db.destroy(components)
  await on.couch.db.create(components)
  await on.couch.use(components).insert({ _id: 'extra' } as never)
  const restore = async () => (await app.dbBackups.restore({ id }, { exact: true, safety: false })).finished
  const path = new RegExp(`${components}/_changes`)
  const rule = proxy.add({ fault: 'status_500', path, times: Number.POSITIVE_INFINITY })
  await t.rejects(restore(), { code: 'DB_BACKUPS_RESTORE_INCOMPLETE', cause: { name: 'CouchError' } })
  t.ok(rule.hits > 0)
  t.strictSame([...(await on.fetchAll(components)).keys()], ['created', 'extra'])
  await proxy.clear()
  t.match(await restore(), { databases: { components: { deleted: 1, unchanged: 1, failed: 0 } } })
  t.strictSame([...(await on.fetchAll(components)).keys()], ['created'])
})

t.test('the winning revision decides in a conflict', async (t) => {
  const on = await setupDatabases(t)
  if (!on.real) return void t.comment('the embedded database orders revisions in another way')
  const db = on.couch.use(on.names.components)
  const [shown, other] = [`1-${'f'.repeat(32)}`, '1-zzz']
  const docs = [
    { _id: 'kept', _rev: shown, type: 'session_athena' },
    { _id: 'kept', _rev: other, type: 'x' },
    { _id: 'deleted', _rev: shown, type: 'x' },
    { _id: 'deleted', _rev: other, type: 'session_athena' },
    { _id: 'restored', _rev: shown, v: 'B' },
    { _id: 'restored', _rev: other, v: 'A' }
  ]
  await db.bulk({ docs, new_edits: false } as never)
  const body = Buffer.from('{"dbs":{"components":{"docs":[{"_id":"restored","v":"A"}]}}}')
  t.match(await restoreExactly(t, on, [], body), { components: { changed: 1, deleted: 1 } })
  const left = await on.fetchAll(on.names.components)
  t.strictSame([...left.keys()], ['kept', 'restored'])
  t.equal(left.get('restored')!.v, 'A')
})
