import t, { type Test } from 'tap'
import type { BackupEvent, DatabaseNames } from '../types/index.js'
import { apiOf } from './helpers/api.js'
import { setupDatabases, type TestDatabases } from './helpers/database.js'
import { startGate } from './helpers/gate.js'
import { buildHost, type HostOptions } from './helpers/host.js'
import { poll } from './helpers/poll.js'

const insert = ({ couch }: TestDatabases, name: string, ...ids: string[]) =>
  couch.use(name).bulk({ docs: ids.map((_id) => ({ _id })) })

/** Builds a host that reads its settings for every operation. */
async function startHost(t: Test, options: HostOptions = {}) {
  const on = options.on ?? (await setupDatabases(t))
  const other = await setupDatabases(t)
  const names: { now: DatabaseNames } = { now: on.names }
  const host = await buildHost(t, { ...options, on, databases: () => names.now })
  return { host, on, other, names, api: apiOf(host) }
}

t.test('each operation uses the names of databases of its begin', async (t) => {
  const on = await setupDatabases(t)
  const { host, names, api } = await startHost(t, { on })
  const moved = { ...on.names, components: `${on.names.components}_moved` }
  await on.couch.db.create(moved.components)
  t.teardown(() => (on.real ? on.couch.db.destroy(moved.components) : undefined))
  await insert(on, on.names.components, 'of the first')
  await insert(on, moved.components, 'of the second')
  const docs = async (id: string) => (await api.get(id)).dbs.athena_components!.docs.map(({ _id }) => _id)
  const first = await api.backup()
  names.now = moved
  const second = await api.backup()
  t.strictSame(await docs(first), ['of the first'])
  t.strictSame(await docs(second), ['of the second'])
  t.strictSame(await host.app.dbBackups.list(), { ids: [first, second] }, 'they lie in the system database')
  t.match(await api.restore(first), { status: 'success', databases: { components: { created: 1 } } })
  t.ok((await on.fetchAll(moved.components)).has('of the first'), 'restored where it is now')
  names.now = on.names
  t.match(await api.restore(first), { status: 'success', databases: { components: { unchanged: 1 } } })
})

t.test('databases on which nothing runs any more are not asked before the next operation', async (t) => {
  const on = await setupDatabases(t)
  const gate = await startGate(t, on)
  const { names, other, api } = await startHost(t, { on, couch: gate.couch })
  if (!on.real) for (const name of Object.values(other.names)) await on.couch.db.create(name)
  await api.backup()
  names.now = other.names
  await api.backup()
  gate.requests.length = 0
  await api.backup()
  const former = gate.requests.filter((line) => Object.values(on.names).some((name) => line.includes(name)))
  t.strictSame(former, [])
  t.ok(gate.requests.length > 0)
})

t.test('an operation ends on the databases on which it has begun; nothing begins beside it', async (t) => {
  const on = await setupDatabases(t)
  const gate = await startGate(t, on)
  const events: BackupEvent[] = []
  const { host, names, other, api } = await startHost(t, {
    on,
    couch: gate.couch,
    onEvent: (event) => void events.push(event)
  })
  if (!on.real) {
    // on another server, so that the names alone count
    for (const name of Object.values(other.names)) await on.couch.db.create(name)
  }
  await insert(on, on.names.sessions, 'a', 'b')
  const letGo = gate.hold(new RegExp(`${on.names.sessions}/_changes`))
  const { id, finished } = await host.app.dbBackups.start()
  await poll('the first database', () =>
    events.some(({ type }) => type === 'backup_database_finished') ? true : undefined
  )
  names.now = other.names
  t.match((await api.call('POST')).json(), { statusCode: 400, message: 'already_in_progress', id })
  t.match((await api.call('PUT', '', { dbs: {} })).json(), { message: 'backup_in_progress', id })
  t.strictSame((await api.call('GET')).json(), { ids: [] }, 'backups are read from there')
  letGo()
  const summary = await finished
  t.equal(summary.error, undefined)
  t.match(summary.dbs, { athena_sessions: { doc_count: 2 } })
  const there = await api.backup()
  t.strictSame((await host.app.dbBackups.list()).ids, [there])
  names.now = on.names
  t.strictSame((await host.app.dbBackups.list()).ids, [id])
  t.strictSame(await poll('an end', async () => (await api.call('POST')).statusCode), 202)
})

