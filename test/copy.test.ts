import nano from 'nano'
import t from 'tap'
import { backUp, change, docs, headerOf, remove } from './helpers/chain.js'
import { checkSame, isThere, QUICK, setupCopySites } from './helpers/copies.js'
import { buildHost } from './helpers/host.js'

t.test('a backup is copied whole, is found there the second time, and restores there', async (t) => {
  const sites = await setupCopySites(t)
  const { from, host, events, copy, to } = sites
  const backup = await backUp(host, { note: 'before the move', protect: true })
  await host.app.dbBackups.attach(backup.id, 'notes.txt', 'hello '.repeat(1000), {
    contentType: 'text/plain'
  })
  await host.app.dbBackups.attach(backup.id, 'empty', '')
  await host.app.dbBackups.attach(backup.id, 'ü/ 1', Buffer.from([0, 1, 2]), { contentType: 'image/png' })
  const outcome = await copy(backup.id)
  t.match(outcome, { id: backup.id, reused: { parts: 0, bytes: 0 }, already: false })
  t.ok(outcome.copied.parts > 3 && outcome.copied.bytes > 1000)
  t.match(
    events.filter(({ type }) => type.startsWith('copy_')),
    [
      { type: 'copy_started', id: /^copy_/, backup_id: backup.id, database: to.names.backups },
      { type: 'copy_finished', backup_id: backup.id, outcome }
    ]
  )
  const { _rev, _attachments, ...header } = await headerOf(from, backup.id)
  const { _rev: revThere, _attachments: attachmentsThere, ...there } = await sites.stored.header(backup.id)
  t.strictSame(there, header, 'the header is as it was')
  t.strictSame(Object.keys(attachmentsThere!), Object.keys(_attachments!))

  const again = await copy(backup.id)
  t.match(again, { copied: { parts: 0, bytes: 0 }, already: true })
  t.strictSame(again.reused, outcome.copied)
  t.equal((await sites.stored.header(backup.id))._rev, revThere, 'nothing was written')

  const other = await sites.there()
  await checkSame(t, host, other, backup.id)
  t.match(await other.app.dbBackups.verify(backup.id), { good: true })
  if (to.real) for (const name of [from.names.components, from.names.sessions]) await from.remake(name)
  const { finished } = await other.app.dbBackups.restore({ id: backup.id }, { exact: true })
  t.match((await finished).databases, { components: { created: 60 }, sessions: { created: 3 } })
})

t.test('of a chain, each chunk is copied once', async (t) => {
  const sites = await setupCopySites(t)
  const { from, host, copy, stored } = sites
  const first = await backUp(host)
  await change(from, from.names.components, docs('doc_00001', 'added'))
  const second = await backUp(host)
  await remove(from, from.names.components, 'doc_00002')
  const third = await backUp(host)
  t.equal(third.dbs.athena_components?.base, second.id)

  const newest = await copy(third.id)
  t.strictSame((await stored.marked()).sort(), [first.id, second.id], 'the makers of shared chunks are known')
  const oldest = await copy(first.id)
  t.ok(oldest.reused.parts > 0)
  t.ok(oldest.copied.parts < newest.copied.parts)
  await copy(second.id)
  t.strictSame(await stored.marked(), [])
  t.strictSame(await stored.parts(), await stored.listed([first.id, second.id, third.id]))
  const there = await sites.there()
  t.strictSame(await there.app.dbBackups.list(), await host.app.dbBackups.list())
  for (const { id } of [first, second, third]) {
    await checkSame(t, host, there, id)
    t.match(await copy(id), { already: true })
  }
  await there.app.dbBackups.prune({ keep: { last: 1 } })
  t.strictSame(
    await stored.parts(),
    await stored.listed([third.id]),
    'a pruning leaves what the last one lists'
  )
  await checkSame(t, host, there, third.id)
})

