import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import nano from 'nano'
import t, { type Test } from 'tap'
import type { BackupEvent } from '../types/index.js'
import { setupDatabases, type TestDatabases } from './helpers/database.js'
import { buildHost, type HostOptions } from './helpers/host.js'
import { startRelay } from './helpers/relay.js'
import { load, seedDocuments } from './helpers/seed.js'
import { StoredBackupsOf } from './helpers/stored-backups.js'

const LEGACY = '03_ibp_db_backup_1592924104038'

/** Builds a host with so many good backups, oldest first. Each is full: tests say what is shared. */
async function setup(t: Test, backups: number, options: HostOptions = {}) {
  const on = await setupDatabases(t)
  for (const logical of ['components', 'sessions'] as const)
    await load(on.couch.use(on.names[logical]), seedDocuments({ count: 20 }))
  const events: BackupEvent[] = []
  const onEvent = (event: BackupEvent) => void events.push(event)
  const { app } = await buildHost(t, { on, onEvent, ...options })
  const { dbBackups } = app
  const ids: string[] = []
  for (let i = 0; i < backups; i++) {
    const { id, finished } = await dbBackups.start({ full: true })
    await finished
    ids.push(id)
  }
  const read = async (id: string) => text((await dbBackups.get(id)).body)
  return { on, dbBackups, ids, events, read, stored: new StoredBackupsOf(on) }
}

t.test('a backup is removed with its chunks, manifests and attachments, and nothing else is', async (t) => {
  const { dbBackups, ids, events, read, stored } = await setup(t, 3)
  const [first, second, third] = ids as [string, string, string]
  const manifest = await stored.moveToManifest(second)
  await dbBackups.attach(second, 'notes', Buffer.alloc(50_000, 'x'))
  const before = await Promise.all([first, third].map(read))
  const { dbs } = await dbBackups.summary(second)
  const bytes = Object.values(dbs).reduce((sum, { stored_bytes = 0 }) => sum + stored_bytes, 0)
  const parts = await stored.parts(second)
  t.ok(parts.includes(manifest) && parts.length > 2)
  const others = (await stored.parts()).filter((id) => !parts.includes(id))
  events.length = 0

  const outcome = await dbBackups.remove(second)
  t.match(outcome, { removed: [{ id: second, reasons: ['named'] }], parts: parts.length })
  t.ok(outcome.freed_bytes > bytes + 50_000 && outcome.freed_bytes < bytes + 52_500, 'bytes are told')
  t.strictSame(outcome.orphans, { parts: 0, bytes: 0 })
  t.strictSame(await dbBackups.list(), { ids: [first, third] })
  t.strictSame(await stored.parts(), others)
  t.strictSame(await stored.marked(), [], 'no header is left')
  t.strictSame(await Promise.all([first, third].map(read)), before)
  for (const call of [
    async () => void (await dbBackups.get(second)),
    async () => void (await dbBackups.summary(second)),
    async () => void (await dbBackups.restore({ id: second })),
    async () => void (await dbBackups.attach(second, 'more', 'x')),
    async () => void (await dbBackups.remove(second))
  ])
    await t.rejects(call, { code: 'DB_BACKUPS_NOT_FOUND', statusCode: 404 })
  t.strictSame(
    events.map(({ type }) => type),
    ['prune_started', 'prune_finished']
  )
  await (await dbBackups.start()).finished
})

t.test('chunks that others list stay, and go with the last backup that lists them', async (t) => {
  const { dbBackups, ids, read, stored } = await setup(t, 4)
  const [base, sharing, manifested] = ids as [string, string, string]
  await stored.share(sharing, base)
  await stored.share(manifested, base)
  const manifest = await stored.moveToManifest(manifested)
  const chunks = await stored.parts(base)
  const before = await read(sharing)

  t.match(await dbBackups.remove(base), { parts: 0, orphans: { parts: 0 } })
  t.strictSame(await stored.marked(), [base], 'it is remembered who made the chunks')
  t.strictSame((await dbBackups.list()).ids, ids.slice(1))
  t.equal(await read(sharing), before)
  t.match(await dbBackups.remove(sharing), { parts: 0 })
  t.strictSame(await stored.parts(base), chunks, 'a manifest lists them')
  t.match(await dbBackups.remove(manifested), { parts: chunks.length + 1, orphans: { parts: 0 } })
  t.strictSame(await stored.parts(base), [])
  t.notOk((await stored.parts()).includes(manifest))
  t.strictSame(await stored.marked(), [])
})