t.test('closing ends what runs on databases of before', async (t) => {
  const on = await setupDatabases(t)
  const gate = await startGate(t, on)
  const { host, names, other } = await startHost(t, { on, couch: gate.couch, timeouts: { close: 200 } })
  gate.hold(new RegExp(`${on.names.sessions}/_changes`))
  const { finished } = await host.app.dbBackups.start()
  names.now = other.names
  await host.app.dbBackups.list().catch(() => undefined)
  await host.app.close()
  await t.rejects(finished, { message: /closing/ })
})

t.test('an operation that another instance left is found on the present databases', async (t) => {
  const on = await setupDatabases(t)
  const { names, other, host } = await startHost(t, { on, timeouts: { lease: 2000 } })
  const left = '03_ibp_db_backup_1592922855871'
  // what the other instance left: a header in progress, and nobody who holds the lease
  const header = {
    type: 'athena_backup',
    backup_version: '1.0.0',
    ibp_versions: {},
    doc_count: 0,
    dbs: {},
    in_progress: true,
    start_timestamp: 1,
    storage: { layout: 2, instance: 'x', system: other.names.system, databases: {} }
  }
  if (!on.real) await on.couch.db.create(other.names.system)
  await on.couch.use(other.names.system).insert(header as object, left)
  names.now = other.names
  t.match(await host.waitForBackup(left, 60_000), { error: /^interrupted/ })
})

t.test('names that cannot be used are refused, with what is wrong, before anything begins', async (t) => {
  const { host, names, api, on } = await startHost(t)
  const wrong: [unknown, RegExp][] = [
    [{ ...on.names, components: 'No Name' }, /databases gave what cannot be used: .*"databases\.components"/],
    [{ ...on.names, sessions: on.names.system }, /"databases\.(sessions|system)"/],
    [{ components: 'a', sessions: 'b' }, /"databases\.system"/],
    [{ ...on.names, more: 'a' }, /"databases\.more"/],
    [undefined, /"databases"/],
    [Promise.resolve(on.names), /"databases\.components"/]
  ]
  for (const [value, message] of wrong) {
    names.now = value as DatabaseNames
    for (const [method, payload] of [
      ['POST', undefined],
      ['GET', undefined],
      ['PUT', { dbs: {} }]
    ] as const) {
      const reply = await api.call(method, '', payload)
      t.match(reply.json(), { statusCode: 500, code: 'DB_BACKUPS_HOST_VALUE', message })
    }
    await t.rejects(host.app.dbBackups.start(), { code: 'DB_BACKUPS_HOST_VALUE' })
  }
  names.now = on.names
  t.strictSame((await api.call('GET')).json(), { ids: [] })
})

t.test(
  'addresses are what the host says at the time; where it says none that can be used, nothing begins',
  async (t) => {
    let address: unknown = 'https://one.example.com'
    const host = await buildHost(t, { publicUrl: () => address as string })
    const api = apiOf(host)
    const started = async () => {
      const { id, url } = (await api.call('POST')).json()
      await host.waitForBackup(id)
      return url
    }
    t.match(await started(), /^https:\/\/one\.example\.com\/ak\/api\/v2\/backups\//)
    address = 'https://two.example.com/console/'
    t.match(await started(), /^https:\/\/two\.example\.com\/console\/ak\/api\//)
    address = undefined
    t.match(await started(), /^http:\/\/localhost/, "the request's own")
    for (const wrong of ['ftp://example.com', 'https://a@example.com', 'https://example.com/?a', 1, null]) {
      address = wrong
      for (const [method, payload] of [
        ['POST', undefined],
        ['PUT', { dbs: {} }]
      ] as const) {
        const reply = await api.call(method, '', payload)
        t.match(reply.json(), { statusCode: 500, code: 'DB_BACKUPS_HOST_VALUE', message: /^publicUrl gave / })
      }
      await t.rejects(host.app.dbBackups.restore({ id: 'x' }), { code: 'DB_BACKUPS_HOST_VALUE' })
    }
    t.equal((await host.app.dbBackups.list()).ids.length, 3, 'no backup was started')
    t.equal((await api.call('GET')).statusCode, 200, 'where no address is needed, it does not matter')
  }
)

t.test('values are still checked at registration', async (t) => {
  const on = await setupDatabases(t)
  for (const [options, message] of [
    [{ databases: { ...on.names, system: 'No' } }, /option "databases\.system"/],
    [{ publicUrl: 'ftp://x' }, /option "publicUrl"/],
    [{ publicUrl: 1 }, /option "publicUrl"/],
    [{ databases: 'a' }, /option "databases"/]
  ] as const) {
    await t.rejects(buildHost(t, { on, ...(options as object) }), { name: 'TypeError', message })
  }
})
