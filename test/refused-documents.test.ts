import nano from 'nano'
import t, { type Test } from 'tap'
import { apiOf, backupOf } from './helpers/api.js'
import { setupDatabases } from './helpers/database.js'
import { type Fault, startFaultProxy } from './helpers/fault-proxy.js'
import { buildHost } from './helpers/host.js'
import { bytesOf } from './helpers/seed.js'

const retry = { attempts: 4, wait: 5, longest: 10 }

/** Builds a host whose database answers with a fault when a request contains "poison". */
async function setup(t: Test, fault: Fault = 'status_500') {
  const on = await setupDatabases(t)
  const proxy = await startFaultProxy(t, on.url)
  const rule = proxy.add({ fault, method: 'POST', path: /_bulk_docs/, body: /poison/, times: 1e9 })
  const api = apiOf(await buildHost(t, { on: { ...on, couch: nano(proxy.url) }, retry }))
  return { on, api, proxy, rule, ids: async () => [...(await on.fetchAll(on.names.components)).keys()] }
}

const documents = (count: number, poisoned: (i: number) => boolean) =>
  Array.from({ length: count }, (_, i) => ({ _id: `doc ${i}`, v: poisoned(i) ? 'poison' : 'good' }))

t.test('a document that makes the database fail is named, and those beside it are written', async (t) => {
  const { api, ids } = await setup(t)
  const docs = documents(300, (i) => i === 7 || i === 255)
  const tx = await api.restore(backupOf(docs))
  t.match(tx, { status: 'error', databases: { components: { created: 298, failed: 2 } } })
  t.match(tx.failures?.map(({ id }) => id).sort(), ['doc 255', 'doc 7'])
  t.equal((await ids()).length, 298)
})

t.test('a document whose write fails a few times is written, not named', async (t) => {
  const { api, rule, ids } = await setup(t)
  rule.times = 3
  const tx = await api.restore(backupOf(documents(1, () => true)))
  t.match(tx, { status: 'success', databases: { components: { created: 1, failed: 0 } } })
  t.equal((await ids()).length, 1)
})

t.test('the restore of a stored backup names it as well, and goes on with the other databases', async (t) => {
  const { on, api, ids } = await setup(t)
  await on.couch.use(on.names.components).bulk({ docs: documents(50, (i) => i === 20) } as never)
  await on.couch.use(on.names.sessions).insert({ _id: 'user' } as never)
  const id = await api.backup()
  for (const name of [on.names.components, on.names.sessions]) await on.couch.db.destroy(name)
  const tx = await api.restore(id)
  t.match(tx, {
    status: 'error',
    databases: { components: { created: 49, failed: 1 }, sessions: { created: 1 } }
  })
  t.match(tx.failures, [{ id: 'doc 20', database: 'components' }])
  t.equal((await ids()).length, 49)
})

t.test('a document that something between refuses is named, and those beside it are written', async (t) => {
  const { api } = await setup(t, 'status_403')
  const tx = await api.restore(backupOf(documents(40, (i) => i === 20)))
  t.match(tx, { status: 'error', databases: { components: { created: 39, failed: 1 } } })
  t.match(tx.failures, [{ id: 'doc 20', error: 'blocked' }])
})

t.test('a database that fails for every document fails the restore, not each document', async (t) => {
  const { api, proxy } = await setup(t)
  const tx = await api.restore(backupOf(documents(2000, () => true)))
  t.equal(tx.status, 'error')
  const writes = proxy.seen.filter(({ path }) => path.includes('_bulk_docs')).length
  t.ok(writes < 1000, `${writes} requests`)
})

t.test('a large document that the database fails for is named', async (t) => {
  const { on, api, proxy } = await setup(t)
  proxy.add({ fault: 'status_500', method: 'PUT', path: /large/, times: 1e9 })
  const data = bytesOf('large', 5_000_000).toString('base64')
  const large = { _id: 'large', _attachments: { a: { content_type: 'image/png', data } } }
  const tx = await api.restore(backupOf([large, ...documents(3, () => false)]))
  t.match(tx, { status: 'error', databases: { components: { created: 3, failed: 1 } } })
  t.match(tx.failures, [{ id: 'large' }])
  t.equal((await on.fetchAll(on.names.components)).size, 3)
})

t.test('an integer that CouchDB cannot compute with fails its document only', async (t) => {
  const on = await setupDatabases(t)
  if (!on.real) return void t.comment('the embedded database stores it')
  const api = apiOf(await buildHost(t, { on, retry }))
  const docs = documents(20, () => false).map((doc) => JSON.stringify(doc))
  docs.splice(10, 0, `{"_id":"big","v":${'9'.repeat(5000)}}`)
  const tx = await api.restore(Buffer.from(`{"dbs":{"components":{"docs":[${docs.join(',')}]}}}`))
  t.match(tx, { status: 'error', databases: { components: { created: 20, failed: 1 } } })
  t.match(tx.failures, [{ id: 'big' }])
})

t.test('many such documents in a row lose none of the good ones', async (t) => {
  const { api, ids } = await setup(t)
  const tx = await api.restore(backupOf(documents(300, (i) => i < 25)))
  t.match(tx, { status: 'error', databases: { components: { created: 275, failed: 25 } } })
  t.equal((await ids()).length, 275)
})

t.test('a design document that refuses with a value of any kind refuses its document only', async (t) => {
  const on = await setupDatabases(t)
  if (!on.real) return void t.comment('the embedded database runs no such function')
  const db = on.couch.use(on.names.components)
  const validate = (value: string) => `function (d) { if (d._id === 'bad') throw ({ forbidden: ${value} }) }`
  await db.insert({ _id: '_design/v', validate_doc_update: validate('{ a: [1] }') } as never)
  const api = apiOf(await buildHost(t, { on, retry }))
  const docs = ['good 0', 'bad', 'good 1'].map((_id) => ({ _id }))
  const tx = await api.restore({ dbs: { components: { docs }, system: { docs: [{ _id: 'other' }] } } })
  const databases = { components: { created: 2, failed: 1 }, system: { created: 1 } }
  t.match(tx, { status: 'error', databases, failures: [{ id: 'bad', error: 'forbidden' }] })
})

t.test('the transaction counts what was done before the database failed for good', async (t) => {
  const { on, api, proxy } = await setup(t)
  const write = { method: 'POST', path: /sessions\/_bulk_docs/ }
  proxy.add({ ...write, fault: 'status_503', times: 1e9 })
  const tx = await api.restore({
    dbs: { components: { docs: [{ _id: 'a' }] }, sessions: { docs: [{ _id: 'b' }] } }
  })
  t.match(tx, { status: 'error', databases: { components: { created: 1 }, sessions: { created: 0 } } })
  t.equal((await on.fetchAll(on.names.components)).size, 1)
})
