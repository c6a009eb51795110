import { Readable } from 'node:stream'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import type { BackupEvent } from '../types/index.js'
import { apiOf, backupOf } from './helpers/api.js'
import { compareDatabases, DATABASES, setupDatabases, type TestDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { observe } from './helpers/observed-host.js'
import { cases } from './helpers/settings.js'
import { StoredBackupsOf } from './helpers/stored-backups.js'

const setup = async (t: Test, on?: TestDatabases) => {
  const host = await buildHost(t, { on: on ?? (await setupDatabases(t)), safety: undefined })
  return {
    host,
    api: apiOf(host),
    components: host.on.couch.use<Record<string, unknown>>(host.on.names.components)
  }
}

t.test('a restore over HTTP makes a backup first, and names it', async (t) => {
  const { host, api, components } = await setup(t)
  await components.insert({ _id: 'a', v: 1 } as never)
  const upload = backupOf([{ _id: 'a', v: 2 }, { _id: 'b' }])
  const tx = await api.restore(upload)
  t.match(tx, {
    status: 'success',
    safety_backup: /^03_ibp_db_backup_\d+$/,
    databases: { components: { changed: 1 } }
  })
  const id = tx.safety_backup as string
  t.ok(tx.athena_messages.some((message) => message.includes(id)))
  t.match(await host.app.dbBackups.summary(id), {
    in_progress: false,
    note: `made before restore ${tx.tx_id}, to take it back`,
    requester: { name: 'manager' },
    dbs: { athena_components: { doc_count: 1 } }
  })
  const next = await api.backup()
  t.ok(BigInt(next.slice(17)) > BigInt(id.slice(17)), 'later backups have later ids')
  // The embedded database does not tell enough for an incremental backup.
  if (host.on.real) t.equal((await host.app.dbBackups.summary(next)).base, id, 'and can be based on it')
  const undo = await (await host.app.dbBackups.restore({ id }, { exact: true })).finished
  t.match(undo.databases, { components: { changed: 1, deleted: 1 } })
  t.match(await components.get('a'), { v: 1 })
  t.ok(undo.safety_backup && undo.safety_backup !== id)
})

t.test('none is made by a dry run, when told not to, and where nothing can be lost', async (t) => {
  const { host, api, components } = await setup(t)
  const { dbBackups } = host.app
  const upload = () => ({ body: Readable.from([JSON.stringify(backupOf([{ _id: 'a' }]))]) })
  const outcomeOf = async (options = {}) => (await dbBackups.restore(upload(), options)).finished
  t.notOk('safety_backup' in (await outcomeOf()), 'the database is empty')
  await host.on.couch.use(host.on.names.sessions).insert({ _id: 'elsewhere' } as never)
  t.notOk('safety_backup' in (await outcomeOf({ safety: false })))
  t.notOk('safety_backup' in (await outcomeOf({ dryRun: true })))
  t.strictSame((await api.call('GET')).json(), { ids: [] })
  await host.on.couch.db.destroy(host.on.names.components)
  t.notOk('safety_backup' in (await outcomeOf()), 'the database is missing')
  t.match(await components.get('a'), { _id: 'a' })
  const own = backupOf([], { dbs: { system: { docs: [{ _id: 'x' }] } } })
  const system = await (await dbBackups.restore({ body: Readable.from([JSON.stringify(own)]) })).finished
  t.notOk('safety_backup' in system, 'the system database holds the lease alone')
  const { couch, names } = host.on
  await couch.use(names.system).insert({ type: 'webhook_tx' } as never, 'tx')
  const beside = await (await dbBackups.restore({ body: Readable.from([JSON.stringify(own)]) })).finished
  t.ok('safety_backup' in beside, 'a restored document lies beside the transaction')
  await couch.use(names.system).destroy('x', (await couch.use(names.system).get('x'))._rev)
  const fresh = await (await dbBackups.restore({ body: Readable.from([JSON.stringify(own)]) })).finished
  t.notOk('safety_backup' in fresh, 'transactions are no documents that can be lost')
  await couch.use(names.system).insert({ _id: 'backup_chunk_1_system_000000' } as never)
  const again = await (await dbBackups.restore({ body: Readable.from([JSON.stringify(own)]) })).finished
  t.ok('safety_backup' in again, 'a document of the console counts, whatever its id')
})

t.test(
  'a database that was lost is restored all the same, and its loss is still noticed by later backups',
  async (t) => {
    const { host, api, components } = await setup(t)
    await components.insert({ _id: 'a' } as never)
    await host.on.couch.use(host.on.names.sessions).insert({ _id: 's' } as never)
    const id = await api.backup()
    await host.on.couch.db.destroy(host.on.names.components)
    const { safety_backup } = await (await host.app.dbBackups.restore({ id }, { only: { sessions: {} } }))
      .finished
    t.match(await host.app.dbBackups.summary(safety_backup as string), {
      missing_databases: ['athena_components']
    })
    await t.rejects((await host.app.dbBackups.start()).finished, { code: 'DB_BACKUPS_MISSING_DATABASE' })
    t.match(await api.restore(id), { status: 'success', databases: { components: { created: 1 } } })
    await (await host.app.dbBackups.start()).finished
  }
)

t.test('when it fails, nothing is written', async (t) => {
  const host = await observe(t, { safety: undefined })
  const { names } = host.on
  const before = await host.on.fetchAll(names.components)
  host.proxy.add({ method: 'GET', path: /_changes/, fault: 'status_401', times: 100 })
  const { tx_id, finished } = await host.app.dbBackups.restore({
    body: Readable.from([JSON.stringify(backupOf([{ _id: 'new' }]))])
  })
  await t.rejects(finished, { code: 'DB_BACKUPS_SAFETY_BACKUP_FAILED', message: /nothing was restored/ })
  t.strictSame(await host.on.fetchAll(names.components), before)
  t.match(await host.webhooks.get(tx_id), {
    status: 'error',
    athena_messages: [/./, /./, /nothing was restored/]
  })
  const types = host.events.map(({ type }) => type)
  t.ok(types.indexOf('backup_failed') < types.indexOf('restore_failed') && types.includes('backup_failed'))
  t.equal(await host.metric('db_backups_in_progress{operation="backup"}'), 0)
  const [id] = (await host.app.dbBackups.list()).ids
  t.match(await host.app.dbBackups.summary(id as string), { in_progress: false, error: /./ })
})

t.test(
  'when its failure cannot be recorded, the client still learns of the end of the restore',
  async (t) => {
    const host = await observe(t, { safety: undefined })
    host.proxy.add({ method: 'GET', path: /_changes/, fault: 'status_401', times: 100 })
    host.proxy.add({ method: 'PUT', path: /03_ibp_db_backup_/, nth: 2, fault: 'status_403', times: 100 })
    const { tx_id, finished } = await host.app.dbBackups.restore({
      body: Readable.from([JSON.stringify(backupOf([{ _id: 'new' }]))])
    })
    await t.rejects(finished, { code: 'DB_BACKUPS_SAFETY_BACKUP_FAILED' })
    t.match(await host.webhooks.get(tx_id), { status: 'error' })
    t.ok(host.events.some(({ type }) => type === 'failure_not_recorded'))
  }
)

t.test('one that a server which died has left is marked as failed', async (t) => {
  const on = await setupDatabases(t)
  const id = '03_ibp_db_backup_1700000000000'
  const db = on.couch.use(on.names.system)
  const storage = {
    layout: 3,
    instance: 'gone',
    system: on.names.system,
    before_restore: 'tx',
    databases: {}
  }
  await db.insert({
    _id: id,
    type: 'athena_backup',
    in_progress: true,
    start_timestamp: 1.7e12,
    dbs: {},
    doc_count: 0,
    storage
  } as never)
  const lease = {
    operation: 'restore',
    id: 'tx',
    instance: 'gone',
    claim: 'gone',
    beat: 7,
    ttl: 500,
    settled: true,
    newest: '1700000000000'
  }
  await db.insert({ _id: 'athena_backup_lease', type: 'athena_backup_lease', ...lease } as never)
  const events: BackupEvent[] = []
  const host = await buildHost(t, {
    on,
    timeouts: { lease: 2000 },
    onEvent: (event) => void events.push(event)
  })
  const summary = await host.waitForBackup(id, 20_000)
  t.match(summary.error, /interrupted: the server stopped while the restore was running/)
  t.match(await new StoredBackupsOf(on).header(id), { in_progress: false })
})

const states = fc.dictionary(
  fc.constantFrom('a', 'b', 'c', 'd', 'e'),
  fc.record({
    v: fc.nat(3),
    type: fc.constantFrom('peer', 'ca'),
    file: fc.option(fc.constantFrom('x', 'y'), { nil: undefined })
  }),
  { maxKeys: 5 }
)
const documentsOf = (state: Record<string, { v: number; type: string; file?: string }>) =>
  Object.entries(state).map(([_id, { file, ...members }]) => ({
    _id,
    ...members,
    ...(file && {
      _attachments: { f: { content_type: 'text/plain', data: Buffer.from(file).toString('base64') } }
    })
  }))

t.test('documents of types that the host has backups leave out come back as well', async (t) => {
  const on = await setupDatabases(t)
  const host = await buildHost(t, { on, safety: true, excludeTypes: ['log'] })
  const components = on.couch.use(on.names.components)
  await components.bulk({
    docs: [
      { _id: 'p', type: 'log', v: 'live' },
      { _id: 'q', type: 'log', v: 'live' },
      { _id: 'z', type: 'peer' }
    ]
  } as never)
  const before = await on.fetchAll(on.names.components)
  const uploaded = [
    { _id: 'p', type: 'peer' },
    { _id: 'q', type: 'log', v: 'of the upload' },
    { _id: 'new', type: 'log' }
  ]
  const { dbBackups } = host.app
  const body = Readable.from([JSON.stringify(backupOf(uploaded))])
  const { safety_backup: id } = await (await dbBackups.restore({ body })).finished
  await (await dbBackups.restore({ id: id! }, { exact: true, safety: false })).finished
  compareDatabases(t, before, await on.fetchAll(on.names.components))
})

t.test('a restore is taken back by the backup that it names, whatever there was', async (t) => {
  const { host, components } = await setup(t)
  const { dbBackups } = host.app
  await fc.assert(
    fc.asyncProperty(states, states, fc.boolean(), async (now, wanted, exact) => {
      const { rows } = await components.list()
      const revs = new Map(rows.map((row) => [row.id, row.value.rev]))
      const gone = rows
        .filter((row) => !(row.id in now))
        .map((row) => ({ _id: row.id, _rev: row.value.rev, _deleted: true }))
      const docs = documentsOf(now).map((doc) => ({
        ...doc,
        ...(revs.has(doc._id) && { _rev: revs.get(doc._id) })
      }))
      await components.bulk({ docs: [...docs, ...gone] })
      const before = await Promise.all(DATABASES.map((one) => host.on.fetchAll(host.on.names[one])))
      const body = Readable.from([JSON.stringify(backupOf(documentsOf(wanted)))])
      const { safety_backup: id } = await (await dbBackups.restore({ body }, { exact })).finished
      t.equal(id === undefined, Object.keys(now).length === 0)
      if (id === undefined) return
      await (await dbBackups.restore({ id }, { exact: true, safety: false })).finished
      for (const [i, one] of DATABASES.entries())
        compareDatabases(t, before[i]!, await host.on.fetchAll(host.on.names[one]))
      if (!t.passing()) throw new Error('not as before')
    }),
    { numRuns: cases(4) }
  )
})
