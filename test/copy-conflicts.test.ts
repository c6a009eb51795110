import t from 'tap'
import { contentDigest } from '../lib/repository/layout.js'
import { backUp, change, docs, headerOf, listedChunks } from './helpers/chain.js'
import { type CopySites, checkSame, isThere, setupCopySites } from './helpers/copies.js'
import { startFaultProxy } from './helpers/fault-proxy.js'

const CONFLICT = { code: 'DB_BACKUPS_COPY_CONFLICT', statusCode: 409 }

/** What lies where backups are copied to, but for the lease. */
async function lies({ to }: CopySites) {
  const { rows } = await to.couch.use(to.names.backups).list()
  return rows.filter(({ id }) => id !== 'athena_backup_lease').map(({ id, value }) => [id, value.rev])
}

t.test('what has the id of the backup there stays as it is', async (t) => {
  const sites = await setupCopySites(t, { count: 5 })
  const { host, from, to, copy } = sites
  const { id } = await backUp(host)
  const there = to.couch.use(to.names.backups)
  const header = (await headerOf(from, id)) as unknown as Record<string, unknown>
  const { _rev, ...told } = header
  const storage = { ...(told.storage as object) }
  for (const [document, error] of [
    [{ text: 'a document of the console' }, { code: 'DB_BACKUPS_RESERVED_ID', statusCode: 409 }],
    [{ type: 'athena_backup', dbs: {}, in_progress: true, storage }, CONFLICT],
    [{ type: 'athena_backup', dbs: {}, in_progress: false }, CONFLICT],
    [
      {
        type: 'athena_backup',
        dbs: {},
        in_progress: false,
        storage: { layout: 3, databases: { system: 1 } }
      },
      CONFLICT
    ],
    [{ ...told, start_timestamp: 1 }, CONFLICT],
    [{ ...told, damaged: { found: 1, databases: { system: { chunks: 1 } } } }, CONFLICT],
    [{ type: 'athena_backup_removed', storage: { layout: 4, system: 'of_another' } }, CONFLICT]
  ] as const) {
    const { rev } = await there.insert({ ...document, _id: id } as never)
    const before = await lies(sites)
    await t.rejects(copy(id), error, JSON.stringify(document).slice(0, 60))
    t.strictSame(await lies(sites), before, 'nothing was written')
    await there.destroy(id, rev)
  }
  t.match(await copy(id), { already: false })
})

t.test('a part that is there with other bytes refuses the copy', async (t) => {
  const sites = await setupCopySites(t, { count: 5 })
  const { host, from, to, copy } = sites
  const { id } = await backUp(host)
  const [chunk] = await listedChunks(from, from.names.backups, id, 'components')
  const there = to.couch.use(to.names.backups)
  const foreign = await there.insert({ _id: chunk!.id, text: 'of the console' } as never)
  await t.rejects(copy(id), { code: 'DB_BACKUPS_RESERVED_ID' })
  await there.destroy(chunk!.id, foreign.rev)
  const made = await there.insert({ _id: chunk!.id, type: 'athena_backup_chunk' } as never)
  const other = await there.attachment.insert(
    chunk!.id,
    'documents.ndjson.gz',
    Buffer.alloc(chunk!.stored, 1),
    'application/gzip',
    { rev: made.rev }
  )
  const before = await lies(sites)
  await t.rejects(copy(id), { ...CONFLICT, message: new RegExp(chunk!.id) })
  t.strictSame(await lies(sites), before)
  await there.destroy(chunk!.id, other.rev)
  // The chunk as its maker made it, but for another revision.
  const bytes = await from.couch.use(from.names.backups).attachment.get(chunk!.id, 'documents.ndjson.gz')
  const again = await there.insert({ _id: chunk!.id, type: 'athena_backup_chunk' } as never)
  await there.attachment.insert(chunk!.id, 'documents.ndjson.gz', bytes, 'application/gzip', {
    rev: again.rev
  })
  const outcome = await copy(id)
  t.ok(outcome.reused.parts === 1 && outcome.copied.parts > 0)
  await checkSame(t, host, await sites.there(), id)
})

