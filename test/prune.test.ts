import * as client from 'prom-client'
import t, { type Test } from 'tap'
import type { BackupEvent, PruneOutcome } from '../types/index.js'
import { setupDatabases } from './helpers/database.js'
import { buildHost, type HostOptions } from './helpers/host.js'
import { extent } from './helpers/settings.js'
import { type Fabricated, fabricate, StoredBackupsOf } from './helpers/stored-backups.js'

const DAY = 24 * 3_600_000
const NOON = Math.floor(Date.now() / DAY) * DAY - DAY / 2

const daysAgo = (days: number) => NOON - days * DAY
const idOf = (days: number) => `03_ibp_db_backup_${daysAgo(days)}`
/** What athena's backups hold that are complete. */
const ATHENA = {
  athena_components: { docs: [{ _id: 'a' }] },
  athena_sessions: { docs: [] },
  athena_system: { docs: [] }
}
const idsOf = (decisions: readonly { id: string }[]) => decisions.map(({ id }) => id)

/** Builds a host with backups of so many days ago. */
async function setup(t: Test, backups: readonly (number | Fabricated)[], options: HostOptions = {}) {
  const on = await setupDatabases(t)
  await fabricate(
    on,
    backups.map((one) => (typeof one === 'number' ? { at: daysAgo(one) } : one))
  )
  const events: BackupEvent[] = []
  const onEvent = (event: BackupEvent) => void events.push(event)
  const { app } = await buildHost(t, { on, onEvent, ...options })
  return { on, app, dbBackups: app.dbBackups, events, stored: new StoredBackupsOf(on) }
}

t.test('what no rule keeps is removed, and the outcome tells why for each', async (t) => {
  const { dbBackups, stored } = await setup(t, [5, 4, 3, 2, 1, 0])
  const outcome = await dbBackups.prune({ keep: { last: 2, within: '3d' } })
  t.match(outcome, {
    dryRun: false,
    removed: [5, 4, 3].map((days) => ({ id: idOf(days), reasons: ['no rule keeps it'] })),
    kept: [
      { id: idOf(2), reasons: ['within 3d'] },
      { id: idOf(1), reasons: ['last 2', 'within 3d'] },
      { id: idOf(0), reasons: ['newest good backup', 'last 2', 'within 3d'] }
    ],
    parts: 3,
    orphans: { parts: 0, bytes: 0 }
  })
  t.ok(outcome.freed_bytes > 300)
  t.strictSame(await dbBackups.list(), { ids: idsOf(outcome.kept) })
  t.strictSame(await stored.parts(), await stored.listed(idsOf(outcome.kept)))
  t.strictSame(await stored.marked(), [])
  const again = await dbBackups.prune({ keep: { last: 2, within: '3d' } })
  t.match(again, { removed: [], kept: outcome.kept, parts: 0, freed_bytes: 0 })
})

t.test('the options of the plugin are the rules where a call has none', async (t) => {
  const { dbBackups } = await setup(t, [3, 2, 1], { keep: { last: 2 } })
  t.strictSame(idsOf((await dbBackups.prune()).removed), [idOf(3)])
  t.strictSame(idsOf((await dbBackups.prune({ keep: { last: 1 } })).removed), [idOf(2)])
})

t.test('without a rule, or with a wrong option, nothing is pruned', async (t) => {
  const { dbBackups, events } = await setup(t, [3, 2, 1])
  await t.rejects(dbBackups.prune(), {
    code: 'DB_BACKUPS_INVALID_PARAMETER',
    message: 'options/keep is missing, and the option keep of the plugin as well'
  })
  for (const [options, message] of [
    [{ keep: {} }, /options\/keep: must have a rule/],
    [{ keep: { lasst: 1 } }, /options\/keep\/lasst/],
    [{ keep: { last: 1 }, keepFailed: -1 }, /options\/keepFailed/],
    [{ keep: { last: 1 }, dryrun: true }, /options\/dryrun/],
    ['athena', /options/]
  ] as const)
    await t.rejects(dbBackups.prune(options as never), { code: 'DB_BACKUPS_INVALID_PARAMETER', message })
  t.equal((await dbBackups.list()).ids.length, 3)
  t.strictSame(events, [])
})

t.test('a dry run tells what the same call does, writes nothing and takes no lease', async (t) => {
  const shared = [0, 1].map((i) => `backup_chunk_${daysAgo(4)}_components_00000${i}`)
  const { dbBackups, events, on } = await setup(t, [
    { at: daysAgo(4), chunks: 3 },
    { at: daysAgo(3), shared },
    { at: daysAgo(2), shared: shared.slice(1) },
    { at: daysAgo(1) }
  ])
  const before = await on.fetchAll(on.names.system)
  const options = { keep: { last: 2 } }
  const told = await dbBackups.prune({ ...options, dryRun: true })
  t.strictSame(await on.fetchAll(on.names.system), before)
  t.strictSame(events, [])
  t.match(told, { dryRun: true, parts: 3, removed: [{ id: idOf(4) }, { id: idOf(3) }] })
  t.strictSame({ ...(await dbBackups.prune(options)), dryRun: true }, told)
})

