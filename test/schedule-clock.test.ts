import fc from 'fast-check'
import t from 'tap'
import { DueTimes } from '../lib/schedule/due-times.js'
import { MOST_AHEAD, Plan } from '../lib/schedule/plan.js'
import {
  buildScheduled,
  HOUR,
  idle,
  isGood,
  MINUTE,
  SECOND,
  summariesOf,
  TestClock
} from './helpers/scheduled.js'
import { cases, extent } from './helpers/settings.js'

const DAY = 24 * HOUR
const iso = (time: number) => new Date(time).toISOString().replace(':00.000Z', 'Z')

/** Returns when a plan sees to something, looking each minute for as long as this. */
function seenTo(cron: string, timezone: string, from: string, ms = DAY): string[] {
  const plan = new Plan(new DueTimes(cron, timezone), 0)
  const begin = Date.parse(from)
  plan.look(begin)
  const first = plan.pending
  if (first !== undefined) plan.over(first)
  const seen: string[] = []
  for (let now = begin; now < begin + ms; now += plan.wait(now)) {
    const due = plan.look(now)
    if (due === undefined) continue
    seen.push(iso(now))
    plan.over(due)
  }
  return seen
}

t.test(
  'a time that comes twice, or not at all, when clocks are changed gives exactly one backup',
  async (t) => {
    const nights: [cron: string, zone: string, noon: string, seen: string][] = [
      // Not there: right after the hour that is left out.
      ['30 2 * * *', 'Europe/Berlin', '2027-03-27T12:00Z', '2027-03-28T01:00Z'],
      ['0 2 * * *', 'Europe/Berlin', '2027-03-27T12:00Z', '2027-03-28T01:00Z'],
      ['30 2 * * *', 'America/New_York', '2027-03-13T17:00Z', '2027-03-14T07:00Z'],
      ['15 2 * * *', 'Australia/Lord_Howe', '2027-10-02T03:00Z', '2027-10-02T15:30Z'],
      ['30 3 * * *', 'Europe/Helsinki', '2027-03-27T12:00Z', '2027-03-28T01:00Z'],
      // Twice: the first time.
      ['30 2 * * *', 'Europe/Berlin', '2027-10-30T12:00Z', '2027-10-31T00:30Z'],
      ['30 1 * * *', 'America/New_York', '2027-11-06T17:00Z', '2027-11-07T05:30Z'],
      ['45 1 * * *', 'Australia/Lord_Howe', '2027-04-03T03:00Z', '2027-04-03T14:45Z'],
      // Every other night.
      ['30 2 * * *', 'Europe/Berlin', '2027-05-01T12:00Z', '2027-05-02T00:30Z'],
      ['30 2 * * *', 'Australia/Lord_Howe', '2027-05-01T03:00Z', '2027-05-01T16:00Z']
    ]
    for (const [cron, zone, noon, seen] of nights)
      t.strictSame(seenTo(cron, zone, noon), [seen], `${cron} ${zone} ${noon}`)
  }
)

t.test('each of several hours comes once when clocks are changed, each quarter as it passes', async (t) => {
  const lists = seenTo('30 1,2,3 * * *', 'Europe/Berlin', '2027-10-30T12:00Z')
  t.strictSame(lists, ['2027-10-30T23:30Z', '2027-10-31T00:30Z', '2027-10-31T02:30Z'])
  const quarters = seenTo('*/15 * * * *', 'Europe/Berlin', '2027-10-30T23:50Z', 4 * HOUR)
  t.equal(quarters.length, 16)
  t.equal(seenTo('*/15 * * * *', 'Europe/Berlin', '2027-03-27T23:50Z', 4 * HOUR).length, 16)
})

