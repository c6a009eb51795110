import { createServer, type IncomingMessage, type ServerResponse, request as send } from 'node:http'
import { Readable } from 'node:stream'
import nano from 'nano'
import t, { type Test } from 'tap'
import { backupOutcome } from '../lib/cli/backup-text.js'
import { CouchError, MissingDatabaseError } from '../lib/index.js'
import type { LogicalDatabase } from '../types/index.js'
import { apiOf, backupOf } from './helpers/api.js'
import { startAnsweringCouch } from './helpers/couch-client.js'
import { DATABASES, setupDatabases, type TestDatabases } from './helpers/database.js'
import { startGate } from './helpers/gate.js'
import { buildHost, type HostOptions } from './helpers/host.js'
import { listenInFrontOf } from './helpers/listen.js'
import { observe } from './helpers/observed-host.js'
import { load } from './helpers/seed.js'

/** Creates databases with a document each, except the missing ones. */
async function consoleWithout(t: Test, ...missing: LogicalDatabase[]): Promise<TestDatabases> {
  const on = await setupDatabases(t)
  for (const database of DATABASES) {
    if (missing.includes(database)) await on.couch.db.destroy(on.names[database])
    else await load(on.couch.use(on.names[database]), [{ _id: `of_${database}` }])
  }
  return on
}

const isThere = async ({ couch }: TestDatabases, name: string) => (await couch.db.list()).includes(name)
const idsIn = async (on: TestDatabases, database: LogicalDatabase) => [
  ...(await on.fetchAll(on.names[database])).keys()
]

async function setup(t: Test, on: TestDatabases, options: HostOptions = {}) {
  const host = await buildHost(t, { on, ...options })
  return { ...host, api: apiOf(host) }
}

t.test(
  'a database that does not exist yet is backed up as missing, and told wherever backups are',
  async (t) => {
    const on = await consoleWithout(t, 'sessions')
    const host = await observe(t, { on })
    const { id, finished } = await host.app.dbBackups.start()
    const backup = await finished
    t.match(backup, { doc_count: 2, missing_databases: ['athena_sessions'] })
    const sent = await apiOf(host).get(id)
    t.match(sent, { in_progress: false, missing_databases: ['athena_sessions'] })
    t.match(sent.dbs.athena_sessions, { missing: true, doc_count: 0, docs: [] })
    t.notHas(sent.dbs.athena_components, 'missing')
    t.notOk(await isThere(on, on.names.sessions), 'it was not created')
    t.match(
      host.lines.filter(({ level }) => level === 40),
      [
        { msg: 'backup: database sessions does not exist', missing: true },
        { msg: 'backup finished without databases that do not exist', missing: ['athena_sessions'] }
      ]
    )
    t.match(host.events.filter(({ type }) => type === 'backup_database_finished')[1], {
      summary: { missing: true }
    })
    t.equal(await host.metric('db_backups_missing_databases_total{database="sessions"}'), 1)
    t.equal(await host.metric('db_backups_missing_databases_total{database="components"}'), 0)
  }
)

t.test('a complete backup of databases that exist names none as missing', async (t) => {
  const { api } = await setup(t, await consoleWithout(t))
  const sent = await api.get(await api.backup())
  t.notHas(sent, 'missing_databases')
  for (const database of Object.values(sent.dbs)) t.notHas(database, 'missing')
})

t.test(
  'a database of which the last complete backup holds documents fails the next when it is gone',
  async (t) => {
    const on = await consoleWithout(t, 'sessions')
    const { api, app } = await setup(t, on)
    const good = await api.backup()
    await on.couch.db.destroy(on.names.components)
    const lost = new RegExp(
      `"${on.names.components}" does not exist, but backup "${good}" holds documents of it: .*"databases.components"`
    )
    for (const attempt of ['after a good backup', 'after a failed one']) {
      const { id, finished } = await app.dbBackups.start()
      await t.rejects(finished, { code: 'DB_BACKUPS_MISSING_DATABASE', message: lost }, attempt)
      t.match(await app.dbBackups.summary(id), { error: lost, doc_count: 0 })
    }
    await on.couch.db.create(on.names.components)
    t.notHas(await api.get(await api.backup()), 'error', 'it is to be empty: so be it')
    await on.couch.db.destroy(on.names.components)
    t.match(await api.get(await api.backup()), {
      missing_databases: ['athena_components', 'athena_sessions']
    })
  }
)

