import fc from 'fast-check'
import t from 'tap'
import { decide, type KeepCandidate, type KeepOptions } from '../lib/retention/keep-rules.js'
import type { KeepRules } from '../types/index.js'
import { cases } from './helpers/settings.js'

const HOUR = 3_600_000
const DAY = 24 * HOUR
const NOW = Date.UTC(2026, 10, 27, 12)

const backup = (time: string | number, more: Partial<KeepCandidate> = {}): KeepCandidate => ({
  id: String(time),
  at: typeof time === 'string' ? Date.parse(`${time}Z`) : time,
  state: 'good',
  protected: false,
  legacy: false,
  ...more
})

function decided(candidates: KeepCandidate[], keep: KeepOptions['keep'], more: Partial<KeepOptions> = {}) {
  return decide(candidates, { keep, keepFailed: 7 * DAY, legacy: false, now: NOW, ...more })
}

const kept = (...args: Parameters<typeof decided>): string[] =>
  decided(...args).flatMap(({ id, keep }) => (keep ? [id] : []))

const reasonsOf = (...args: Parameters<typeof decided>) =>
  Object.fromEntries(decided(...args).map(({ id, reasons }) => [id, reasons]))

/** The example in restic's manual, "Removing snapshots according to a policy". */
const MANUAL = [
  '2025-04-21T11:00',
  '2025-04-22T11:00',
  '2025-04-23T11:00',
  '2025-04-24T11:00',
  '2025-04-25T11:00',
  '2025-04-25T23:00',
  '2025-04-28T11:00',
  '2025-04-29T11:00',
  '2025-05-01T11:00',
  '2025-05-02T11:00',
  '2025-05-02T23:00'
].map((time) => backup(time))

t.test("the example of restic's manual: days without a backup do not count", async (t) => {
  t.strictSame(kept(MANUAL, { daily: 5 }), [
    '2025-04-25T23:00',
    '2025-04-28T11:00',
    '2025-04-29T11:00',
    '2025-05-01T11:00',
    '2025-05-02T23:00'
  ])
})

t.test("daily backups of 56 years, as restic's manual reckons with a hundred", async (t) => {
  const days: KeepCandidate[] = []
  for (let at = Date.UTC(1970, 10, 28); at <= NOW; at += DAY) days.push(backup(at))
  const ids = kept(days, { daily: 7, weekly: 5, monthly: 12, yearly: 40 })
  const ages = ids.map((id) => Math.round((NOW - 12 * HOUR - Number(id)) / DAY)).reverse()
  // Friday 27 November 2026 ends a week, a month and a year that are not over.
  t.strictSame(ages.slice(0, 12), [0, 1, 2, 3, 4, 5, 6, 12, 19, 26, 27, 58])
  // 7 daily; of 5 weekly this and last week's are daily; of 12 monthly this one; of 40 yearly this one and December's.
  t.equal(ids.length, 7 + 3 + 11 + 38)
})

t.test('each rule keeps the newest of its periods, and says which', async (t) => {
  const reasons = reasonsOf(MANUAL, { last: 1, hourly: 1, daily: 1, weekly: 2, monthly: 2, yearly: 1 })
  t.strictSame(reasons['2025-05-02T23:00'], [
    'newest good backup',
    'last 1',
    'hourly 2025-05-02T23+00:00',
    'daily 2025-05-02',
    'weekly 2025-W18',
    'monthly 2025-05',
    'yearly 2025'
  ])
  t.strictSame(reasons['2025-04-25T23:00'], ['weekly 2025-W17'])
  t.strictSame(reasons['2025-04-29T11:00'], ['monthly 2025-04'])
  t.strictSame(reasons['2025-05-02T11:00'], ['no rule keeps it'])
})