t.test('failed backups do not count, and go after keepFailed', async (t) => {
  const failed = (at: number, end = at): Fabricated => ({
    at,
    header: { error: 'it failed', end_timestamp: end }
  })
  const now = Date.now()
  const backups = [
    failed(daysAgo(20)),
    failed(daysAgo(19), now - 6 * DAY),
    18,
    failed(now - DAY),
    failed(now - 1000)
  ]
  const { dbBackups } = await setup(t, backups)
  const options = { keep: { last: 1 } } as const
  const { removed, kept } = await dbBackups.prune(options)
  t.strictSame(removed, [{ id: idOf(20), reasons: ['failed'] }])
  t.match(kept, [
    { reasons: ['failed lately'] },
    { id: idOf(18), reasons: ['newest good backup', 'last 1'] },
    {},
    {}
  ])
  const later = await dbBackups.prune({ ...options, keepFailed: 3_600_000 })
  t.equal(later.removed.length, 2)
  t.equal((await dbBackups.prune({ ...options, keepFailed: 0 })).removed.length, 1)
  t.strictSame((await dbBackups.list()).ids, [idOf(18)], 'the newest good one stays')
})

t.test(
  'what is protected, in the future, or of another console stays; what was left in progress does not',
  async (t) => {
    const { dbBackups, on, stored } = await setup(t, [
      { at: daysAgo(9), header: { protected: true } },
      { at: daysAgo(8), header: { in_progress: true } },
      7,
      6,
      { at: Date.now() + DAY }
    ])
    const [foreign] = await fabricate(on, [{ at: daysAgo(10) }], 'another_system')
    const { removed, kept } = await dbBackups.prune({ keep: { last: 1 } })
    // Under the lease nothing is being made: the instance that began it has died long ago.
    t.match(removed, [{ id: idOf(8), reasons: ['failed'] }, { id: idOf(7) }])
    t.match(kept, [{ id: idOf(9), reasons: ['protected'] }, { id: idOf(6) }, { reasons: ['in the future'] }])
    t.equal(kept.length, 3)
    t.ok((await dbBackups.list()).ids.includes(foreign!))
    t.equal((await stored.parts()).length, 4)
  }
)

t.test("athena's backups are pruned only when that is asked for", async (t) => {
  const legacy = { storage: undefined, dbs: ATHENA }
  const { dbBackups } = await setup(t, [
    ...[5, 4].map((days) => ({ at: daysAgo(days), chunks: 0, header: legacy })),
    3,
    2
  ])
  const first = await dbBackups.prune({ keep: { last: 1 } })
  t.match(first, { removed: [{ id: idOf(3) }], kept: [{ reasons: ['made by athena'] }, {}, {}] })
  const second = await dbBackups.prune({ keep: { last: 2 }, legacy: true })
  t.strictSame(idsOf(second.removed), [idOf(5)])
  t.ok(second.freed_bytes > 100)
  t.strictSame((await dbBackups.list()).ids, [idOf(4), idOf(2)])
})

t.test('backups that share chunks are removed at once, but for what the others need', async (t) => {
  const chunk = (days: number, i = 0) => `backup_chunk_${daysAgo(days)}_components_00000${i}`
  const { dbBackups, stored } = await setup(t, [
    { at: daysAgo(5), chunks: 3 },
    { at: daysAgo(4), shared: [chunk(5, 0), chunk(5, 1)] },
    { at: daysAgo(3), shared: [chunk(5, 1), chunk(4)] },
    { at: daysAgo(2), shared: [chunk(5, 1), chunk(3)] },
    { at: daysAgo(1) }
  ])
  const { parts } = await dbBackups.prune({ keep: { last: 2 } })
  t.equal(parts, 3)
  const left = [chunk(5, 1), chunk(3), chunk(2), chunk(1)]
  t.strictSame(await stored.parts(), left.sort())
  t.strictSame(await stored.marked(), [idOf(5), idOf(3)])
  t.match(await dbBackups.prune({ keep: { last: 1 } }), { parts: 3, removed: [{ id: idOf(2) }] })
  t.strictSame(await stored.parts(), [chunk(1)])
  t.strictSame(await stored.marked(), [])
})

