import { EventEmitter, once } from 'node:events'
import t, { type Test } from 'tap'
import type { BackupEvent } from '../types/index.js'
import { apiOf, snapshotOf } from './helpers/api.js'
import { compareDatabases, type Snapshot, setupDatabases, type TestDatabases } from './helpers/database.js'
import { startGate } from './helpers/gate.js'
import { buildHost } from './helpers/host.js'
import { setupRawDatabases } from './helpers/raw-databases.js'
import { hostileDocuments, load, seedDocuments } from './helpers/seed.js'

const DESIGN = {
  _id: '_design/athena',
  language: 'javascript',
  views: { by_type: { map: 'function (doc) { emit(doc.type, 1) }' } }
}

async function seeded(t: Test): Promise<TestDatabases> {
  const on = await setupDatabases(t)
  const { couch, names } = on
  await load(couch.use(names.components), seedDocuments({ count: 120, attachmentEvery: 10 }))
  await load(couch.use(names.components), [DESIGN, ...hostileDocuments()])
  await load(couch.use(names.sessions), seedDocuments({ count: 3, prefix: 'user' }))
  await load(couch.use(names.system), [DESIGN, { _id: '00_settings_athena', type: 'settings', port: 3000 }])
  return on
}

const without = (snapshot: Snapshot, ...ids: string[]): Snapshot =>
  new Map([...snapshot].filter(([id]) => !ids.includes(id)))

t.test('is answered before it is done, and tells when it is', async (t) => {
  const on = await seeded(t)
  const gate = await startGate(t, on)
  const host = await buildHost(t, { on, couch: gate.couch })
  const api = apiOf(host)
  const release = gate.hold(/_changes/)

  const before = Date.now()
  const reply = await host.app.inject({
    method: 'POST',
    url: '/api/v3/backups',
    headers: { ...host.as('manager'), host: 'console.example.com:3000' }
  })
  t.equal(reply.statusCode, 202)
  const { id } = reply.json()
  t.match(id, /^03_ibp_db_backup_[0-9]{13}$/)
  const url = `http://console.example.com:3000/ak/api/v2/backups/${id}`
  t.strictSame(reply.json(), { message: 'in-progress', id, url })

  await gate.held(/_changes/)
  const running = await api.get(id)
  t.match(running, { id, in_progress: true, type: 'athena_backup', doc_count: 0 })
  t.strictSame(running.dbs, {})
  t.notOk('end_timestamp' in running)
  t.strictSame((await api.call('GET')).json(), { ids: [id] })

  release()
  await host.waitForBackup(id)
  const done = await api.get(id)
  t.match(done, { id, in_progress: false, type: 'athena_backup', backup_version: '1.0.0' })
  t.notOk('error' in done)
  t.strictSame(Object.keys(done.dbs), ['athena_components', 'athena_sessions', 'athena_system'])
  t.ok(before <= done.start_timestamp && done.start_timestamp <= done.end_timestamp!)
  t.match(done.elapsed, /^[0-9.]+ (ms|secs|mins)$/)
  let total = 0
  for (const [key, logical] of [
    ['athena_components', 'components'],
    ['athena_sessions', 'sessions']
  ] as const) {
    const database = done.dbs[key]!
    const { doc_count } = await on.couch.db.get(on.names[logical])
    t.equal(database.doc_count, doc_count, `${key} has all documents`)
    t.equal(database.docs.length, doc_count)
    t.ok(done.start_timestamp <= database.start_timestamp)
    t.ok(database.start_timestamp <= database.finish_timestamp)
    t.ok(database.finish_timestamp <= done.end_timestamp!)
    t.type(database.last_sequence, 'string')
    const since = await on.couch.use(on.names[logical]).changes({ since: database.last_sequence })
    t.strictSame(since.results, [], `nothing has changed in ${key} since its last_sequence`)
    total += database.docs.length
  }
  t.equal(done.doc_count, total + done.dbs.athena_system!.docs.length)
})