t.test('as long as a rule is not filled it keeps the oldest backup as well', async (t) => {
  const daily = MANUAL.slice(0, 6)
  t.strictSame(kept(daily, { daily: 5 }).length, 5, 'five days fill it')
  t.strictSame(reasonsOf(daily, { weekly: 2 })['2025-04-21T11:00'], ['oldest weekly'])
  t.strictSame(kept(daily, { weekly: 1 }), ['2025-04-25T23:00'])
  t.strictSame(kept(daily, { monthly: 12 }), ['2025-04-21T11:00', '2025-04-25T23:00'])
  const [first] = MANUAL
  t.strictSame(reasonsOf([first!], { weekly: 2 })[first!.id], ['newest good backup', 'weekly 2025-W17'])
  t.strictSame(
    reasonsOf(daily, { last: 9 })['2025-04-21T11:00'],
    ['last 9'],
    'the last so many need no such rule'
  )
})

t.test('within counts back from the newest good backup, not from now', async (t) => {
  t.strictSame(kept(MANUAL, { within: '1d' }), ['2025-05-02T11:00', '2025-05-02T23:00'])
  t.strictSame(
    kept(MANUAL, { within: '3d12h' }),
    ['2025-05-01T11:00', '2025-05-02T11:00', '2025-05-02T23:00'],
    'a backup of just that age goes, as in restic'
  )
  t.equal(kept(MANUAL, { within: '3d13h' }).length, 4)
  t.strictSame(reasonsOf(MANUAL, { within: '12h' })['2025-05-02T11:00'], ['no rule keeps it'])
  t.strictSame(reasonsOf(MANUAL, { within: '13h' })['2025-05-02T11:00'], ['within 13h'])
})

t.test('rules of 0 are none, and rules add up', async (t) => {
  const newest = ['2025-05-02T23:00']
  t.strictSame(kept(MANUAL, { daily: 0, within: '0d', last: 1 }), newest)
  t.strictSame(kept(MANUAL, { yearly: 1, last: 2 }), ['2025-05-02T11:00', ...newest])
})

t.test('failed backups fill no rule, and go by the time when they ended', async (t) => {
  const failed = (id: string, days: number, endedAt?: number) =>
    backup(NOW - days * DAY, { id, state: 'failed', endedAt })
  const candidates = [
    backup(NOW - 20 * DAY, { id: 'good' }),
    failed('old', 8, NOW - 7.5 * DAY),
    failed('ended lately', 8, NOW - 6.5 * DAY),
    failed('of unknown end', 8),
    failed('began lately', 6),
    failed('ended just then', 9, NOW - 7 * DAY)
  ]
  t.strictSame(reasonsOf(candidates, { last: 1 }), {
    good: ['newest good backup', 'last 1'],
    old: ['failed'],
    'ended lately': ['failed lately'],
    'of unknown end': ['failed'],
    'began lately': ['failed lately'],
    'ended just then': ['failed lately']
  })
  t.strictSame(kept(candidates, { last: 9 }, { keepFailed: 0 }), ['good'])
})

t.test('protected and running backups stay; a protected one fills rules as any other', async (t) => {
  const old = NOW - 400 * DAY
  // In the order of time and id.
  const candidates = [
    backup(old, { id: 'failed', state: 'failed', protected: true }),
    backup(old, { id: 'plain' }),
    backup(old, { id: 'running', state: 'running' }),
    backup(old + 1, { id: 'protected', protected: true }),
    backup(NOW - 2, { id: 'same day' }),
    backup(NOW - 1, { id: 'newest', protected: true })
  ]
  t.strictSame(reasonsOf(candidates, { daily: 1 }), {
    running: ['running'],
    failed: ['protected'],
    plain: ['no rule keeps it'],
    protected: ['protected'],
    'same day': ['no rule keeps it'],
    newest: ['protected', 'newest good backup', 'daily 2026-11-27']
  })
  const plain = candidates.map((candidate) => ({ ...candidate, protected: false }))
  for (const keep of [{ daily: 1 }, { last: 2 }, { weekly: 3 }, 'athena'] as const) {
    const without = new Set(kept(plain, keep))
    const ids = candidates.filter((candidate) => candidate.protected || without.has(candidate.id))
    t.strictSame(
      kept(candidates, keep),
      ids.map(({ id }) => id),
      'protecting changes nothing for others'
    )
  }
})