t.test("athena's backup counts as the last one, a backup of other databases does not", async (t) => {
  const on = await consoleWithout(t, 'components')
  const { api, app } = await setup(t, on)
  const system = on.couch.use<object>(on.names.system)
  const backup = { type: 'athena_backup', in_progress: false, start_timestamp: 1 }
  const dbs = { athena_components: { doc_count: 7 } }
  const storage = { layout: 2, instance: 'x', system: 'of_another_console', databases: {} }
  await system.insert({ ...backup, _id: '03_ibp_db_backup_2', dbs, storage } as object)
  t.match(await api.get(await api.backup()), { missing_databases: ['athena_components'] })
  for (const id of (await app.dbBackups.list()).ids.slice(1)) {
    const { _rev } = await system.get(id)
    await system.destroy(id, _rev)
  }
  await system.insert({ ...backup, _id: '03_ibp_db_backup_3', dbs: { DB_COMPONENTS: {} } } as object)
  await t.rejects((await app.dbBackups.start()).finished, /"03_ibp_db_backup_3" holds documents of it/)
})

t.test('no operation begins without the system database, and nothing is created', async (t) => {
  const on = await consoleWithout(t, 'system')
  const { api, app } = await setup(t, on)
  const before = await on.couch.db.list()
  const named = { statusCode: 409, code: 'DB_BACKUPS_MISSING_DATABASE', message: /"databases.system"/ }
  const started = await api.call('POST')
  t.equal(started.statusCode, 409)
  t.match(started.json(), named)
  t.match((await api.call('PUT', '', backupOf([{ _id: 'a' }]))).json(), named, 'the upload does not hold it')
  const whole = { dbs: { athena_system: { docs: [{ _id: 'a' }] } } }
  const preview = app.dbBackups.restore({ body: Readable.from([JSON.stringify(whole)]) }, { dryRun: true })
  await t.rejects(preview, MissingDatabaseError, 'a dry run writes nothing but the lease')
  t.strictSame((await api.call('GET')).json(), { ids: [] })
  t.strictSame(await on.couch.db.list(), before)
})

t.test('a restore of the system database creates it', async (t) => {
  const on = await consoleWithout(t, 'system', 'components', 'sessions')
  const { api } = await setup(t, on)
  const transaction = await api.restore({ dbs: { athena_system: { docs: [{ _id: 'a' }] } } })
  t.match(transaction, { status: 'success', databases: { system: { created: 1 } } })
  t.ok((await idsIn(on, 'system')).includes('a'))
  t.notOk(await isThere(on, on.names.components), 'the backup does not hold it')
})

for (const exact of [false, true]) {
  t.test(
    `a restore leaves alone what was missing in the backup${exact ? ', exact ones too' : ''}`,
    async (t) => {
      const on = await consoleWithout(t, 'sessions')
      const { api, app, webhooks } = await setup(t, on)
      const id = await api.backup()
      const file = JSON.stringify(await api.get(id))
      const told = 'sessions did not exist when the backup was made: it is left as it is now'
      const restore = async (from: { id: string } | { body: Readable }, dryRun: boolean) => {
        const { tx_id, finished } = await app.dbBackups.restore(from, { exact, dryRun })
        const { databases } = await finished
        t.strictSame(Object.keys(databases), ['components', 'system'])
        t.ok((await webhooks.get(tx_id))?.athena_messages.includes(told))
      }
      for (const dryRun of [true, false]) {
        await restore({ id }, dryRun)
        await restore({ body: Readable.from([file]) }, dryRun)
      }
      t.notOk(await isThere(on, on.names.sessions), 'it is not created')
      await on.couch.db.create(on.names.sessions)
      await load(on.couch.use(on.names.sessions), [{ _id: 'later' }])
      for (const dryRun of [true, false]) {
        await restore({ id }, dryRun)
        await restore({ body: Readable.from([file]) }, dryRun)
      }
      t.strictSame(await idsIn(on, 'sessions'), ['later'])
    }
  )
}