t.test('holds every document with its revision and attachments', async (t) => {
  const on = await seeded(t)
  const api = apiOf(await buildHost(t, { on }))
  const backup = await api.get(await api.backup())
  for (const logical of ['components', 'sessions', 'system'] as const) {
    const live = without(await on.fetchAll(on.names[logical]), 'athena_backup_lease')
    t.ok(live.size > 1)
    compareDatabases(t, live, snapshotOf(backup, `athena_${logical}`), { rev: true })
  }
  const files = snapshotOf(backup, 'athena_components').get('doc_00000010')!._attachments
  t.equal(Buffer.from(files!['file.bin']!.data, 'base64').length, 1000)
})

t.test('leaves out the types that are no data, and the ones the host names', async (t) => {
  const on = await setupDatabases(t)
  const types = ['session_athena', 'pillow_talk_doc', 'json_validation', 'athena_backup_chunk', 'cache']
  const documents = [...types, 'fabric-peer', 'session', 'athena'].map((type) => ({ _id: `a_${type}`, type }))
  const nested = { _id: 'nested', type: 'fabric-peer', inner: { type: 'session_athena' } }
  await load(on.couch.use(on.names.components), [...documents, nested, { _id: 'untyped' }])
  await load(on.couch.use(on.names.sessions), documents)

  const api = apiOf(await buildHost(t, { on }))
  const backup = await api.get(await api.backup())
  t.strictSame([...snapshotOf(backup, 'athena_components').keys()].sort(), [
    'a_athena',
    'a_cache',
    'a_fabric-peer',
    'a_session',
    'nested',
    'untyped'
  ])
  t.equal(backup.dbs.athena_components!.doc_count, 6)

  const other = apiOf(await buildHost(t, { on, excludeTypes: ['cache', 'session'] }))
  const smaller = await other.get(await other.backup())
  t.strictSame([...snapshotOf(smaller, 'athena_sessions').keys()].sort(), ['a_athena', 'a_fabric-peer'])
})

t.test('does not hold what earlier backups hold', async (t) => {
  const on = await seeded(t)
  const api = apiOf(await buildHost(t, { on }))
  const first = await api.get(await api.backup())
  const second = await api.get(await api.backup())
  const ids = (backup: typeof first) => [...snapshotOf(backup, 'athena_system').keys()].sort()
  t.strictSame(ids(first), ['00_settings_athena', '_design/athena'])
  t.strictSame(ids(second), ids(first))
  t.equal(second.dbs.athena_system!.raw_bytes, first.dbs.athena_system!.raw_bytes)
})

t.test('only one runs at a time', async (t) => {
  const on = await seeded(t)
  const gate = await startGate(t, on)
  const host = await buildHost(t, { on, couch: gate.couch })
  const other = await buildHost(t, { on })
  const release = gate.hold(/_changes/)
  const { id } = (await apiOf(host).call('POST')).json()
  for (const server of [host, other]) {
    const reply = await apiOf(server).call('POST')
    t.equal(reply.statusCode, 400)
    t.strictSame(reply.json(), { statusCode: 400, message: 'already_in_progress', id })
  }
  const restore = await apiOf(other).call('PUT', '', { dbs: {} })
  t.equal(restore.statusCode, 400)
  t.strictSame(restore.json(), { statusCode: 400, message: 'backup_in_progress', id })

  release()
  await host.waitForBackup(id)
  t.not(await apiOf(other).backup(), id, 'the next one may start')
})

t.test('tells the host what happens', async (t) => {
  const on = await seeded(t)
  const events: BackupEvent[] = []
  const host = await buildHost(t, {
    on,
    onEvent(event) {
      events.push(event)
      throw new Error('what the host does with events is its own affair')
    }
  })
  const { id, finished } = await host.app.dbBackups.start()
  const outcome = await finished
  t.match(outcome, { id, in_progress: false, doc_count: Number })
  t.match(events[0], { type: 'backup_started', id })
  t.match(events.at(-1), { type: 'backup_finished', id, durationMs: Number, backup: outcome })
})