t.test("athena's backups take no place of the plugin's unless they may be pruned", async (t) => {
  const candidates = [
    backup(NOW - 3 * DAY, { id: 'own, old' }),
    backup(NOW - 2 * DAY, { id: 'own' }),
    backup(NOW - DAY, { id: 'legacy, failed', state: 'failed', legacy: true, endedAt: 1 }),
    backup(NOW - HOUR, { id: 'legacy', legacy: true }),
    backup(NOW - 1, { id: 'legacy, newest', legacy: true })
  ]
  t.strictSame(kept(candidates, { last: 1 }), ['own', 'legacy, failed', 'legacy', 'legacy, newest'])
  t.strictSame(kept(candidates, { last: 1 }, { legacy: true }), ['legacy, newest'])
  t.strictSame(reasonsOf(candidates, { last: 1 }).legacy, ['made by athena'])
})

t.test('backups of the future and of unknown times stay, and take no place of others', async (t) => {
  const odd = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 8.64e15 + 1, -1, 0]
  const candidates = [
    ...odd.map((at, i) => backup(at, { id: `odd ${i}` })),
    ...odd.map((at, i) => backup(at, { id: `odd failed ${i}`, state: 'failed', endedAt: at })),
    backup(NOW + 1, { id: 'future' }),
    backup(8.64e15, { id: 'last day' }),
    backup(NOW + 1, { id: 'failed in the future', state: 'failed' }),
    backup(NOW, { id: 'now' }),
    backup(NOW - DAY, { id: 'yesterday' }),
    backup(1, { id: 'first day' })
  ]
  for (const keep of [{ last: 1 }, { hourly: 1 }, { within: '1h' }] as const) {
    const reasons = reasonsOf(candidates, keep, { keepFailed: 0 })
    for (const i of odd.keys()) {
      t.strictSame(reasons[`odd ${i}`], ['unknown time'])
      t.strictSame(reasons[`odd failed ${i}`], ['unknown time'])
    }
    for (const id of ['future', 'last day']) t.strictSame(reasons[id], ['in the future'])
    t.strictSame(reasons['failed in the future'], ['failed lately'])
    t.ok(reasons.now!.includes('newest good backup'))
    for (const id of ['yesterday', 'first day']) t.strictSame(reasons[id], ['no rule keeps it'])
  }
  t.strictSame(kept(candidates.slice(-1), { yearly: 1, within: '999y9999m99999d999999h' }), ['first day'])
})

t.test('the backup that was made last stays, where the clock was set back before it', async (t) => {
  const id = (stamp: number) => `03_ibp_db_backup_${stamp}`
  const nights = Array.from({ length: 9 }, (_, i) => backup(NOW - i * DAY, { id: id(NOW - i * DAY) }))
  const last = backup(NOW - 400 * DAY, { id: id(NOW + 1) })
  const reasons = reasonsOf([last, ...nights], { daily: 3 })
  t.strictSame(reasons[last.id], ['newest good backup'])
  t.equal(kept([last, ...nights], { daily: 3 }).length, 4)
  const longer = backup(NOW - 500 * DAY, { id: id(10 ** 13) })
  t.ok(kept([longer, last, ...nights], { daily: 3 }).includes(longer.id), 'a longer number is a larger one')
})

t.test('of backups of one time the one with the later id is the newer', async (t) => {
  const ids = ['b', 'a', 'd', 'c']
  const candidates = ids.map((id) => backup(NOW, { id }))
  t.strictSame(kept(candidates, { last: 2 }), ['c', 'd'])
  t.strictSame(kept(candidates, { daily: 1 }), ['d'])
  t.strictSame(
    decided(candidates, { last: 9 }).map(({ id }) => id),
    [...ids].sort()
  )
  t.strictSame(decided([], { last: 9 }), [])
})