t.test('pruning is told by events, log and metrics', async (t) => {
  const lines: Record<string, unknown>[] = []
  const stream = { write: (line: string) => void lines.push(JSON.parse(line)) }
  const registry = new client.Registry()
  const { dbBackups, events } = await setup(t, [3, 2, 1], {
    metrics: { client, registry },
    server: { logger: { level: 'info', stream } } as HostOptions['server']
  })
  const outcome = await dbBackups.prune({ keep: { last: 1 } })
  t.match(events, [
    { type: 'prune_started', id: /^prune_/ },
    { type: 'prune_finished', outcome, durationMs: Number, retries: 0 }
  ])
  const told = lines.filter(({ event }) => String(event).startsWith('prune_'))
  t.match(told, [
    { msg: 'prune started' },
    { msg: 'prune finished', kept: 1, removed: 2, removedBackups: [idOf(3), idOf(2)], parts: 2 }
  ])
  const metrics = await registry.metrics()
  t.match(metrics, 'db_backups_pruned_total 2\n')
  t.match(metrics, `db_backups_freed_bytes_total ${outcome.freed_bytes}\n`)
  t.match(metrics, 'db_backups_duration_seconds_count{operation="prune",outcome="success"} 1\n')
  t.match(metrics, 'db_backups_failures_total{operation="prune"} 0\n')
  t.match(metrics, 'db_backups_in_progress{operation="prune"} 0\n')
  t.match(metrics, /db_backups_last_success_timestamp_seconds\{operation="prune"\} 1/)
})

/** Backups that are pruned at once. */
const MANY = extent(60, 200)

t.test(`${MANY} backups are pruned at once, and what they share is kept`, async (t) => {
  const at = (i: number) => daysAgo(MANY + 20) + i * DAY
  /** Each backup of 20 chunks lists half of those of the one before. */
  const backups = Array.from(
    { length: MANY + 10 },
    (_, i): Fabricated => ({
      at: at(i),
      chunks: 20,
      shared:
        i === 0
          ? []
          : Array.from(
              { length: 10 },
              (_, j) => `backup_chunk_${at(i - 1)}_components_${String(j).padStart(6, '0')}`
            )
    })
  )
  const { dbBackups, stored } = await setup(t, backups)
  const began = performance.now()
  const outcome: PruneOutcome = await dbBackups.prune({ keep: { last: 10 } })
  t.comment(`${Math.round(performance.now() - began)} ms`)
  t.equal(outcome.removed.length, MANY)
  t.equal(outcome.parts, (MANY - 1) * 20 + 10)
  t.equal((await stored.parts()).length, 10 * 20 + 10)
  t.equal((await stored.marked()).length, 1)
})

t.test('what athena could not read whole, or left in progress, counts as failed', async (t) => {
  const athenas = (days: number, header: object) => ({
    at: daysAgo(days),
    chunks: 0,
    header: { storage: undefined, dbs: ATHENA, ...header }
  })
  const { athena_system: _, ...two } = ATHENA
  const { dbBackups } = await setup(t, [
    athenas(9, {}),
    athenas(8, { in_progress: true }),
    athenas(3, { dbs: {} }),
    athenas(2, { dbs: two })
  ])
  const prune = (more: object) => dbBackups.prune({ keep: { last: 1 }, legacy: true, dryRun: true, ...more })
  t.match((await prune({})).kept, [
    { id: idOf(9), reasons: ['newest good backup', 'last 1'] },
    { id: idOf(3), reasons: ['failed lately'] },
    { id: idOf(2), reasons: ['failed lately'] }
  ])
  t.strictSame(idsOf((await prune({ keepFailed: 0 })).removed), [8, 3, 2].map(idOf))
  await dbBackups.remove(idOf(2))
  await dbBackups.remove(idOf(8))
  t.strictSame((await dbBackups.list()).ids, [idOf(9), idOf(3)])
})

t.test('a removed backup whose header was in conflict does not come back', async (t) => {
  const { dbBackups, stored } = await setup(t, [3, 2, 1])
  const header = await stored.header(idOf(2))
  const athenas = { type: 'athena_backup', dbs: ATHENA, in_progress: false }
  await stored.db.bulk({
    new_edits: false,
    docs: [
      { ...header, _rev: `1-${'0'.repeat(32)}`, note: 'of a replication' },
      { ...header, _rev: `1-${'1'.repeat(32)}`, note: 'of another' },
      { ...athenas, _id: idOf(9), _rev: `1-${'0'.repeat(32)}` },
      { ...athenas, _id: idOf(9), _rev: `1-${'f'.repeat(32)}` }
    ]
  } as never)
  await dbBackups.remove(idOf(2))
  await dbBackups.remove(idOf(9))
  t.strictSame((await dbBackups.list()).ids, [idOf(3), idOf(1)])
  await t.rejects(dbBackups.get(idOf(9)), { code: 'DB_BACKUPS_NOT_FOUND' })
  await t.rejects(dbBackups.get(idOf(2)), { code: 'DB_BACKUPS_NOT_FOUND' })
  t.strictSame(await stored.parts(idOf(2)), [])
})