t.test('that fails says why, holds nothing and cannot be restored', async (t) => {
  const on = await seeded(t)
  const events: BackupEvent[] = []
  const ended = new EventEmitter()
  const failure = once(ended, 'backup_failed')
  const host = await buildHost(t, {
    on,
    onEvent(event) {
      events.push(event)
      ended.emit(event.type)
    }
  })
  await apiOf(host).backup()
  await on.couch.db.destroy(on.names.sessions)
  const { id } = (await apiOf(host).call('POST')).json()
  const { error } = await host.waitForBackup(id)
  t.match(error, /does not exist/)
  t.match(await apiOf(host).get(id), {
    id,
    in_progress: false,
    error,
    doc_count: 0,
    dbs: {},
    elapsed: / (ms|secs)$/
  })
  await failure
  const ofIt = events.filter((event) => 'id' in event && event.id === id)
  t.match(ofIt[0], { type: 'backup_started', id })
  t.match(ofIt.at(-1), { type: 'backup_failed', id, error: Error })
  const { rows } = await on.couch.use(on.names.system).list({ startkey: 'backup_', endkey: 'backup_z' })
  const stamp = id.slice('03_ibp_db_backup_'.length)
  t.strictSame(
    rows.filter((row: { id: string }) => row.id.includes(stamp)),
    [],
    'nothing of it is left'
  )
  const reply = await apiOf(host).call('PUT', `/${id}`)
  t.equal(reply.statusCode, 400)
  t.match(reply.json().message, /cannot restore, the backup has failed/)
})

t.test('records the versions that the host tells', async (t) => {
  const on = await setupDatabases(t)
  const plain = apiOf(await buildHost(t, { on, versions: { tag: '2.5.0-26' } }))
  t.strictSame((await plain.get(await plain.backup())).ibp_versions, { tag: '2.5.0-26' })
  const asked = apiOf(await buildHost(t, { on, versions: async () => ({ tag: '2.5.0-27', node: 20 }) }))
  t.strictSame((await asked.get(await asked.backup())).ibp_versions, { tag: '2.5.0-27', node: 20 })
  const none = apiOf(await buildHost(t, { on }))
  t.strictSame((await none.get(await none.backup())).ibp_versions, {})
})

t.test('are listed oldest first, without any view', async (t) => {
  const on = await setupDatabases(t)
  const api = apiOf(await buildHost(t, { on }))
  t.strictSame((await api.call('GET')).json(), { ids: [] })
  const stored = ['03_ibp_db_backup_10000', '03_ibp_db_backup_999', '03_ibp_db_backup_1592922855871']
  await load(
    on.couch.use(on.names.system),
    [...stored, '03_ibp_db_backup_', '03_ibp_db_backup_x', '04_other'].map((_id) => ({
      _id,
      type: 'athena_backup',
      in_progress: false,
      dbs: {}
    }))
  )
  const made = await api.backup()
  const reply = await api.call('GET')
  t.equal(reply.statusCode, 200)
  t.strictSame(reply.json(), { ids: [stored[1], stored[0], stored[2], made] })
})

t.test('documents with attachments are read in batches bounded by their bodies too', async (t) => {
  const on = await setupRawDatabases(t)
  const _attachments = { a: { content_type: 'image/png', data: 'AAAA' } }
  const docs = Array.from({ length: 12 }, (_, i) =>
    JSON.stringify({ _id: `d${i}`, text: 'x'.repeat(500_000), _attachments })
  )
  await on.write(on.names.components, docs)
  const gate = await startGate(t, on)
  const api = apiOf(await buildHost(t, { on, databases: on.names, couch: gate.couch }))
  const backup = await api.get(await api.backup())
  t.equal(backup.dbs.athena_components?.docs.length, 12)
  const reads = gate.requests.filter((line) => line.includes('_bulk_get?attachments=true'))
  t.ok(reads.length >= 3 && reads.length <= 4, `${reads.length} requests for 6 MB of bodies`)
})