t.test('what a pruning there has deleted is copied again, and has other revisions', async (t) => {
  const sites = await setupCopySites(t)
  const { from, host, copy, stored } = sites
  const first = await backUp(host)
  await change(from, from.names.components, docs('doc_00001', 'added'))
  const second = await backUp(host)
  await copy(first.id)
  await copy(second.id)
  const there = await sites.there()
  await there.app.dbBackups.remove(first.id)
  t.match(await copy(first.id), { already: false })
  await checkSame(t, host, there, first.id)
  // Nothing of the first stays then.
  await there.app.dbBackups.prune({ keep: { last: 1 } })
  await change(from, from.names.components, docs('added later'))
  const third = await backUp(host, { full: true })
  await copy(third.id)
  await there.app.dbBackups.prune({ keep: { last: 1 } })
  t.strictSame(await stored.parts(), await stored.listed([third.id]))

  t.match(await copy(second.id), { already: false })
  const [here, back] = [await headerOf(from, second.id), await sites.stored.header(second.id)]
  t.not(back.storage.sha256, here.storage.sha256, 'the header lists the revisions that the parts have there')
  for (const { id } of [first, second]) {
    await copy(id)
    t.match(await copy(id), { already: true })
    await checkSame(t, host, there, id)
    t.match((await there.app.dbBackups.verify(id)).problems, [])
  }
})

t.test('attachments that are appended later are copied the next time', async (t) => {
  const sites = await setupCopySites(t, { count: 5 })
  const { host, copy, to } = sites
  const { id } = await backUp(host)
  await copy(id)
  await host.app.dbBackups.attach(id, 'later', 'later')
  t.match(await copy(id), { already: false, copied: { parts: 1, bytes: 5 } })
  const there = await sites.there()
  await checkSame(t, host, there, id)
  await there.app.dbBackups.attach(id, 'only there', 'x')
  t.match(await copy(id), { already: true }, 'what is appended there alone stays')
  await there.app.dbBackups.attach(id, 'later', 'other')
  t.match(await copy(id), { already: false, copied: { parts: 1, bytes: 5 } }, 'one of the same name does not')
  await host.app.dbBackups.attach(id, 'later', 'replaced')
  t.match(await copy(id), { already: false, copied: { parts: 1, bytes: 8 } })
  t.equal(await to.couch.use(to.names.backups).attachment.get(id, 'later').then(String), 'replaced')
  t.match(await copy(id), { already: true })
})

t.test('a backup whose copy was pruned is copied again, whichever console has pruned it', async (t) => {
  const sites = await setupCopySites(t)
  const { from, to, host, copy } = sites
  const first = await backUp(host)
  await change(from, from.names.components, docs('added'))
  const second = await backUp(host)
  await copy(first.id)
  await copy(second.id)
  const there = await sites.there()
  await there.app.dbBackups.remove(first.id)
  const { type, storage } = await to.call('GET', `${to.names.backups}/${first.id}`)
  t.equal(type, 'athena_backup_removed', 'its parts are those of the second one too')
  t.equal(storage.console, (await headerOf(from, first.id)).storage.console, 'the mark tells whose it was')
  t.match(await copy(first.id), { already: false })
  await checkSame(t, host, there, first.id)
})

t.test('copies count as the backups of a console that keeps its backups there by the same id', async (t) => {
  const sites = await setupCopySites(t, { count: 5 })
  const { from, to, host, copy } = sites
  const ids = [(await backUp(host)).id, (await backUp(host)).id]
  for (const id of ids) await copy(id)
  const { console } = (await headerOf(from, ids[0]!)).storage
  t.match(console, /^[0-9a-f]{16}$/)
  const { backups: _backups, ...databases } = from.names
  const attached = (id?: string) =>
    buildHost(t, {
      on: from,
      databases,
      backups: { couch: nano(to.url), database: to.names.backups, ...(id && { console: id }) },
      ...QUICK
    })
  const other = await attached('another-one')
  t.match(await other.app.dbBackups.prune({ keep: { last: 1 } }), { removed: [] })
  // The id lies beside the databases.
  const moved = await attached()
  t.match(await moved.app.dbBackups.prune({ keep: { last: 1 } }), { removed: [{ id: ids[0] }] })
})

t.test('a copy is found whatever the order in which a server sends the members of its header', async (t) => {
  const sites = await setupCopySites(t, { count: 5 })
  const { host, copy, to } = sites
  const { id } = await backUp(host)
  await copy(id)
  const path = `${to.names.backups}/${id}`
  const members = Object.entries(await to.call('GET', path))
  await to.call('PUT', path, Object.fromEntries(members.reverse()))
  t.match(await copy(id), { already: true })
  await host.app.dbBackups.attach(id, 'later', 'later')
  t.match(await copy(id), { copied: { parts: 1, bytes: 5 } })
})

