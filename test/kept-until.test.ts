import fc from 'fast-check'
import t, { type Test } from 'tap'
import { decide, type KeepCandidate, type KeepOptions } from '../lib/retention/keep-rules.js'
import { type Foresight, HORIZON, keptUntil } from '../lib/retention/kept-until.js'
import { atOnce } from '../lib/waits/steps.js'
import type { DbBackupsOptions, KeptBackup } from '../types/index.js'
import { setupDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { cases } from './helpers/settings.js'
import { fabricate } from './helpers/stored-backups.js'

const HOUR = 3_600_000
const DAY = 24 * HOUR
const NOW = Date.UTC(2026, 10, 27, 12)
const RULES: KeepOptions = { keep: { last: 3 }, keepFailed: 7 * DAY, legacy: false, now: NOW }

const backup = (at: number, more: Partial<KeepCandidate> = {}): KeepCandidate => ({
  id: `backup ${at}`,
  at,
  state: 'good',
  protected: false,
  legacy: false,
  ...more
})

/** Yields the coming nights at 01:00 UTC. */
function* nights(every = DAY): Generator<number> {
  for (let night = Date.UTC(2026, 10, 28, 1); ; night += every) yield night
}

const foreseen = (
  candidates: KeepCandidate[],
  rules: Partial<KeepOptions> = {},
  runs: Iterable<number> = nights()
): Foresight => atOnce(keptUntil(candidates, { ...RULES, ...rules }, runs))

const daysAgo = (days: number) => NOW - days * DAY
/** The `number`th of the coming nights, from 1 on. */
const night = (number: number) => Date.UTC(2026, 10, 27 + number, 1)

/** Prunes after a backup in each of so many nights, and returns on which night each goes. */
function simulated(candidates: readonly KeepCandidate[], rules: KeepOptions, most: number) {
  const gone = new Map<string, number>()
  let stored = [...candidates]
  for (let number = 1; number <= most; number++) {
    const now = night(number)
    stored = [...stored, backup(now, { id: `new backup ${now}` })]
    const removed = decide(stored, { ...rules, now }).filter(({ keep }) => !keep)
    for (const { id } of removed) if (!id.startsWith('new')) gone.set(id, now)
    stored = stored.filter(({ id }) => removed.every((one) => one.id !== id))
  }
  return gone
}

t.test('each backup goes on the night that was told, whatever the rules', async () => {
  const amount = fc.integer({ min: 0, max: 6 })
  const rules = fc
    .record({
      last: amount,
      hourly: amount,
      daily: amount,
      weekly: amount,
      monthly: amount,
      yearly: fc.integer({ min: 0, max: 2 }),
      within: fc.constantFrom('0d', '36h', '9d', '1m3d'),
      timezone: fc.constantFrom('UTC', 'Europe/Berlin', 'Pacific/Apia')
    })
    .filter(
      ({ timezone: _timezone, within, ...amounts }) => within !== '0d' || Object.values(amounts).some(Boolean)
    )
  const candidate = fc.record({
    at: fc.oneof(
      { weight: 9, arbitrary: fc.integer({ min: NOW - 900 * DAY, max: NOW }) },
      { weight: 1, arbitrary: fc.integer({ min: 0, max: NOW + 90 * DAY }) }
    ),
    state: fc.constantFrom('good', 'good', 'good', 'failed') as fc.Arbitrary<'good' | 'failed'>,
    protected: fc.integer({ min: 0, max: 5 }).map((n) => n === 0),
    legacy: fc.boolean()
  })
  const NIGHTS = 70
  fc.assert(
    fc.property(
      fc.uniqueArray(candidate, { maxLength: 25, selector: ({ at }) => at }),
      fc.oneof(rules, fc.constant('athena' as const)),
      fc.boolean(),
      (found, keep, legacy) => {
        const candidates = found.map(({ at, ...more }) => backup(at, more))
        const options = { ...RULES, keep, legacy }
        const { goes } = foreseen(candidates, options)
        const told = [...goes].filter(([, at]) => at <= night(NIGHTS)).sort()
        const done = [...simulated(candidates, options, NIGHTS)].sort()
        if (JSON.stringify(told) !== JSON.stringify(done))
          throw new Error(`told ${JSON.stringify(told)}, done ${JSON.stringify(done)}`)
      }
    ),
    { numRuns: cases(20) }
  )
})

t.test('the last three go one a night', async (t) => {
  const candidates = [0, 1, 2].map((days) => backup(daysAgo(days)))
  const { goes, foreseen: until } = foreseen(candidates)
  t.strictSame(
    candidates.map(({ id }) => goes.get(id)),
    [night(3), night(2), night(1)]
  )
  t.equal(until, NOW + HORIZON)
})

t.test('a backup that is being made counts as a good one', async (t) => {
  const running = backup(NOW - 1, { state: 'running' })
  t.strictSame(
    [...foreseen([backup(daysAgo(1)), running]).goes],
    [
      [backup(daysAgo(1)).id, night(2)],
      [running.id, night(3)]
    ]
  )
})

t.test(
  'no time is told of what stays: protected, of athena, or for longer than is looked ahead',
  async (t) => {
    const candidates = [
      backup(daysAgo(1), { protected: true }),
      backup(daysAgo(2), { legacy: true }),
      backup(daysAgo(3)),
      backup(daysAgo(900), { state: 'failed' })
    ]
    const { goes, foreseen: until } = foreseen(candidates, { keep: { yearly: 4 } })
    t.strictSame([...goes], [[candidates[3].id, night(1)]])
    t.equal(until, NOW + HORIZON)
  }
)

t.test('without a run nothing goes', async (t) => {
  t.strictSame(foreseen([backup(daysAgo(900))], {}, []).goes, new Map())
})

t.test('the look ahead ends where it takes too long, and says how far it went', async (t) => {
  const runs = nights(HOUR)
  const { goes, foreseen: until } = foreseen([backup(daysAgo(1))], { keep: { within: '1y' } }, runs)
  t.equal(goes.size, 0)
  t.ok(until > NOW + 30 * DAY && until < NOW + HORIZON, String((until - NOW) / DAY))
  t.ok(runs.next().done, 'no further time is asked for')
})

/** Builds a host with a backup of noon of each of so many days ago, and returns what a dry run tells. */
async function dryRun(t: Test, days: number[], options: Partial<DbBackupsOptions>) {
  const on = await setupDatabases(t)
  const newest = Date.now() - HOUR
  await fabricate(
    on,
    days.map((ago) => ({ at: newest - ago * DAY }))
  )
  const { app } = await buildHost(t, { on, ...options })
  return { app, outcome: await app.dbBackups.prune({ keep: { last: 2 }, dryRun: true }) }
}

const untilOf = (kept: KeptBackup[]) => kept.map(({ until }) => until)

t.test('a dry run of pruning tells until when each backup stays, by the schedule', async (t) => {
  // Due in one or two hours: the newest backup does for the last run.
  const cron = `30 ${(new Date().getUTCHours() + 2) % 24} * * *`
  const { app, outcome } = await dryRun(t, [2, 1, 0], { schedule: { cron } })
  const { next } = app.dbBackups.schedule ?? { next: Number.NaN }
  const { kept, removed } = outcome
  t.equal(removed.length, 1)
  t.strictSame(untilOf(kept), [next, next + DAY])
  t.ok(Number(outcome.foreseen) > Date.now() + 399 * DAY)
  t.notOk('foreseen' in (await app.dbBackups.prune({ keep: { last: 2 } })), 'a pruning tells nothing of it')
})

t.test('a run that a younger backup makes needless removes nothing', async (t) => {
  const schedule = { cron: '30 * * * *', unlessYoungerThan: 36 * HOUR }
  const { app, outcome } = await dryRun(t, [1, 0], { schedule })
  const { next } = app.dbBackups.schedule ?? { next: Number.NaN }
  const [first, second] = untilOf(outcome.kept) as number[]
  t.ok(first >= next)
  t.ok(second - first >= 36 * HOUR && second - first <= 37 * HOUR, `${(second - first) / HOUR} hours`)
})

t.test('a dry run tells until when each backup stays also where runs are late by chance', async (t) => {
  const cron = `30 ${(new Date().getUTCHours() + 2) % 24} * * *`
  const { app, outcome } = await dryRun(t, [2, 1, 0], { schedule: { cron, jitter: 1000 } })
  t.equal(untilOf(outcome.kept)[0], app.dbBackups.schedule?.next)
})

t.test('without a schedule a dry run tells no time', async (t) => {
  const { outcome } = await dryRun(t, [1, 0], {})
  t.notOk('foreseen' in outcome)
  t.strictSame(untilOf(outcome.kept), [undefined, undefined])
})