t.test('the latest due time and the next one are of one series', (t) => {
  const zones = [
    'UTC',
    'Europe/Berlin',
    'America/New_York',
    'Australia/Lord_Howe',
    'Africa/Cairo',
    'America/Santiago'
  ]
  const crons = [
    '30 2 * * *',
    '0 0 * * *',
    '30 1,2,14 * * *',
    '*/7 * * * *',
    '0 3 * * 1#1',
    '0 0 L * *',
    '59 23 29 2 *'
  ]
  const time = fc.integer({ min: Date.parse('2025-01-01'), max: Date.parse('2029-01-01') })
  fc.assert(
    fc.property(fc.constantFrom(...zones), fc.constantFrom(...crons), time, (zone, cron, time) => {
      const times = new DueTimes(cron, zone)
      const next = times.after(time)
      if (next <= time) throw new Error(`${iso(next)} is not after ${iso(time)}`)
      if (times.latest(next) !== next) throw new Error(`${iso(next)} comes, and has not come`)
      if (times.latest(next - 1) !== times.latest(time))
        throw new Error(`one between ${iso(time)} and the next`)
    }),
    { numRuns: cases(extent(40, 80)) }
  )
  t.pass('in 300 cases')
  t.end()
})

const step = fc.oneof(
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('wake' as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('pass' as const), ms: fc.integer({ min: 1, max: 3 * DAY }) })
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('set' as const), ms: fc.integer({ min: -DAY, max: 3 * DAY }) })
  }
)
const outcome = fc.constantFrom('over' as const, 'busy' as const, 'failed' as const)

t.test('whatever the clock does, a due time is over at most once, and the latest is seen to', (t) => {
  const times = new Map(
    ['0 1 * * *', '*/10 * * * *', '0 */6 * * *', '30 2 * * *'].map((cron) => [
      cron,
      new DueTimes(cron, 'Europe/Berlin')
    ])
  )
  const runs = fc.record({
    cron: fc.constantFrom(...times.keys()),
    jitter: fc.integer({ min: 0, max: 9 * MINUTE }),
    steps: fc.array(fc.tuple(step, outcome), { maxLength: 60 }),
    chance: fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true })
  })
  fc.assert(
    fc.property(runs, ({ cron, jitter, steps, chance }) => {
      const due = times.get(cron)!
      const plan = new Plan(due, jitter, () => chance)
      const over = new Set<number>()
      let now = Date.parse('2027-03-27T12:00Z')
      let latest = now
      const look = (result: 'over' | 'busy' | 'failed') => {
        const seen = plan.look(now)
        if (seen === undefined) return
        if (over.has(seen)) throw new Error(`${iso(seen)} is over already`)
        if (seen !== due.latest(now)) throw new Error(`${iso(seen)} is not the latest`)
        if (result === 'over') over.add(seen)
        plan[result](seen, now)
      }
      for (const [next, result] of steps) {
        const wait = plan.wait(now)
        if (wait < 1 || wait > MINUTE) throw new Error(`waits ${wait} ms`)
        now += next.kind === 'wake' ? wait : next.ms
        // Set back by more than a day, all is new.
        now = Math.max(now, latest - MOST_AHEAD)
        latest = Math.max(latest, now)
        look(result)
      }
      // Without a change of the clock, the longest retry is over in an hour.
      for (const end = now + HOUR + MINUTE; now < end; now += plan.wait(now)) look('over')
      const last = due.latest(now)!
      if (now - last > jitter + MINUTE && Math.max(...over) < last) throw new Error(`${iso(last)} was missed`)
    }),
    { numRuns: cases(extent(75, 150)) }
  )
  t.pass('in 500 cases')
  t.end()
})

t.test('a clock that was years ahead stops no schedule', async (t) => {
  const plan = new Plan(new DueTimes('0 1 * * *', 'UTC'), 0)
  const wrong = Date.parse('2040-01-01T12:00Z')
  plan.over(plan.look(wrong)!)
  const now = Date.parse('2027-01-01T12:00Z')
  t.equal(plan.look(now), Date.parse('2027-01-01T01:00Z'))
})

t.test('the next run is told with its jitter before it is due, and begins then', (t) => {
  const chances = [0.5, 0.25, 0.75]
  const plan = new Plan(new DueTimes('0 * * * *', 'UTC'), 10 * MINUTE, () => chances.shift() ?? 0)
  const noon = Date.parse('2027-05-01T12:00Z')
  plan.look(noon)
  plan.look(noon + 5 * MINUTE)
  plan.over(noon)
  const next = noon + HOUR + 2.5 * MINUTE
  t.equal(plan.next(noon + 10 * MINUTE), next)
  t.equal(plan.next(noon + 20 * MINUTE), next, 'it is drawn once')
  t.equal(plan.look(noon + HOUR), undefined)
  t.equal(plan.next(noon + HOUR), next)
  t.equal(plan.look(next), noon + HOUR)
  t.end()
})