t.test('only a good backup is copied, and the reason is told where one is not', async (t) => {
  const sites = await setupCopySites(t, { count: 5 })
  const { from, host, copy, to } = sites
  const backups = from.couch.use(from.names.backups)
  const { id } = await backUp(host)
  await t.rejects(copy('03_ibp_db_backup_1'), { code: 'DB_BACKUPS_NOT_FOUND', statusCode: 404 })
  await t.rejects(copy('nothing'), { code: 'DB_BACKUPS_INVALID_PARAMETER' })
  const put = (number: number, header: object) =>
    backups.insert({ _id: `03_ibp_db_backup_${number}`, type: 'athena_backup', dbs: {}, ...header } as never)
  const storage = { layout: 3, instance: 'x', system: from.names.system, databases: {} }
  await put(1, { in_progress: true, storage })
  await put(2, { error: 'it broke', storage })
  await put(3, { in_progress: false, dbs: { athena_system: { docs: [] } } })
  await put(4, { in_progress: false, storage: { ...storage, layout: 99 } })
  await put(5, { in_progress: false, storage })
  await put(6, { in_progress: false, storage, damaged: { found: 1, databases: { system: { chunks: 1 } } } })
  const refused = { code: 'DB_BACKUPS_NOT_COPYABLE', statusCode: 400 }
  for (const number of [1, 2, 3, 6]) await t.rejects(copy(`03_ibp_db_backup_${number}`), refused)
  await t.rejects(copy('03_ibp_db_backup_4'), { code: 'DB_BACKUPS_UNKNOWN_LAYOUT' })
  await t.rejects(
    copy('03_ibp_db_backup_5'),
    { code: 'DB_BACKUPS_DAMAGED', part: 'header' },
    'an edited header'
  )
  t.strictSame((await to.couch.use(to.names.backups).list()).rows, [])
  t.notOk(await isThere(sites, id))
})

t.test('the arguments are checked, and credentials are told nowhere', async (t) => {
  const sites = await setupCopySites(t, { count: 5 })
  const { from, host, to, events } = sites
  const { id } = await backUp(host)
  const { dbBackups } = host.app
  const couch = nano(to.url)
  const invalid = (message: RegExp) => ({ code: 'DB_BACKUPS_INVALID_PARAMETER', message })
  for (const [options, message] of [
    [undefined, /options/],
    [{}, /options\/to/],
    [{ to: { couch } }, /options\/to\/database/],
    [{ to: { couch, database: 'Wrong Name' } }, /options\/to\/database/],
    [{ to: { couch: 'http://localhost', database: 'x' } }, /options\/to\/couch/],
    [{ to: { couch: couch.use('x'), database: 'x' } }, /options\/to\/couch/],
    [{ to: { couch, database: 'x' }, signal: true }, /options\/signal/],
    [{ to: { couch, database: 'x' }, other: true }, /options/],
    [{ to: { couch: from.couch, database: from.names.backups } }, /options\/to/],
    [{ to: { couch: from.couch, database: from.names.components } }, /options\/to: .* that is backed up/]
  ] as const)
    await t.rejects(dbBackups.copy(id, options as never), invalid(message))
  await t.rejects(dbBackups.copy(id, { to: { couch: () => couch, database: 'is_not_there' } }), {
    code: 'DB_BACKUPS_MISSING_DATABASE'
  })
  // A server with users locks out whoever comes with a wrong password.
  if (to.real) return
  const secret = new URL(to.url)
  secret.username = 'somebody'
  secret.password = 'hunter2'
  const url = secret.href.replace(/\/$/, '')
  await dbBackups.copy(id, { to: { couch: nano(url), database: to.names.backups } })
  t.notMatch(JSON.stringify(events), /hunter2|somebody/)
  t.notMatch(
    JSON.stringify((await to.couch.use(to.names.backups).list({ include_docs: true })).rows),
    /hunter2/
  )
  const unreachable = nano('http://somebody:hunter2@127.0.0.1:9')
  const error = await dbBackups
    .copy(id, { to: { couch: unreachable, database: 'x' } })
    .then(t.fail, (error: Error) => error)
  t.match(error, { code: 'DB_BACKUPS_DATABASE_UNAVAILABLE', message: /the CouchDB of the destination: / })
  t.notMatch(String((error as Error).stack), /hunter2/)
})
