import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import t from 'tap'
import { backupOf } from './helpers/api.js'
import { compareDatabases, LEASE, recreate } from './helpers/database.js'
import { load, seedDocuments } from './helpers/seed.js'
import { startKeeper, startTwoServerConsole } from './helpers/two-servers.js'

const idsIn = async (database: { list(): Promise<{ rows: { id: string }[] }> }) =>
  (await database.list()).rows.map(({ id }) => id)

t.test('every route and method works where the backups are on a server of their own', async (t) => {
  const keeper = await startKeeper(t)
  const console = await startTwoServerConsole(t, keeper)
  const { host, api, on, use } = console
  const { dbBackups } = host.app
  await load(use(on.names.components) as never, seedDocuments({ count: 30, attachmentEvery: 5 }))
  await load(use(on.names.system) as never, seedDocuments({ count: 4 }))
  const before = await on.fetchAll(on.names.components)

  const id = await api.backup()
  t.strictSame((await api.call('GET')).json(), { ids: [id] })
  const sent = await api.get(id)
  t.equal(sent.dbs.athena_components!.docs.length, 30)
  const part = await api.call('GET', `/${id}`, undefined, { range: 'bytes=10-' })
  t.equal(part.statusCode, 206)
  t.equal(await text((await dbBackups.get(id)).body), JSON.stringify(sent))
  t.equal((await api.call('PUT', `/${id}/attachments/a`, { attachment: 'note' })).statusCode, 200)
  await dbBackups.attach(id, 'b', 'note')
  // A cluster has an order of its own.
  t.strictSame((await dbBackups.summary(id)).attachments.sort(), ['a', 'b'])

  t.strictSame(
    (await idsIn(use(on.names.system))).filter((found) => !found.startsWith('doc_')),
    [LEASE],
    'beside the sources there is the lease, and nothing else'
  )
  t.notOk((await idsIn(use(on.names.components))).some((found) => found.startsWith('03_')))
  t.ok((await idsIn(keeper.documents)).includes(id))

  t.match(await dbBackups.verify(id), { good: true })
  t.match(await dbBackups.verify(id, { depth: 'restore' }), { good: true })
  await use(on.names.components).insert({ _id: 'more' })
  const differences = []
  for await (const one of dbBackups.diff(id, { against: 'now' })) differences.push(one)
  t.equal(differences.length, 1)

  for (const name of Object.values(on.names)) await recreate(on.couch, name)
  t.match(await api.restore(id), { status: 'success', databases: { components: { created: 30 } } })
  compareDatabases(t, before, await on.fetchAll(on.names.components))
  t.match(await api.restore(backupOf([{ _id: 'sent' }])), { status: 'success' })
  const undone = await (await dbBackups.restore({ id }, { exact: true, safety: true })).finished
  t.match(undone.databases, { components: { deleted: 1 } })
  t.match(
    (await dbBackups.list()).ids,
    [id, undone.safety_backup],
    'the safety backup lies beside the others'
  )
  const { finished } = await dbBackups.restore(
    { body: Readable.from([JSON.stringify(sent)]) },
    { safety: true }
  )
  t.match(await finished, { databases: { components: { unchanged: 30 } } })

  const last = await api.backup()
  t.match(await dbBackups.prune({ keep: { last: 1 } }), { kept: [{ id: last }] })
  t.strictSame(
    (await dbBackups.list()).ids,
    [id, last],
    'the first was made before the system database was new'
  )
  await api.backup()
  t.match(await dbBackups.remove(last), { removed: [{ id: last }] })
})

t.test('an operation holds a lease at each server, and gives both back', async (t) => {
  const keeper = await startKeeper(t)
  const { host, on, use, databases } = await startTwoServerConsole(t, keeper)
  const release = databases.hold({ path: /_changes/ })
  const { id, finished } = await host.app.dbBackups.start()
  const leases = () => Promise.all([use(on.names.system).get(LEASE), keeper.documents.get(LEASE)])
  for (const lease of await leases()) t.match(lease, { operation: 'backup', id, settled: true })
  release()
  await finished
  for (const lease of await leases()) t.notOk('operation' in lease)
})