t.test('an upload that says more of a missing database is refused by the name of the field', async (t) => {
  const { api } = await setup(t, await consoleWithout(t))
  const docs = [{ _id: 'a' }]
  for (const [database, message] of [
    [{ docs, missing: true }, /"dbs.athena_sessions.missing".* there are documents/],
    [{ missing: true, docs }, /"dbs.athena_sessions.missing".* there are documents/],
    [{ docs, missing: 'yes' }, /"dbs.athena_sessions.missing" must be true or false/]
  ] as const) {
    const reply = await api.call('PUT', '', { dbs: { athena_sessions: database } })
    t.match(reply.json(), { statusCode: 400, code: 'DB_BACKUPS_INVALID', message })
  }
  t.match(await api.restore({ dbs: { athena_sessions: { docs, missing: false } } }), { status: 'success' })
})

t.test('the database of backups is created by a backup, and by nothing else', async (t) => {
  const on = await consoleWithout(t)
  const backups = `${on.names.system}_backups`
  t.teardown(() => (on.real ? on.couch.db.destroy(backups).catch(() => undefined) : undefined))
  const { api, app } = await setup(t, on, { databases: { ...on.names, backups } })
  t.strictSame((await api.call('GET')).json(), { ids: [] })
  const file = JSON.stringify(backupOf([{ _id: 'a' }]))
  await (await app.dbBackups.restore({ body: Readable.from([file]) }, { dryRun: true })).finished
  t.match(await api.restore(JSON.parse(file)), { status: 'success' })
  t.notOk(await isThere(on, backups))
  await api.backup()
  t.ok(await isThere(on, backups))
})

t.test(
  'a database that is created while the backup runs is backed up when its turn has not come',
  async (t) => {
    const on = await consoleWithout(t, 'sessions')
    const gate = await startGate(t, on)
    const { api, app } = await setup(t, on, { couch: gate.couch })
    const feed = new RegExp(`${on.names.components}/_changes`)
    const release = gate.hold(feed)
    const { finished } = await app.dbBackups.start()
    await gate.held(feed)
    await on.couch.db.create(on.names.sessions)
    await load(on.couch.use(on.names.sessions), [{ _id: 'new' }])
    release()
    const { id } = await finished
    const { missing_databases: missing, dbs } = await api.get(id)
    t.equal(missing, undefined)
    t.match(dbs.athena_sessions!.docs, [{ _id: 'new' }])
  }
)

t.test(
  'a system database that is deleted while the backup runs fails it, wherever backups are kept',
  async (t) => {
    const on = await consoleWithout(t)
    const backups = `${on.names.system}_backups`
    t.teardown(() => (on.real ? on.couch.db.destroy(backups).catch(() => undefined) : undefined))
    const gate = await startGate(t, on)
    const { app } = await setup(t, on, { couch: gate.couch, databases: { ...on.names, backups } })
    const feed = new RegExp(`${on.names.sessions}/_changes`)
    const release = gate.hold(feed)
    const { finished } = await app.dbBackups.start()
    const failed = t.rejects(finished, /was deleted|has not been renewed|CouchError|does not exist/i)
    await gate.held(feed)
    await on.couch.db.destroy(on.names.system)
    release()
    await failed
  }
)