t.test('a document without its bytes, as a crash leaves it, gets them', async (t) => {
  const sites = await setupCopySites(t, { count: 5 })
  const { host, from, to, copy } = sites
  const { id } = await backUp(host)
  const [chunk] = await listedChunks(from, from.names.backups, id, 'components')
  const { _id, type, backup_id, database, index } = (await from.couch
    .use(from.names.backups)
    .get(chunk!.id)) as unknown as Record<string, string>
  await to.couch.use(to.names.backups).insert({ _id, type, backup_id, database, index } as never)
  t.match(await copy(id), { already: false })
  const { _rev, _attachments, ...header } = await headerOf(from, id)
  t.match(
    await sites.stored.header(id),
    { storage: { sha256: header.storage.sha256 } },
    'at the same revision'
  )
})

t.test('parts that are gone there are stored again', async (t) => {
  const sites = await setupCopySites(t, { count: 5 })
  const { host, from, to, copy } = sites
  const { id } = await backUp(host)
  await copy(id)
  const [chunk] = await listedChunks(from, from.names.backups, id, 'components')
  const there = to.couch.use(to.names.backups)
  await there.destroy(chunk!.id, ((await there.get(chunk!.id)) as { _rev: string })._rev)
  t.match(await copy(id), { already: false, copied: { parts: 1, bytes: chunk!.stored } })
  const other = await sites.there()
  await checkSame(t, host, other, id)
  t.match(await other.app.dbBackups.verify(id), { good: true })
})

t.test('a damaged or missing chunk fails the copy, and nothing becomes a backup there', async (t) => {
  const sites = await setupCopySites(t, { count: 5 })
  const { host, from, copy, events } = sites
  const { id } = await backUp(host)
  const [chunk] = await listedChunks(from, from.names.backups, id, 'components')
  const backups = from.couch.use(from.names.backups)
  const { _rev } = (await backups.get(chunk!.id)) as { _rev: string }
  const { rev } = await backups.attachment.insert(
    chunk!.id,
    'documents.ndjson.gz',
    Buffer.alloc(chunk!.stored, 1),
    'application/gzip',
    { rev: _rev }
  )
  const damaged = { code: 'DB_BACKUPS_DAMAGED', part: 'chunk', id: chunk!.id }
  await t.rejects(copy(id), damaged)
  t.match(events.at(-1), { type: 'copy_failed', backup_id: id, error: damaged })
  await backups.destroy(chunk!.id, rev)
  await t.rejects(copy(id), damaged)
  t.notOk(await isThere(sites, id))
})

t.test('a header that lists what is no part of a backup copies nothing of the console', async (t) => {
  const sites = await setupCopySites(t, { count: 5 })
  const { host, from, copy } = sites
  const { id } = await backUp(host)
  const header = await headerOf(from, id)
  header.storage.databases.components!.chunks[0]!.id = 'settings'
  header.storage.sha256 = contentDigest(header.dbs, header.storage.databases)
  await from.couch.use(from.names.backups).insert(header as never)
  const before = await lies(sites)
  await t.rejects(copy(id), {
    code: 'DB_BACKUPS_DAMAGED',
    part: 'header',
    message: /"settings", which is no part/
  })
  t.strictSame(await lies(sites), before)
})

t.test('a backup that is removed, or appended to, while it is copied', async (t) => {
  const sites = await setupCopySites(t, { count: 20 })
  const { host, from, to, copy } = sites
  const first = await backUp(host)
  await change(from, from.names.components, docs('added'))
  const second = await backUp(host)
  const proxy = await startFaultProxy(t, to.url)
  let during: (() => Promise<unknown>) | undefined
  let done: Promise<unknown> | undefined
  proxy.onRequest = ({ path }) => {
    if (/documents\.ndjson/.test(path) && during) {
      done = during()
      during = undefined
    }
    return undefined
  }
  const release = proxy.hold({ path: /_all_docs/ })
  const after = async (work: () => Promise<unknown>) => {
    during = () => work().finally(release)
  }
  await after(() => host.app.dbBackups.remove(first.id))
  await t.rejects(copy(first.id, proxy), { code: 'DB_BACKUPS_NOT_FOUND' })
  await done
  t.notOk(await isThere(sites, first.id))
  await after(() => host.app.dbBackups.attach(second.id, 'meanwhile', 'x'))
  t.match(await copy(second.id, proxy), { already: false })
  await done
  await checkSame(t, host, await sites.there(), second.id)
})