const DEEP = 3 * 366
const arbitraryRules: fc.Arbitrary<KeepRules> = fc.record(
  {
    last: fc.nat(9),
    hourly: fc.nat(30),
    daily: fc.nat(9),
    weekly: fc.nat(6),
    monthly: fc.nat(14),
    yearly: fc.nat(3),
    within: fc.constantFrom('0h', '5h', '30d', '1m3d', '1y', '1y5m7d2h'),
    timezone: fc.constantFrom('UTC', 'Europe/Berlin', 'Australia/Lord_Howe', 'America/St_Johns')
  },
  { requiredKeys: [] }
)
const arbitraryKeep = fc.oneof({ weight: 4, arbitrary: arbitraryRules }, fc.constant('athena' as const))
/** Many within some hours, others over three years, some of no use. */
const arbitraryTime = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: -DEEP * 24, max: 0 }).map((hours) => NOW + hours * HOUR) },
  { weight: 4, arbitrary: fc.integer({ min: -3 * DAY, max: 0 }).map((ms) => NOW + ms) },
  { weight: 1, arbitrary: fc.constantFrom(Number.NaN, NOW + DAY, Number.POSITIVE_INFINITY, -1, 0) }
)
const arbitraryCandidates = fc
  .array(
    fc.record({
      at: arbitraryTime,
      state: fc.constantFrom(
        'good' as const,
        'good' as const,
        'good' as const,
        'failed' as const,
        'running' as const
      ),
      endedAt: fc.option(arbitraryTime, { nil: undefined }),
      protected: fc.nat(7).map((n) => n === 0),
      legacy: fc.nat(5).map((n) => n === 0)
    }),
    { maxLength: 60 }
  )
  .map((candidates) => candidates.map((candidate, i): KeepCandidate => ({ id: `${i}`, ...candidate })))
const arbitraryOptions = fc.record({
  keep: arbitraryKeep,
  keepFailed: fc.constantFrom(0, DAY, 7 * DAY),
  legacy: fc.boolean(),
  now: fc.constant(NOW)
})

const keptOf = (candidates: KeepCandidate[], options: KeepOptions) => {
  const ids = new Set(decide(candidates, options).flatMap(({ id, keep }) => (keep ? [id] : [])))
  return candidates.filter(({ id }) => ids.has(id))
}

t.test('whatever the rules, what must stay stays', async () => {
  fc.assert(
    fc.property(arbitraryCandidates, arbitraryOptions, (candidates, options) => {
      const decisions = decide(candidates, options)
      const goes = new Set(decisions.flatMap(({ id, keep }) => (keep ? [] : [id])))
      const good = candidates.filter(({ state, at }) => state === 'good' && at <= NOW)
      const newest = Math.max(...good.map(({ at }) => at))
      return (
        decisions.length === candidates.length &&
        decisions.every(({ reasons }) => reasons.length > 0) &&
        candidates
          .filter(({ id }) => goes.has(id))
          .every(
            (candidate) =>
              !candidate.protected &&
              candidate.state !== 'running' &&
              (options.legacy || !candidate.legacy) &&
              !(candidate.state === 'good' && Number.isNaN(candidate.at))
          ) &&
        (good.length === 0 || good.some(({ id, at }) => at === newest && !goes.has(id)))
      )
    }),
    { numRuns: cases(150) }
  )
})

t.test('a further rule, or a higher number, deletes nothing more', async () => {
  const rule = fc.constantFrom('last', 'hourly', 'daily', 'weekly', 'monthly', 'yearly')
  fc.assert(
    fc.property(
      arbitraryCandidates,
      arbitraryOptions,
      arbitraryRules,
      rule,
      fc.nat(9),
      (candidates, options, rules, name, more) => {
        const few = keptOf(candidates, { ...options, keep: rules })
        const raised = {
          ...rules,
          [name]: (rules[name as 'last'] ?? 0) + more,
          within: rules.within ?? '40d'
        }
        const many = new Set(keptOf(candidates, { ...options, keep: raised }))
        return few.every((candidate) => many.has(candidate))
      }
    ),
    { numRuns: cases(150) }
  )
})