t.test('a removed backup takes only what it does not share, wherever others list the rest', async (t) => {
  const { dbBackups, ids, stored } = await setup(t, 3)
  const [base, sharing] = ids as [string, string]
  const { components } = (await stored.header(base)).storage.databases
  await stored.change(sharing, ({ storage }) => {
    storage.databases.components!.superseded.push(...components!.chunks)
  })
  const kept = components!.chunks.map(({ id }) => id)
  const all = await stored.parts(base)
  t.match(await dbBackups.remove(base), { parts: all.length - kept.length })
  t.strictSame(await stored.parts(base), kept)
})

t.test('a backup that must stay is not removed, nothing is changed and no operation begins', async (t) => {
  const { dbBackups, ids, events, on, stored } = await setup(t, 2)
  const [foreign, newest] = ids as [string, string]
  await stored.change(foreign, ({ storage }) =>
    Object.assign(storage, { system: 'another_system', console: 'one' })
  )
  const failed = { in_progress: false, error: 'it failed', dbs: {}, type: 'athena_backup' }
  await stored.db.insert(failed, `${newest}9`)
  const before = await on.fetchAll(on.names.system)
  events.length = 0
  const reasons = {
    [foreign]: 'it is of the console with the system database "another_system" and the id "one"',
    [newest]: 'it is the newest good backup'
  }
  for (const [id, reason] of Object.entries(reasons))
    await t.rejects(dbBackups.remove(id), {
      name: 'BackupProtectedError',
      code: 'DB_BACKUPS_PROTECTED',
      statusCode: 409,
      message: `backup "${id}" cannot be removed: ${reason}`
    })
  for (const id of ['x', '03_ibp_db_backup_', 1 as never])
    await t.rejects(dbBackups.remove(id), { code: 'DB_BACKUPS_INVALID_PARAMETER' })
  await t.rejects(dbBackups.remove('03_ibp_db_backup_1'), { code: 'DB_BACKUPS_NOT_FOUND' })
  const after = await on.fetchAll(on.names.system)
  for (const one of [before, after]) one.delete('athena_backup_lease')
  t.strictSame(after, before)
  t.strictSame(events, [], 'a refusal is not a failed operation')
})

t.test("failed backups and athena's are removed by name", async (t) => {
  const { dbBackups, ids, stored } = await setup(t, 2)
  const [failed, newest] = ids as [string, string]
  await stored.change(failed, (header) => Object.assign(header, { error: 'it failed' }))
  const docs = Array.from({ length: 100 }, (_, i) => ({ _id: `a${i}`, text: 'x'.repeat(1000) }))
  const legacy = { type: 'athena_backup', in_progress: false, dbs: { athena_components: { docs } } }
  await stored.db.insert(legacy, LEGACY)
  const parts = await stored.parts(failed)
  t.match(await dbBackups.remove(failed), { parts: parts.length })
  const { freed_bytes, parts: none } = await dbBackups.remove(LEGACY)
  t.equal(none, 0)
  t.ok(freed_bytes > 100_000 && freed_bytes < 110_000, `${freed_bytes} bytes`)
  t.strictSame(await dbBackups.list(), { ids: [newest] })
  t.strictSame(await stored.marked(), [])
})

const HARMS = {
  'has lost its manifest': {
    harm: async (stored: StoredBackupsOf, id: string) => stored.delete(await stored.moveToManifest(id)),
    error: { code: 'DB_BACKUPS_DAMAGED', part: 'header' }
  },
  'does not list its chunks': {
    harm: (stored: StoredBackupsOf, id: string) =>
      stored.change(id, ({ storage }) => void Object.assign(storage, { databases: { components: {} } })),
    error: { code: 'DB_BACKUPS_DAMAGED', part: 'header' }
  },
  'is of a later layout': {
    harm: (stored: StoredBackupsOf, id: string) =>
      stored.change(id, ({ storage }) => void Object.assign(storage, { layout: 99 })),
    error: { code: 'DB_BACKUPS_UNKNOWN_LAYOUT' }
  }
}

