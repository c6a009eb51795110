import { text } from 'node:stream/consumers'
import t, { type Test } from 'tap'
import type { StoredHeader } from '../lib/repository/layout.js'
import { buildHost } from './helpers/host.js'
import { randomOf } from './helpers/random.js'
import { setupRawDatabases } from './helpers/raw-databases.js'
import { load, seedDocuments } from './helpers/seed.js'
import { StoredBackupsOf } from './helpers/stored-backups.js'

type Members = Record<string, unknown>

/** Builds a host with three good backups, of which the second may be harmed. */
async function setup(t: Test) {
  const on = await setupRawDatabases(t)
  const components = on.couch.use(on.names.components)
  await load(components, seedDocuments({ count: 20 }))
  const { app } = await buildHost(t, { on })
  const { dbBackups } = app
  const ids: string[] = []
  const backup = async () => {
    await components.insert({ _id: `one more ${ids.length}` } as never)
    const { id, finished } = await dbBackups.start()
    await finished
    ids.push(id)
    return id
  }
  const read = async (id: string) => text((await dbBackups.get(id)).body)
  const stored = new StoredBackupsOf(on, on.names.backups)
  const [first, harmed] = [await backup(), await backup()]
  await backup()
  /** Puts a value in the place of the storage of the second backup. */
  const harm = async (storage: unknown) => {
    const header = await stored.header(harmed)
    await stored.db.insert({ ...header, storage } as never)
  }
  const storage = (): Promise<Members> =>
    stored.header(harmed).then((header: StoredHeader) => structuredClone(header.storage) as never)
  const kept = await storage()
  return { dbBackups, ids, first, harmed, backup, read, stored, harm, kept }
}

/** What may stand where a version has written an object, a list, a text or a number. */
const WRONG = [null, 0, -1, 1.5, '', 'x', true, [], [null], [[]], {}, { x: null }]

/** Changes of a header's storage that hide what it lists. */
const UNKNOWN: Record<string, (storage: Members) => unknown> = {
  'nothing in it': () => ({}),
  null: () => null,
  'a text': () => 'x',
  'a number': () => 0,
  'a list': () => [],
  'no databases': ({ databases: _, ...rest }) => rest,
  'databases that are null': (storage) => ({ ...storage, databases: null }),
  'databases that are a list': (storage) => ({ ...storage, databases: [] }),
  'a database that is null': (storage) => ({ ...storage, databases: { components: null } }),
  'a database without lists': (storage) => ({ ...storage, databases: { components: {} } }),
  'a text for a list': (storage) => ({
    ...storage,
    databases: { components: { manifests: [], chunks: 'x', superseded: [] } }
  }),
  'an entry without an id': (storage) => ({
    ...storage,
    databases: { components: { manifests: [], chunks: [{}], superseded: [] } }
  })
}

/** Changes that leave what is listed to be read. */
const KNOWN: Record<string, (storage: Members) => unknown> = {
  'no layout': ({ layout: _, ...rest }) => rest,
  ...Object.fromEntries(
    [null, 'x', '3', 0, -1, 2.5, [], {}].map((layout) => [
      `the layout ${JSON.stringify(layout)}`,
      (storage: Members) => ({ ...storage, layout })
    ])
  ),
  'a system that is a number': (storage) => ({ ...storage, system: 5 }),
  'an entry with its id alone': (storage) => ({
    ...storage,
    databases: { components: { manifests: [], chunks: [{ id: 'backup_chunk_x' }], superseded: [] } }
  })
}

const DAMAGED = { name: 'DamagedBackupError', code: 'DB_BACKUPS_DAMAGED', part: 'header' }

type Context = Awaited<ReturnType<typeof setup>>

async function refusesToRead(t: Test, { dbBackups, ids, harmed }: Context, what: string) {
  t.strictSame(await dbBackups.list(), { ids })
  const calls: Record<string, () => Promise<void>> = {
    summary: async () => void (await dbBackups.summary(harmed)),
    get: async () => void (await dbBackups.get(harmed)),
    restore: async () => void (await dbBackups.restore({ id: harmed })),
    attach: async () => void (await dbBackups.attach(harmed, 'notes', 'x'))
  }
  for (const [name, call] of Object.entries(calls)) await t.rejects(call, DAMAGED, `${name} beside ${what}`)
}

