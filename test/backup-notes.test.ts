import t from 'tap'
import type { BackupSummary, StartOptions } from '../types/index.js'
import { apiOf } from './helpers/api.js'
import { buildHost, type TestHost } from './helpers/host.js'
import { poll } from './helpers/poll.js'

const GIVEN = { note: 'before the upgrade to 2.6 – größer 🗄', protect: true } as const
const TOLD = { note: GIVEN.note, protected: true } as const

/** Returns note and protection of a backup, where it tells them. */
const toldBy = ({ note, protected: kept }: Pick<BackupSummary, 'note' | 'protected'>) => ({
  ...(note === undefined ? undefined : { note }),
  ...(kept === undefined ? undefined : { protected: kept })
})

async function backUp(host: TestHost, options: StartOptions): Promise<string> {
  const { id, finished } = await host.app.dbBackups.start(options)
  await finished
  return id
}

t.test('a backup tells its note and that it is protected, and can be restored from its file', async (t) => {
  const host = await buildHost(t)
  const api = apiOf(host)
  await host.on.couch.use(host.on.names.components).insert({ _id: 'first' } as object)
  const { id, finished } = await host.app.dbBackups.start(GIVEN)
  t.strictSame(toldBy(await finished), TOLD)
  t.strictSame(toldBy(await host.app.dbBackups.summary(id)), TOLD)
  const reply = await api.call('GET', `/${id}`)
  t.strictSame(toldBy(reply.json()), TOLD)
  t.equal(Number(reply.headers['content-length']), reply.rawPayload.length)
  t.strictSame(toldBy((await host.app.dbBackups.get(id)).summary), TOLD)
  t.match(await api.restore(reply.json()), { status: 'success' }, 'an upload may hold both')
})

t.test('a backup without note and protection has neither member', async (t) => {
  const host = await buildHost(t)
  const api = apiOf(host)
  for (const options of [{}, { note: undefined, protect: undefined }, { protect: false }]) {
    const id = await backUp(host, options)
    t.strictSame(toldBy(await host.app.dbBackups.summary(id)), {})
    for (const member of ['note', 'protected', 'protect']) t.notOk(member in (await api.get(id)), member)
  }
  t.strictSame(toldBy(await api.get(await backUp(host, { protect: true }))), { protected: true })
  t.strictSame(toldBy(await api.get(await backUp(host, { note: 'a' }))), { note: 'a' })
})

t.test('a backup tells both while it runs, as it goes on, and after it has failed', async (t) => {
  const told: Record<string, BackupSummary> = {}
  const host = await buildHost(t, {
    async onEvent(event) {
      if (event.type === 'backup_started') told.start = await host.app.dbBackups.summary(event.id)
      if (event.type === 'backup_database_finished' && event.database === 'components')
        told.progress = await host.app.dbBackups.summary(event.id)
    }
  })
  await host.on.couch.use(host.on.names.sessions).insert({ _id: 'kept' } as object)
  await backUp(host, {})
  // A backup fails when a database is missing of which the last one holds documents.
  await host.on.couch.db.destroy(host.on.names.sessions)
  const { id, finished } = await host.app.dbBackups.start(GIVEN)
  await t.rejects(finished)
  await poll('the summaries', async () => (told.start?.id === id && told.progress?.id === id) || undefined)
  const failed = await host.app.dbBackups.summary(id)
  t.ok(failed.error)
  for (const summary of [told.start!, told.progress!, failed]) t.strictSame(toldBy(summary), TOLD)
})

t.test('notes and protection that cannot be used are refused by name, and begin nothing', async (t) => {
  const host = await buildHost(t)
  const refused: [options: object, names: RegExp][] = [
    [{ note: 5 }, /options\/note: expected string/],
    [{ note: null }, /options\/note/],
    [{ note: 'x'.repeat(1025) }, /options\/note: .*1024/],
    [{ note: 'half of a pair: \ud83d' }, /options\/note: is not well-formed Unicode/],
    [{ protect: 'true' }, /options\/protect: expected boolean/],
    [{ protect: null }, /options\/protect/],
    [{ protected: true }, /options\/protected/]
  ]
  for (const [options, message] of refused) {
    await t.rejects(host.app.dbBackups.start(options), { code: 'DB_BACKUPS_INVALID_PARAMETER', message })
  }
  t.strictSame(await host.app.dbBackups.list(), { ids: [] })
  const longest = await backUp(host, { note: 'x'.repeat(1024) })
  t.equal((await host.app.dbBackups.summary(longest)).note, 'x'.repeat(1024))
})

t.test('a request takes no note: who may start a backup over HTTP protects none', async (t) => {
  const host = await buildHost(t)
  const api = apiOf(host)
  for (const [query, body] of [
    ['', GIVEN],
    ['?protect=true', {}],
    ['?note=x', {}]
  ] as const)
    t.equal((await api.call('POST', query, body)).statusCode, 400)
  t.strictSame(await host.app.dbBackups.list(), { ids: [] })
})