for (const [what, { harm, error }] of Object.entries(HARMS)) {
  t.test(`nothing is removed beside a backup that ${what}: it may have any chunk`, async (t) => {
    const { dbBackups, ids, events, stored } = await setup(t, 3)
    const [first, harmed, newest] = ids as [string, string, string]
    await harm(stored, harmed)
    const parts = await stored.parts()
    events.length = 0
    await t.rejects(dbBackups.remove(first), error)
    await t.rejects(dbBackups.prune({ keep: { last: 2 } }), error)
    await t.rejects(dbBackups.prune({ keep: { last: 2 }, dryRun: true }), error)
    t.strictSame(await dbBackups.list(), { ids })
    t.strictSame(await stored.parts(), parts)
    t.strictSame(await stored.marked(), [])
    t.strictSame(events, [])
    if (error.code === 'DB_BACKUPS_UNKNOWN_LAYOUT') {
      await t.rejects(dbBackups.remove(harmed), error)
      return
    }
    await dbBackups.remove(harmed)
    await dbBackups.remove(first)
    t.strictSame(await stored.parts(), await stored.parts(newest), 'it can be removed itself')
  })
}

t.test('parts that another console makes, or has to sweep, and documents like parts stay', async (t) => {
  const { dbBackups, ids, stored } = await setup(t, 2)
  const [first, newest] = ids as [string, string]
  const [running, removed, unknown] = ['7000000000001', '7000000000002', '7000000000003']
  const storage = { layout: 2, system: 'another_system' }
  const header = { type: 'athena_backup', in_progress: true, dbs: {}, storage: { ...storage, databases: {} } }
  await stored.db.insert(header, `03_ibp_db_backup_${running}`)
  await stored.db.insert({ type: 'athena_backup_removed', storage }, `03_ibp_db_backup_${removed}`)
  const chunkOf = (stamp: string) => `backup_chunk_${stamp}_components_000000`
  for (const stamp of [running, removed, unknown])
    await stored.db.insert({ type: 'athena_backup_chunk' }, chunkOf(stamp))
  const mine = [
    `backup_chunk_${first.slice(17)}_system_000999`,
    'backup_chunk_1x',
    'backup_manifest_1_system_000000'
  ]
  for (const id of mine) await stored.db.insert({ type: 'peer' }, id)
  const theirs = [running, removed].map(chunkOf)
  const left = async () => {
    const own = await stored.parts(newest)
    return (await stored.parts()).filter((id) => !own.includes(id))
  }
  const { orphans } = await dbBackups.remove(first)
  t.match(orphans, { parts: 1 })
  t.ok(orphans.bytes > 50, `${orphans.bytes} bytes`)
  t.strictSame(await left(), [...theirs, chunkOf(unknown), ...mine].sort(), 'an orphan is only counted')
  t.match(await dbBackups.prune({ keep: { last: 9 }, orphans: true, dryRun: true }), { parts: 1 })
  t.ok((await left()).includes(chunkOf(unknown)))
  const pruned = await dbBackups.prune({ keep: { last: 9 }, orphans: true })
  t.match(pruned, { removed: [], parts: 1, freed_bytes: orphans.bytes, orphans })
  t.strictSame(await left(), [...theirs, ...mine].sort(), 'an orphan goes when that is asked for')
  t.strictSame(await stored.marked(), [`03_ibp_db_backup_${removed}`])
})

t.test('one operation at a time: removals, backups and restores refuse each other', async (t) => {
  let goOn = () => {}
  const restoring = new Promise<void>((resolve) => {
    goOn = resolve
  })
  let asked = 0
  const versions = async () => {
    asked++
    return {}
  }
  const { dbBackups, ids, on } = await setup(t, 2, { rebuildWhitelist: () => restoring, versions })
  const [first] = ids as [string]
  const other = (await buildHost(t, { on, versions })).app.dbBackups
  const { finished } = await dbBackups.restore({ id: first })
  for (const by of [dbBackups, other]) {
    const refused = { code: 'DB_BACKUPS_IN_PROGRESS', message: 'restore_in_progress' }
    await t.rejects(by.remove(first), refused)
    await t.rejects(by.prune({ keep: { last: 1 } }), refused)
    const unread = new Readable({ read() {} })
    const again = { code: refused.code, message: 'already_in_progress' }
    await t.rejects(by.restore({ id: first }), again)
    await t.rejects(by.restore({ body: unread }), again, 'before the upload is read')
    await t.rejects(by.start(), refused)
    t.equal(asked, ids.length, 'before the host is asked for versions')
    t.match(await by.prune({ keep: { last: 1 }, dryRun: true }), { removed: [{ id: first }] })
  }
  goOn()
  await finished
  t.match(await dbBackups.prune({ keep: { last: 1 } }), { removed: [{ id: first }] })
})

/** Builds a second host, and has `between` run once, before its first request that matches arrives. */
async function hostWith(t: Test, on: TestDatabases, line: RegExp, between: () => Promise<unknown>) {
  let ran = false
  const relay = await startRelay(t, on.url, {
    async before({ method, path }) {
      if (ran || !line.test(`${method} ${path}`)) return path
      ran = true
      await between()
      return path
    }
  })
  const { app } = await buildHost(t, { on: { ...on, couch: nano(relay) } })
  return { app, ran: () => ran }
}