t.test('the next run is told in whole milliseconds', (t) => {
  const plan = new Plan(new DueTimes('0 * * * *', 'UTC'), 1000, () => 1 / 3)
  const noon = Date.parse('2027-05-01T12:00Z')
  plan.over(noon)
  t.equal(plan.next(noon), noon + HOUR + 333)
  t.end()
})

t.test('after a clock that was hours ahead, the next run is the first that has not been', (t) => {
  const plan = new Plan(new DueTimes('0 * * * *', 'UTC'), 0)
  const wrong = Date.parse('2027-05-02T08:00Z')
  plan.over(plan.look(wrong)!)
  let now = wrong - 20 * HOUR
  const next = plan.next(now)
  t.equal(next, wrong + HOUR)
  for (; now < next; now += plan.wait(now)) {
    if (plan.look(now) !== undefined) throw new Error(`${iso(now)} has been`)
    if (plan.next(now) !== next) throw new Error(`${iso(now)} tells another time`)
  }
  t.equal(plan.look(now), next, 'it runs when it was told')
  t.end()
})

for (const [what, cron, noon] of [
  ['is left out', '30 2 * * *', '2027-03-27T12:00Z'],
  ['comes twice', '30 2 * * *', '2027-10-30T12:00Z']
] as const) {
  t.test(`a server makes one backup in the night in which its hour ${what}`, async (t) => {
    const clock = new TestClock(noon)
    const host = await buildScheduled(t, { clock, schedule: { cron, timezone: 'Europe/Berlin' } })
    await idle(clock)
    await host.pass(DAY, 5 * MINUTE)
    const nights = (await summariesOf(host)).filter(isGood).map(({ start_timestamp }) => start_timestamp)
    t.equal(nights.length, 2, 'the one at the start, and one in the night')
  })
}

t.test(
  'a clock that is set back by hours makes no backup again, and one set forward misses none',
  async (t) => {
    const clock = new TestClock('2027-05-01T12:00:10Z')
    const host = await buildScheduled(t, { clock, schedule: { cron: '0 * * * *' } })
    await idle(clock)
    const count = async () => (await host.operations.list()).ids.length
    t.equal(await count(), 1)
    clock.set(-3 * HOUR)
    await host.pass(3 * HOUR, MINUTE)
    t.equal(await count(), 1, '10:00, 11:00 and 12:00 have been before')
    await host.pass(HOUR, MINUTE)
    t.equal(await count(), 2)
    clock.set(5 * HOUR)
    await host.pass(MINUTE)
    t.equal(await count(), 3, 'one for five hours')
    t.match(host.operations.schedule?.last, { due: Date.parse('2027-05-01T18:00Z'), result: 'made' })
  }
)

t.test(
  'a server that starts after its clock was set back trusts its backups, but for those of years ahead',
  async (t) => {
    const clock = new TestClock('2027-05-01T12:00:10Z')
    const schedule = { cron: '0 * * * *' }
    const first = await buildScheduled(t, { clock, schedule })
    await idle(clock)
    await first.close()
    clock.set(-3 * HOUR)
    const second = await buildScheduled(t, { clock, schedule, on: first.on })
    await idle(clock)
    t.match(second.operations.schedule?.last, {
      due: Date.parse('2027-05-01T09:00Z'),
      result: 'made_elsewhere'
    })
    await second.close()
    clock.set(-2 * 365 * DAY)
    const third = await buildScheduled(t, { clock, schedule, on: first.on })
    await idle(clock)
    t.match(third.operations.schedule?.last, { result: 'made' })
    await third.pass(HOUR, 10 * SECOND)
    t.match(third.operations.schedule?.last, { result: 'made' })
    t.equal((await third.operations.list()).ids.length, 3)
  }
)
