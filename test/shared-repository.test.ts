import { setTimeout as delay } from 'node:timers/promises'
import nano from 'nano'
import t, { type Test } from 'tap'
import { deleteDatabase, LEASE, setupDatabases } from './helpers/database.js'
import { poll } from './helpers/poll.js'
import { load, seedDocuments } from './helpers/seed.js'
import { failing, type Keeper, SOON, startKeeper, startTwoServerConsole } from './helpers/two-servers.js'

let made = 0

/** Bounds for operations that go on for longer than a lease lasts: what is held is waited for. */
const PATIENT = { timeouts: { ...SOON.timeouts, lease: 6000, idle: 30_000 } }

/** Starts a console whose databases have the names of the other's, where each has a server of its own. */
async function consoleOn(t: Test, keeper: Keeper, options = {}) {
  const on = await setupDatabases(t, {
    names: process.env.COUCHDB_URL
      ? {}
      : { components: 'components', sessions: 'sessions_', system: 'athena' }
  })
  const console = await startTwoServerConsole(t, keeper, { on, ...options })
  await load(console.use(on.names.components) as never, seedDocuments({ count: 5, prefix: `c${++made}` }))
  return console
}

t.test('consoles of one repository run one at a time, and restore the backups of each other', async (t) => {
  const keeper = await startKeeper(t)
  const [first, second] = [await consoleOn(t, keeper, PATIENT), await consoleOn(t, keeper, PATIENT)]
  const release = first.databases.hold({ path: /_changes/ })
  const { id, finished } = await first.host.app.dbBackups.start()
  t.match((await second.api.call('POST')).json(), { message: 'already_in_progress', id })
  await t.rejects(second.host.app.dbBackups.prune({ keep: { last: 1 } }), { message: 'backup_in_progress' })
  // Longer than a lease that is not renewed lasts.
  await delay(PATIENT.timeouts.lease + 1500)
  t.match(await second.host.app.dbBackups.summary(id), { in_progress: true })
  release()
  t.match(await finished, { in_progress: false })
  const other = await second.api.backup()
  t.ok(BigInt(other.slice(17)) > BigInt(id.slice(17)))
  t.match((await second.api.call('GET')).json(), { ids: [id, other] })
  t.match((await second.host.app.dbBackups.summary(other)).dbs.athena_components, { full_reason: 'no_base' })
  t.match(await second.api.restore(id), { status: 'success', databases: { components: { created: 5 } } })
})

t.test(
  'a console ends no backup of another one whose renewals are slow, or lose their answers',
  async (t) => {
    const keeper = await startKeeper(t)
    const [first, second] = [await consoleOn(t, keeper, PATIENT), await consoleOn(t, keeper, PATIENT)]
    const renewal = { method: 'PUT', path: new RegExp(LEASE) }
    const release = first.databases.hold({ path: /_changes/ })
    const { id, finished } = await first.host.app.dbBackups.start()
    const lost = first.backups.add({ ...renewal, fault: 'reply_lost', nth: 2, times: 1 })
    const until = performance.now() + 2.5 * PATIENT.timeouts.lease
    while (performance.now() < until) {
      const answer = first.backups.hold(renewal)
      await delay(SOON.timeouts.control * 0.7)
      answer()
      t.match((await second.api.call('POST')).json(), { message: 'already_in_progress', id })
    }
    t.equal(lost.hits, 1)
    release()
    t.match(await finished, { in_progress: false })
    t.notMatch(second.events, [{ type: 'lease_taken_over' }])
    t.match(await second.api.backup(), /^03_ibp/)
  }
)

t.test('a console neither prunes nor counts the backups of another one of the same names', async (t) => {
  const keeper = await startKeeper(t)
  const [first, second] = [await consoleOn(t, keeper, PATIENT), await consoleOn(t, keeper, PATIENT)]
  const ids = [await first.api.backup(), await first.api.backup()]
  const own = await second.api.backup()
  const { dbBackups } = second.host.app
  t.strictSame((await dbBackups.prune({ keep: { last: 1 } })).removed, [])
  t.strictSame((await dbBackups.list()).ids, [...ids, own])
  const { storage } = (await keeper.documents.get(ids[0]!)) as unknown as { storage: { console: string } }
  t.match(storage.console, /^[0-9a-f]{16}$/)
  await t.rejects(dbBackups.remove(ids[0]!), { message: new RegExp(`the id "${storage.console}"`) })

  await t.test('but a console that was rebuilt with its id does', async (t) => {
    const { console } = storage
    const rebuilt = await consoleOn(t, keeper, { ...PATIENT, backups: { console } })
    t.match(await rebuilt.host.app.dbBackups.prune({ keep: { last: 1 } }), {
      kept: [{ id: ids[1] }],
      removed: [{ id: ids[0] }]
    })
    t.strictSame((await rebuilt.host.app.dbBackups.list()).ids, [ids[1], own])
  })
})

t.test('what a console that is gone for ever has left is ended by another one', async (t) => {
  const keeper = await startKeeper(t)
  const gone = await consoleOn(t, keeper)
  gone.databases.hold({ path: /_changes/ })
  const { id, finished } = await gone.host.app.dbBackups.start()
  finished.catch(() => undefined)
  const chunk = `backup_chunk_${id.slice('03_ibp_db_backup_'.length)}_components_000000`
  await keeper.documents.insert({ _id: chunk, type: 'athena_backup_chunk' })
  failing(gone.backups, 'refuse')
  failing(gone.databases, 'refuse')
  const { host, api, events } = await consoleOn(t, keeper)
  const error = await poll(
    'the mark',
    async () => {
      const { in_progress: running, error } = await host.app.dbBackups.summary(id)
      return running ? undefined : error
    },
    20_000
  )
  t.match(error, /^interrupted/)
  t.match(
    events.filter(({ type }) => type === 'lease_taken_over'),
    [{ operation: 'backup', id }]
  )
  await poll('the lease', async () => ('operation' in (await keeper.documents.get(LEASE)) ? undefined : true))
  const { rows } = await keeper.documents.list()
  t.notOk(
    rows.some((row) => row.id.startsWith('backup_')),
    'its parts are collected'
  )
  t.match(await api.backup(), /^03_ibp/)
})

t.test('a backups database that is the system database by another address is refused', async (t) => {
  const on = await setupDatabases(t)
  const keeper = { url: on.url, database: on.names.system, documents: nano(on.url).use(on.names.system) }
  const { api } = await startTwoServerConsole(t, keeper as never, { on })
  const reply = await api.call('POST')
  t.match(reply, { statusCode: 500 })
  t.match(reply.json().message, /option|backups/)
  t.teardown(() => deleteDatabase(on.couch, on.names.system))
})