t.test('while a removal runs, nothing else begins', async (t) => {
  const { dbBackups, ids, on } = await setup(t, 2)
  const refusals: unknown[] = []
  const { app, ran } = await hostWith(t, on, /_bulk_docs/, async () => {
    for (const call of [
      () => dbBackups.start(),
      () => dbBackups.restore({ id: ids[1]! }),
      () => dbBackups.remove(ids[0]!)
    ])
      await call().catch((error: unknown) => refusals.push(error))
  })
  await app.dbBackups.remove(ids[0]!)
  t.ok(ran())
  t.match(refusals, [
    { message: 'prune_in_progress', operation: 'prune', id: /^prune_[0-9a-f]{32}$/ },
    { message: 'prune_in_progress' },
    { message: /^there is no backup/ }
  ])
})

t.test('a restore of a backup that is removed before it has the lease is refused', async (t) => {
  const { dbBackups, ids, on } = await setup(t, 2)
  const before = await on.fetchAll(on.names.components)
  const { app, ran } = await hostWith(t, on, /^PUT .*athena_backup_lease/, () => dbBackups.remove(ids[0]!))
  await t.rejects(app.dbBackups.restore({ id: ids[0]! }), { code: 'DB_BACKUPS_NOT_FOUND' })
  t.ok(ran())
  t.strictSame(await on.fetchAll(on.names.components), before)
  await (await app.dbBackups.restore({ id: ids[1]! })).finished
})

t.test('an append that meets a removal does not bring the backup back', async (t) => {
  const { dbBackups, ids, on, stored } = await setup(t, 2)
  const { app, ran } = await hostWith(t, on, /^PUT .*notes/, () => dbBackups.remove(ids[0]!))
  await t.rejects(app.dbBackups.attach(ids[0]!, 'notes', 'x'), { code: 'DB_BACKUPS_NOT_FOUND' })
  t.ok(ran())
  t.strictSame(await dbBackups.list(), { ids: [ids[1]] })
  t.strictSame(await stored.marked(), [])
})

t.test('a removal that meets an append removes the backup all the same', async (t) => {
  const { dbBackups, ids, on, stored } = await setup(t, 2)
  const [first, newest] = ids as [string, string]
  const { app, ran } = await hostWith(t, on, new RegExp(`^PUT .*${first}`), () =>
    dbBackups.attach(first, 'notes', 'x')
  )
  await app.dbBackups.remove(first)
  t.ok(ran())
  t.strictSame(await dbBackups.list(), { ids: [newest] })
  t.strictSame(await stored.parts(), await stored.parts(newest))
})

t.test('a document that takes the place of a header is not deleted with the backup', async (t) => {
  const { dbBackups, ids, on, stored } = await setup(t, 2)
  const [first] = ids as [string]
  const mine = { type: 'peer', mine: true }
  const { app, ran } = await hostWith(t, on, new RegExp(`^PUT .*${first}`), async () => {
    const { _rev } = await stored.db.get(first)
    await stored.db.insert({ ...mine, _id: first, _rev } as never)
  })
  await app.dbBackups.remove(first)
  t.ok(ran())
  t.match(await stored.db.get(first), mine)
  t.match(await dbBackups.list(), { ids: [ids[1]] })
})

t.test('a backup that appears while others are marked keeps the chunks that it lists', async (t) => {
  const { ids, on, stored } = await setup(t, 2)
  const [first] = ids as [string]
  const chunks = await stored.parts(first)
  let clone = ''
  const { app } = await hostWith(t, on, new RegExp(`^PUT .*${first}`), async () => {
    clone = await stored.clone(first)
  })
  t.match(await app.dbBackups.remove(first), { parts: 0 })
  t.strictSame(await stored.parts(first), chunks)
  t.ok((await app.dbBackups.list()).ids.includes(clone))
})

t.test(
  'who names a backup may remove one that is protected from pruning, or was left in progress',
  async (t) => {
    const { dbBackups, ids, stored } = await setup(t, 3)
    const [guarded, left, newest] = ids as [string, string, string]
    await stored.change(guarded, (header) => Object.assign(header, { protected: true }))
    await stored.change(left, (header) => Object.assign(header, { in_progress: true }))
    await dbBackups.remove(guarded)
    await dbBackups.remove(left)
    t.strictSame((await dbBackups.list()).ids, [newest])
  }
)