async function goesWhenNamed(t: Test, { dbBackups, ids, first, harmed, backup, read, stored }: Context) {
  const before = await read(ids[2]!)
  t.match(await dbBackups.summary(await backup()), { base: ids[2] })
  t.match(await dbBackups.remove(harmed), { removed: [{ id: harmed }] })
  await dbBackups.remove(first)
  t.strictSame((await dbBackups.list()).ids, ids.slice(2))
  t.equal(await read(ids[2]!), before)
  t.strictSame(await stored.flaws(), [])
}

t.test('a backup that hides what it lists is damaged, and keeps all others until it goes', async (t) => {
  const context = await setup(t)
  const { dbBackups, first, harmed, harm: put, kept } = context
  const keep = { last: 2 }
  for (const [what, harm] of Object.entries(UNKNOWN)) {
    await put(harm(kept))
    await refusesToRead(t, context, what)
    await t.rejects(dbBackups.prune({ keep }), DAMAGED, what)
    await t.rejects(dbBackups.remove(first), DAMAGED, what)
    t.match(
      await dbBackups.prune({ keep, keepFailed: 0, dryRun: true }),
      { removed: [{ id: harmed, reasons: ['failed'] }] },
      'pruning removes it, once it has been kept as a failed one'
    )
  }
  await goesWhenNamed(t, context)
})

t.test('a damaged backup whose lists can be read keeps no other from being removed', async (t) => {
  const context = await setup(t)
  const { dbBackups, first, harmed, harm: put, kept } = context
  for (const [what, harm] of Object.entries(KNOWN)) {
    await put(harm(kept))
    await refusesToRead(t, context, what)
    const { kept: stay, removed } = await dbBackups.prune({ keep: { last: 2 }, dryRun: true })
    t.match(stay, [
      { id: first, reasons: ['last 2'] },
      { id: harmed, reasons: ['failed lately'] },
      { reasons: ['newest good backup', 'last 2'] }
    ])
    t.strictSame(removed, [])
  }
  await goesWhenNamed(t, context)
})

t.test(
  'the newest backup is no base, and not the newest good one, when its storage is damaged',
  async (t) => {
    const { dbBackups, ids, stored, backup } = await setup(t)
    const newest = ids[2]!
    await stored.change(newest, (header) => Object.assign(header, { storage: {} }))
    t.match(await dbBackups.summary(await backup()), { base: ids[1] })
    await dbBackups.remove(newest)
    t.strictSame(await stored.flaws(), [])
  }
)

t.test(
  'whatever stands in a storage, a call ends with what it promises or says that it is damaged',
  async (t) => {
    const { dbBackups, ids, first, harmed, backup, read, harm, kept } = await setup(t)
    const before = await read(harmed)
    const random = randomOf(Number(process.env.SEED ?? 15))
    const rounds = Number(process.env.ROUNDS ?? 12)
    const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!
    for (let round = 0; round < rounds; round++) {
      const changed = structuredClone(kept)
      const place = placesIn(changed)
      const [parent, member] = pick(place)
      const wrong = pick([undefined, ...WRONG])
      if (wrong === undefined) delete parent[member]
      else parent[member] = wrong
      await harm(changed)
      const about = `${member}: ${JSON.stringify(wrong)}`
      let damaged = 0
      const calls = {
        summary: async () => void (await dbBackups.summary(harmed)),
        get: async () => void t.equal(await read(harmed), before, about),
        restore: async () =>
          void (await (
            await dbBackups.restore({ id: harmed }, { dryRun: true })
          ).finished),
        prune: async () => void (await dbBackups.prune({ keep: { last: 9 }, dryRun: true }))
      }
      for (const [name, call] of Object.entries(calls))
        try {
          await call()
        } catch (error) {
          damaged++
          t.match(error, { code: 'DB_BACKUPS_DAMAGED' }, `${name}, ${about}`)
        }
      if (round % 5 === 0) t.notOk((await dbBackups.summary(await backup())).error, `next backup, ${about}`)
      t.comment(`${about}: ${damaged} of 4 refused`)
    }
    await dbBackups.remove(harmed)
    t.ok(await read(first))
    t.ok(await read(ids.at(-1)!))
  }
)

/** Returns all members in a value, each as the object or list that has it, and its name there. */
function placesIn(value: object): [parent: Members, member: string][] {
  return Object.entries(value).flatMap(([member, inner]) => [
    [value as Members, member],
    ...(typeof inner === 'object' && inner !== null ? placesIn(inner) : [])
  ])
}