t.test("a gateway's 404 is not taken for a missing database", async (t) => {
  const on = await consoleWithout(t)
  const { hostname, port } = new URL(on.url)
  let requests: string[] = []
  const gateway = createServer((request, response) => {
    requests.push(`${request.method} ${request.url}`)
    if (request.url?.startsWith(`/${on.names.sessions}`)) {
      response.writeHead(404, { 'content-type': 'text/html' }).end('<h1>Not Found</h1>')
      return
    }
    const { method, url: path, headers } = request
    const onward = send({ hostname, port, method, path, headers }, (answer) => {
      response.writeHead(answer.statusCode!, answer.headers)
      answer.pipe(response)
    })
    request.pipe(onward)
  })
  const couch = nano(await listenInFrontOf(t, gateway, on.url))
  const { app, api } = await setup(t, on, { couch })
  await t.rejects((await app.dbBackups.start()).finished, CouchError)
  requests = []
  const upload = { dbs: { athena_sessions: { docs: [{ _id: 'a' }] } } }
  t.match(await api.restore(upload), { status: 'error' })
  t.notOk(requests.includes(`PUT /${on.names.sessions}`), 'it is not created')
})

/** Answers as a node of a cluster that does not know a database that other nodes may know. */
function lateNode(status: (node: string) => number) {
  const requests: string[] = []
  const answer = (request: IncomingMessage, response: ServerResponse) => {
    requests.push(`${request.method} ${request.url}`)
    request.resume()
    const node = /^\/_node\/(.*)\/_dbs\/backups$/.exec(decodeURIComponent(request.url!))?.[1]
    const code = node ? status(node) : request.url === '/_membership' ? 200 : 404
    response.writeHead(code, { 'content-type': 'application/json' })
    const ok = node ? { _id: 'backups' } : { all_nodes: ['a@x', 'b@x'] }
    response.end(JSON.stringify(code === 200 ? ok : { error: 'not_found', reason: 'no such database' }))
  }
  return { requests, answer }
}

t.test('a database that another node knows is not missing, and not created again', async (t) => {
  const { requests, answer } = lateNode((node) => (node === 'b@x' ? 200 : 404))
  const { db } = await startAnsweringCouch(t, answer)
  await t.rejects(db.find(), { error: 'not_known_yet', retryable: true } as never)
  await t.rejects(db.ensure(), { error: 'not_known_yet', retryable: true } as never)
  t.strictSame(
    requests.filter((line) => line.startsWith('PUT')),
    []
  )
})

t.test('a database that no node knows, or of which none tells, is missing', async (t) => {
  for (const status of [404, 401, 500]) {
    const { db } = await startAnsweringCouch(t, lateNode(() => status).answer)
    t.equal(await db.find(), null, `nodes answer ${status}`)
  }
})

t.test('a database that is deleted before its turn fails the first backup as well', async (t) => {
  const on = await consoleWithout(t)
  const gate = await startGate(t, on)
  const { app } = await setup(t, on, { couch: gate.couch })
  const feed = new RegExp(`${on.names.components}/_changes`)
  const release = gate.hold(feed)
  const { finished } = await app.dbBackups.start()
  const failed = t.rejects(finished, { message: /"\w+_sessions" was deleted while the backup ran/ })
  await gate.held(feed)
  await on.couch.db.destroy(on.names.sessions)
  release()
  await failed
})

t.test('the command line names missing databases beside what it says of a backup', async (t) => {
  const head = { id: '03_ibp_db_backup_1', in_progress: false, doc_count: 2 }
  const warning = (more: object) => backupOutcome({ ...head, ...more }).warning
  t.equal(warning({}), null)
  t.match(
    warning({ missing_databases: ['athena_sessions'] }),
    /^warning: .* athena_sessions: no such database/
  )
  const both = warning({ missing_databases: ['athena_sessions'], unreadable_count: 1 })
  t.equal(both?.split('\n').length, 2)
  t.equal(warning({ missing_databases: ['athena_sessions'], in_progress: true }), null)
})
