import { randomUUID } from 'node:crypto'
import { Readable } from 'node:stream'
import t, { type Test } from 'tap'
import type { LogicalDatabase } from '../types/index.js'
import { apiOf } from './helpers/api.js'
import { LEASE, setupDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { poll } from './helpers/poll.js'
import { load } from './helpers/seed.js'

const HEADER = '03_ibp_db_backup_1592924104038'
const CHUNK = 'backup_chunk_1592924104038_system_000000'
const MANIFEST = 'backup_manifest_1592924104038_system_000000'
const FORMS = [LEASE, HEADER, CHUNK, MANIFEST, 'backup_chunk_1_system_000000']

/** Builds a console with backups in its system database, and documents of its own with ids like those of backups. */
async function setup(t: Test, documents: Partial<Record<LogicalDatabase, object[]>> = {}) {
  const on = await setupDatabases(t)
  for (const [logical, docs] of Object.entries(documents)) {
    await load(on.couch.use(on.names[logical as LogicalDatabase]), docs as never)
  }
  const host = await buildHost(t, { on, timeouts: { lease: 2000 } })
  return { on, host, api: apiOf(host), system: on.couch.use(on.names.system) }
}

const named = (ids: readonly string[], members: object = {}) => ids.map((_id) => ({ _id, ...members }))

t.test(
  'documents of the console with such ids are backed up and restored, where backups are not kept',
  async (t) => {
    for (const members of [{ type: 'peer', v: 1 }, { v: 2 }]) {
      const docs = named(FORMS, members)
      const { on, api } = await setup(t, { components: docs, sessions: docs })
      const id = await api.backup()
      const backup = await api.get(id)
      t.equal(backup.doc_count, 2 * FORMS.length)
      for (const key of ['athena_components', 'athena_sessions']) {
        t.strictSame(backup.dbs[key]!.docs.map(({ _id }) => _id).sort(), [...FORMS].sort())
      }
      await on.couch.db.destroy(on.names.components)
      t.match(await api.restore(id), {
        status: 'success',
        databases: { components: { total: FORMS.length, created: FORMS.length, skipped: 0 } }
      })
      const restored = await on.fetchAll(on.names.components)
      t.strictSame([...restored.keys()].sort(), [...FORMS].sort())
      t.match(restored.get(LEASE), members)
    }
  }
)

t.test('where backups are kept, they are as well, but for what is of the types of backups', async (t) => {
  const ids = [HEADER, CHUNK, MANIFEST, `${CHUNK}_notes`]
  const { on, api, system } = await setup(t, { system: named(ids, { type: 'peer' }) })
  const id = await api.backup()
  const { docs } = (await api.get(id)).dbs.athena_system!
  t.strictSame(docs.map(({ _id }) => _id).sort(), [...ids].sort())
  for (const one of ids) await system.destroy(one, (await system.get(one))._rev)
  t.match(await api.restore(id), { status: 'success', databases: { system: { created: ids.length } } })
  t.match((await on.fetchAll(on.names.system)).get(HEADER), { type: 'peer' })
})

t.test('the types of backups are left out everywhere', async (t) => {
  const docs = ['', '_chunk', '_manifest', '_lease'].map((kind) => ({
    _id: `of_type${kind}`,
    type: `athena_backup${kind}`
  }))
  const { api } = await setup(t, { components: docs, system: docs })
  t.equal((await api.get(await api.backup())).doc_count, 0)
})

t.test('the list and what is read go by type', async (t) => {
  const { api, host } = await setup(t, { system: named([HEADER], { type: 'peer' }) })
  t.strictSame((await api.call('GET')).json(), { ids: [] })
  t.equal((await api.call('GET', `/${HEADER}`)).statusCode, 404)
  t.equal((await api.call('PUT', `/${HEADER}/attachments/a`, { attachment: 'x' })).statusCode, 404)
  const id = await api.backup()
  t.strictSame((await host.app.dbBackups.list()).ids, [id])
  t.strictSame((await host.app.dbBackups.list()).ids, [id], 'the second time as well')
})

t.test('a header that takes the place of another document, and the other way round, is told', async (t) => {
  const { api, system } = await setup(t)
  const put = async (doc: object) => {
    const { _rev } = await system.get(HEADER).catch(() => ({ _rev: undefined }))
    await system.insert({ _id: HEADER, ...(_rev && { _rev }), ...doc } as never)
  }
  const ids = async () => (await api.call('GET')).json().ids
  await put({ type: 'athena_backup', dbs: {} })
  t.strictSame(await ids(), [HEADER])
  await put({ type: 'peer' })
  t.strictSame(await ids(), [])
  await put({ type: 'athena_backup', dbs: {} })
  t.strictSame(await ids(), [HEADER])
})

t.test('operations are refused by name when a document of the console has the id of the lease', async (t) => {
  const document = { _id: LEASE, type: 'peer', operation: 'backup', beat: 7, notify: 'x', renewed: 0 }
  const { on, api, host, system } = await setup(t, { system: [document] })
  const before = await on.fetchAll(on.names.system)
  for (const reply of [
    await api.call('POST'),
    await api.call('PUT', '', { dbs: { athena_system: { docs: [] } } })
  ]) {
    t.equal(reply.statusCode, 409)
    t.match(reply.json(), {
      code: 'DB_BACKUPS_RESERVED_ID',
      message: /"athena_backup_lease" of database "t/
    })
  }
  t.strictSame((await api.call('GET')).json(), { ids: [] }, 'the list is none of them')
  t.strictSame(await on.fetchAll(on.names.system), before)
  await system.destroy(LEASE, before.get(LEASE)!._rev!)
  t.ok(await api.backup(), 'once it has another id, all goes on')
  t.strictSame((await host.app.dbBackups.list()).ids.length, 1)
})

t.test('a restore writes over no lease, header or chunk, and names what it cannot write', async (t) => {
  const { on, api, system } = await setup(t, { components: named(['a']) })
  const id = await api.backup()
  const chunk = [...(await on.fetchAll(on.names.system)).keys()].find((key) =>
    key.startsWith('backup_chunk_')
  )!
  const before = await on.fetchAll(on.names.system)
  const docs = named([LEASE, id, chunk, HEADER], { type: 'peer', v: 1 })
  const large = { content_type: 'image/png', data: Buffer.alloc(5 * 1024 * 1024).toString('base64') }
  docs.push({ _id: chunk, type: 'peer', v: 2, _attachments: { large } } as never)
  for (const query of ['?dry_run', '']) {
    const started = await (await hostOf(t, on)).app.dbBackups.restore(
      { body: bodyOf({ dbs: { athena_system: { docs } } }) },
      { dryRun: query !== '', exact: true }
    )
    const { outcome } = await started.finished.then(
      () => Promise.reject(new Error('it succeeded')),
      (error: { outcome: { failures: { id: string; error: string }[]; databases: object } }) => error
    )
    t.strictSame(
      outcome.failures.map(({ id, error }) => [id, error]).sort(),
      [
        [LEASE, 'reserved'],
        [id, 'reserved'],
        [chunk, 'reserved']
      ].sort()
    )
    t.match(outcome.databases, { system: { failed: 3, created: 1, deleted: 0 } })
  }
  const after = await on.fetchAll(on.names.system)
  t.match(after.get(HEADER), { type: 'peer', v: 1 }, 'an id that is free is written')
  for (const own of [id, chunk]) t.strictSame(after.get(own), before.get(own))
  t.match(after.get(LEASE), { type: 'athena_backup_lease' })
  t.equal((await api.get(id)).doc_count, 1)
  await system.destroy(HEADER, (await system.get(HEADER))._rev)
})

t.test('exact deletes documents of the console with such ids, and none of the plugin', async (t) => {
  const { on, host, api } = await setup(t, {
    components: named([LEASE, CHUNK, 'a']),
    system: named([HEADER, CHUNK, 'b'], { type: 'peer' })
  })
  const id = await api.backup()
  const own = () =>
    on
      .fetchAll(on.names.system)
      .then((all) =>
        [...all].flatMap(([key, { type }]) => (String(type).startsWith('athena_backup') ? [key] : [])).sort()
      )
  const before = await own()
  const empty = { dbs: { athena_components: { docs: [] }, athena_system: { docs: [] } } }
  const { finished } = await host.app.dbBackups.restore({ body: bodyOf(empty) }, { exact: true })
  t.match((await finished).databases, { components: { deleted: 3 }, system: { deleted: 3 } })
  t.strictSame(await own(), before)
  t.match(await api.restore(id), { status: 'success', databases: { system: { total: 3 } } })
})

t.test('a chunk whose id is taken gets another one, and what has the id stays', async (t) => {
  const on = await setupDatabases(t)
  const large = { content_type: 'image/png', data: Buffer.alloc(5 * 1024 * 1024, 7).toString('base64') }
  await load(on.couch.use(on.names.components), [
    { _id: 'a' },
    { _id: 'large', _attachments: { large } },
    { _id: 'z' }
  ] as never)
  const system = on.couch.use(on.names.system)
  const taken: string[] = []
  const host = await buildHost(t, {
    on,
    onEvent(event) {
      if (event.type === 'backup_started') taken.push(event.id)
    },
    // called before the backup chooses its id, until which the clock stands still
    async versions() {
      const stamps = Array.from({ length: 40 }, (_, i) => Date.now() + i)
      const docs = stamps.flatMap((stamp) =>
        named(
          [0, 1].map((i) => `backup_chunk_${stamp}_components_00000${i}`),
          { type: 'peer', stamp }
        )
      )
      await system.bulk({ docs: docs as never })
      return {}
    }
  })
  const api = apiOf(host)
  const now = Date.now
  t.teardown(() => {
    Date.now = now
  })
  const fixed = now()
  Date.now = () => fixed
  const reply = await api.call('POST')
  Date.now = now
  const { id } = reply.json()
  t.equal(id, `03_ibp_db_backup_${fixed}`)
  const { error } = await host.waitForBackup(id)
  t.equal(error, undefined)
  const { docs } = (await api.get(id)).dbs.athena_components!
  t.strictSame(docs.map(({ _id }) => _id).sort(), ['a', 'large', 'z'])
  t.match(await system.get(`backup_chunk_${fixed}_components_000000`), { type: 'peer', stamp: fixed })
  await on.couch.db.destroy(on.names.components)
  t.match((await api.restore(id)).databases, { components: { created: 3 } })
})

t.test(
  'the leftovers of a failed backup are deleted, and no document of the console beside them',
  async (t) => {
    const on = await setupDatabases(t)
    const stamp = Date.now() + 60_000
    const id = `03_ibp_db_backup_${stamp}`
    const foreign = [
      `backup_chunk_${stamp}_components_000001`,
      `backup_chunk_${stamp}_components_notes`,
      `backup_manifest_${stamp}_components_000000`
    ]
    const system = on.couch.use(on.names.system)
    await load(system, [
      ...named(foreign, { type: 'peer' }),
      { _id: `backup_chunk_${stamp}_components_000000`, type: 'athena_backup_chunk', backup_id: id },
      {
        _id: id,
        type: 'athena_backup',
        in_progress: true,
        dbs: {},
        start_timestamp: stamp,
        storage: { layout: 2, instance: randomUUID(), databases: {} }
      },
      { _id: LEASE, type: LEASE, operation: 'backup', id, instance: 'x', renewed: 1, beat: 'x' }
    ] as never)
    const host = await buildHost(t, { on, timeouts: { lease: 2000 } })
    t.match(await host.waitForBackup(id), { error: /^interrupted/ })
    const left = await poll('the chunk', async () => {
      const keys = [...(await on.fetchAll(on.names.system)).keys()]
      return keys.includes(`backup_chunk_${stamp}_components_000000`) ? undefined : keys
    })
    t.strictSame(left.filter((key) => foreign.includes(key)).sort(), [...foreign].sort())
  }
)

async function hostOf(t: Test, on: Awaited<ReturnType<typeof setupDatabases>>) {
  return buildHost(t, { on })
}

const bodyOf = (value: object) => Readable.from([Buffer.from(JSON.stringify(value))])