t.test('a clock that was ahead and went back decides nothing about what others made', async (t) => {
  const runs = fc.record({
    before: fc.nat(40),
    ahead: fc.array(fc.integer({ min: HOUR, max: 800 * DAY }), { minLength: 1, maxLength: 3 }),
    after: fc.integer({ min: 1, max: 20 }),
    keep: arbitraryKeep
  })
  fc.assert(
    fc.property(runs, ({ before, ahead, after, keep }) => {
      const nights = before + ahead.length + after
      let last = 0
      // As ids are chosen: by the clock, and later than any before.
      const made = Array.from({ length: nights }, (_, night) => {
        const at = NOW - (nights - 1 - night) * DAY + (ahead[night - before] ?? 0)
        last = Math.max(last + 1, at)
        return backup(at, { id: `03_ibp_db_backup_${last}` })
      })
      const now = NOW + HOUR / 2
      const decisions = decided(made, keep, { now })
      const isAhead = ({ id }: { id: string }) => made.some((one) => one.id === id && one.at > now)
      const without = decided(
        made.filter((one) => !isAhead(one)),
        keep,
        { now }
      )
      t.strictSame(
        decisions.filter((one) => !isAhead(one)),
        without
      )
      t.ok(decisions.filter(isAhead).every(({ reasons }) => reasons.includes('in the future')))
    }),
    { numRuns: cases(100) }
  )
})

t.test('rules applied to what they kept delete nothing', async () => {
  fc.assert(
    fc.property(arbitraryCandidates, arbitraryOptions, (candidates, options) => {
      const once = keptOf(candidates, options)
      return keptOf(once, options).length === once.length
    }),
    { numRuns: cases(300) }
  )
})

t.test('the order in which backups are given does not matter', async (t) => {
  fc.assert(
    fc.property(arbitraryCandidates, arbitraryOptions, (candidates, options) => {
      t.strictSame(decide([...candidates].reverse(), options), decide(candidates, options))
    }),
    { numRuns: cases(25) }
  )
})

t.test('no more are kept than the rules name, and the one that was made last', async () => {
  fc.assert(
    fc.property(arbitraryCandidates, arbitraryRules, (candidates, rules) => {
      const plain = candidates
        .filter(({ at }) => at > 0 && at <= NOW)
        .map((candidate) => ({ ...candidate, state: 'good', protected: false, legacy: false }) as const)
      const { last = 0, hourly = 0, daily = 0, weekly = 0, monthly = 0, yearly = 0 } = rules
      const most = last + hourly + daily + weekly + monthly + yearly
      const keep = { last, hourly, daily, weekly, monthly, yearly }
      return keptOf(plain, { keep, keepFailed: 0, legacy: true, now: NOW }).length <= Math.max(1, most) + 1
    }),
    { numRuns: cases(100) }
  )
})

t.test('three years of nights with 7 daily, 4 weekly and 12 monthly', async (t) => {
  const keep = { daily: 7, weekly: 4, monthly: 12 }
  let stored: KeepCandidate[] = []
  const counts = new Set<number>()
  for (let night = 0; night < DEEP; night++) {
    const at = Date.UTC(2026, 0, 1, 1) + night * DAY
    const made = backup(at)
    stored = keptOf([...stored, made], { keep, keepFailed: 0, legacy: false, now: at + HOUR })
    if (night < 7) t.equal(stored.length, night + 1)
    if (night < 366) continue
    counts.add(stored.length)
    const days = stored.map((candidate) => (at - candidate.at) / DAY).reverse()
    t.strictSame(days.slice(0, 7), [0, 1, 2, 3, 4, 5, 6])
    const sundays = stored.filter((candidate) => new Date(candidate.at).getUTCDay() === 0)
    t.ok(sundays.length >= 3, 'three weeks that are over')
    const months = new Set(stored.map((candidate) => new Date(candidate.at).toISOString().slice(0, 7)))
    t.equal(months.size, 12)
  }
  t.strictSame([...counts].sort(), [19, 20, 21])
})
