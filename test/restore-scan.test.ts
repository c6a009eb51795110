import t from 'tap'
import { apiOf, backupOf } from './helpers/api.js'
import { setupDatabases } from './helpers/database.js'
import { startGate } from './helpers/gate.js'
import { buildHost } from './helpers/host.js'

t.test('a target is read in pages: with documents for an upload, else by revisions', async (t) => {
  const on = await setupDatabases(t)
  const { components } = on.names
  const docs = Array.from({ length: 1500 }, (_, i) => ({ _id: `doc ${i}`, v: i }))
  await on.couch.use(components).bulk({ docs } as never)
  const gate = await startGate(t, on)
  const api = apiOf(await buildHost(t, { on, couch: gate.couch }))
  const id = await api.backup()
  const unchanged = { status: 'success', databases: { components: { unchanged: docs.length } } }
  const asked = (what: string) => gate.requests.filter((line) => line.includes(`/${components}/${what}`))
  const isWithDocuments = (line: string) => line.includes('include_docs=true')

  gate.requests.length = 0
  t.match(await api.restore(id), unchanged)
  t.strictSame(asked('_all_docs').map(isWithDocuments), [false])
  t.strictSame(asked('_bulk_get'), [])

  gate.requests.length = 0
  t.match(await api.restore(backupOf(docs)), unchanged)
  t.strictSame(asked('_all_docs').map(isWithDocuments), [true, true])
  t.strictSame(asked('_bulk_get'), [], 'documents that came with the scan are not asked for again')
  t.strictSame(asked('_bulk_docs'), [])
})

t.test('what all replicas have taken is not read back one by one', async (t) => {
  const on = await setupDatabases(t)
  const { components } = on.names
  const gate = await startGate(t, on)
  const docs = Array.from({ length: 300 }, (_, i) => ({ _id: `doc ${i}` }))
  const api = apiOf(await buildHost(t, { on, couch: gate.couch }))
  t.match(await api.restore(backupOf(docs)), {
    status: 'success',
    databases: { components: { created: 300 } }
  })
  t.equal(gate.requests.filter((line) => line.includes(`${components}/_bulk_docs`)).length, 2)
  t.strictSame(
    gate.requests.filter((line) => line.includes(`${components}/_bulk_get`)),
    []
  )
})
