import nano from 'nano'
import t, { type Test } from 'tap'
import { startEmbeddedCouch } from '../examples/standalone/embedded-couch.js'
import { CouchDatabase } from '../lib/couch/database.js'
import { Repository } from '../lib/repository/repository.js'
import { clientOf } from './helpers/couch-client.js'
import { compareDatabases, recreate, setupDatabases } from './helpers/database.js'
import { backUp, begin, restore, sent, sourcesOn } from './helpers/repository-runs.js'
import { load, seedDocuments } from './helpers/seed.js'

/** Keeps backups on a server of their own, in a database that is named as one of the sources is. */
async function elsewhere(t: Test, settings = {}) {
  const on = await setupDatabases(t)
  const server = await startEmbeddedCouch({ memory: true })
  t.teardown(() => server.close())
  await nano(server.url).db.create(on.names.system)
  const sources = sourcesOn(clientOf(t, on.url), on.names)
  const client = clientOf(t, server.url)
  const repository = new Repository(new CouchDatabase(client, on.names.system), settings)
  return { on, sources, repository, backups: nano(server.url).use(on.names.system) }
}

const ids = async (database: nano.DocumentScope<unknown>) => (await database.list()).rows.map(({ id }) => id)

t.test('a backup lies on the server of its repository, and comes back from there', async (t) => {
  const { on, sources, repository, backups } = await elsewhere(t)
  await load(on.couch.use(on.names.components), seedDocuments({ count: 20, attachmentEvery: 5 }))
  await load(on.couch.use(on.names.system), seedDocuments({ count: 5 }))
  const before = await on.fetchAll(on.names.components)

  // By the client of the sources: only how it works is taken from it.
  const made = await backUp(repository.on(sources.system.client), sources)
  t.strictSame(
    (await ids(on.couch.use(on.names.system))).filter((id) => !id.startsWith('doc_')),
    []
  )
  t.ok((await ids(backups)).includes(made.id))

  const backup = (await repository.get(made.id)).on(sources.system.client)
  const { dbs } = JSON.parse(await sent(backup, on.names))
  t.equal(dbs.athena_components.docs.length, 20)
  t.equal(dbs.athena_system.docs.length, 5)

  await recreate(on.couch, on.names.components)
  t.match((await restore(backup, repository, sources)).databases.components, { created: 20 })
  compareDatabases(t, before, await on.fetchAll(on.names.components))
})

t.test('databases of one name on two servers are two', async (t) => {
  const { sources, repository } = await elsewhere(t)
  t.notOk(repository.isIn(sources.system))
  t.ok(new Repository(sources.system).isIn(sources.system))
  t.notOk(new Repository(sources.system).isIn(sources.components))
  const { settings } = sources.system.client
  const { origin } = settings.connect()
  const other = new CouchDatabase(clientOf(t, `${origin}/`, settings), sources.system.name)
  t.ok(new Repository(other).isIn(sources.system), 'the same server by other connections')
})

t.test('a repository on its own server writes by the fence of whom it works for', async (t) => {
  const { sources, repository, backups } = await elsewhere(t)
  const lost = new Error('the lease is lost')
  const fenced = sources.system.client.with({
    beforeWrite() {
      throw lost
    }
  })
  await t.rejects(begin(repository.on(fenced), sources), lost)
  t.strictSame(await ids(backups), [])
})

t.test('a repository goes by its own clock', async (t) => {
  const { sources, repository, backups } = await elsewhere(t, { now: () => 1_000_000 })
  const id = await begin(repository, sources)
  t.equal(id, '03_ibp_db_backup_1000000')
  t.match(await backups.get(id), { start_timestamp: 1_000_000 })
  await repository.runningBackup(id).fail('it was stopped')
  t.match(await backups.get(id), { end_timestamp: 1_000_000, error: 'it was stopped' })
})
