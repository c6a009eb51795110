import fc from 'fast-check'
import t from 'tap'
import { Calendar } from '../lib/retention/calendar.js'
import { durationOf } from '../lib/retention/duration.js'
import { decide } from '../lib/retention/keep-rules.js'
import type { KeepRules } from '../types/index.js'
import { cases } from './helpers/settings.js'

const ZONES = [
  'UTC',
  'Europe/Berlin',
  'America/New_York',
  'America/St_Johns',
  'Australia/Lord_Howe',
  'Asia/Kathmandu',
  'Pacific/Apia',
  'Pacific/Kiritimati'
]

const time = (text: string): number => {
  const at = Date.parse(text)
  if (Number.isNaN(at)) throw new Error(`no time: ${text}`)
  return at
}

/** Returns the times, of those given, that rules keep. */
function kept(times: string[], keep: KeepRules): string[] {
  const candidates = times.map((text) => ({
    id: text,
    at: time(text),
    state: 'good' as const,
    protected: false,
    legacy: false
  }))
  const decisions = decide(candidates, { keep, keepFailed: 0, legacy: false, now: time('2030-01-01T00:00Z') })
  return decisions.flatMap(({ id, keep: stays }) => (stays ? [id] : []))
}

t.test('days, months and years are those of the time zone', async (t) => {
  const berlin = new Calendar('Europe/Berlin')
  const newYear = time('2026-12-31T23:30Z')
  t.equal(berlin.hour(newYear), '2027-01-01T00+01:00')
  t.equal(berlin.day(newYear), '2027-01-01')
  t.equal(berlin.month(newYear), '2027-01')
  t.equal(berlin.year(newYear), '2027')
  t.equal(new Calendar('UTC').day(newYear), '2026-12-31')
  const times = ['2026-06-01T21:30Z', '2026-06-01T22:30Z', '2026-06-02T21:30Z']
  t.strictSame(kept(times, { daily: 2 }), ['2026-06-01T22:30Z', '2026-06-02T21:30Z'])
  t.strictSame(kept(times, { daily: 2, timezone: 'Europe/Berlin' }), [
    '2026-06-01T21:30Z',
    '2026-06-02T21:30Z'
  ])
})

t.test('a week is of the year of its Thursday', async (t) => {
  const utc = new Calendar('UTC')
  const weeks = {
    '2015-12-28': '2015-W53',
    '2016-01-03': '2015-W53',
    '2016-01-04': '2016-W01',
    '2018-12-31': '2019-W01',
    '2020-12-31': '2020-W53',
    '2021-01-03': '2020-W53',
    '2021-01-04': '2021-W01',
    '2024-12-29': '2024-W52',
    '2024-12-30': '2025-W01',
    '2026-01-01': '2026-W01',
    '2026-11-29': '2026-W48',
    '2026-11-30': '2026-W49',
    '2027-01-03': '2026-W53',
    '2027-01-04': '2027-W01'
  }
  for (const [day, week] of Object.entries(weeks)) {
    t.equal(utc.week(time(`${day}T00:00Z`)), week, day)
    t.equal(utc.week(time(`${day}T23:59:59.999Z`)), week, `the end of ${day}`)
  }
  // Of one week, in two years.
  const times = ['2026-12-30T01:00Z', '2027-01-02T01:00Z', '2027-01-04T01:00Z']
  t.strictSame(kept(times, { weekly: 2 }), times.slice(1))
  // Sunday in UTC, Monday in Berlin.
  t.equal(new Calendar('Europe/Berlin').week(time('2027-01-03T23:30Z')), '2027-W01')
})

t.test('the hour that clocks show twice is two hours', async (t) => {
  const berlin = new Calendar('Europe/Berlin')
  t.equal(berlin.hour(time('2026-10-25T00:30Z')), '2026-10-25T02+02:00')
  t.equal(berlin.hour(time('2026-10-25T01:30Z')), '2026-10-25T02+01:00')
  const times = ['2026-10-25T00:10Z', '2026-10-25T00:30Z', '2026-10-25T01:30Z', '2026-10-25T02:30Z']
  t.strictSame(kept(times, { hourly: 3, timezone: 'Europe/Berlin' }), times.slice(1))
  const howe = new Calendar('Australia/Lord_Howe')
  t.equal(howe.hour(time('2026-04-04T14:45Z')), '2026-04-05T01+11:00')
  t.equal(howe.hour(time('2026-04-04T15:05Z')), '2026-04-05T01+10:30')
})

t.test('days have 23, 24 or 25 hours, and one may be missing', async (t) => {
  const zone = { timezone: 'Europe/Berlin' }
  const autumn = ['2026-10-24T21:59Z', '2026-10-24T22:00Z', '2026-10-25T22:59Z', '2026-10-25T23:00Z']
  t.strictSame(kept(autumn, { daily: 3, ...zone }), [autumn[0], autumn[2], autumn[3]])
  const spring = ['2026-03-28T22:59Z', '2026-03-28T23:00Z', '2026-03-29T21:59Z', '2026-03-29T22:00Z']
  t.strictSame(kept(spring, { daily: 3, ...zone }), [spring[0], spring[2], spring[3]])
  const apia = new Calendar('Pacific/Apia')
  t.equal(apia.day(time('2011-12-30T09:59Z')), '2011-12-29')
  t.equal(apia.day(time('2011-12-30T10:00Z')), '2011-12-31')
})

t.test('a day to which clocks go back from the next one is one day', async (t) => {
  // At 00:01 of the 7th clocks in St. John's were set back to 23:01 of the 6th.
  const times = ['2010-11-07T02:00Z', '2010-11-07T02:30Z', '2010-11-07T03:00Z', '2010-11-07T04:00Z']
  const days = times.map((text) => new Calendar('America/St_Johns').day(time(text)))
  t.strictSame(days, ['2010-11-06', '2010-11-07', '2010-11-06', '2010-11-07'])
  t.strictSame(kept(times, { daily: 2, timezone: 'America/St_Johns' }), times.slice(2))
})

t.test('a span goes back to the same time of day, in the calendar of the time zone', async (t) => {
  const before = (zone: string, from: string, span: string) =>
    new Date(new Calendar(zone).before(time(from), durationOf(span))).toISOString().replace(':00.000Z', 'Z')
  const cases: [zone: string, from: string, span: string, expected: string][] = [
    ['UTC', '2026-11-27T12:00Z', '1y5m7d2h', '2025-06-20T10:00Z'],
    ['UTC', '2026-03-31T12:00Z', '1m', '2026-03-03T12:00Z'],
    ['UTC', '2028-02-29T12:00Z', '1y', '2027-03-01T12:00Z'],
    ['Europe/Berlin', '2026-10-26T11:00Z', '1d', '2026-10-25T11:00Z'],
    ['Europe/Berlin', '2026-10-26T11:00Z', '2d', '2026-10-24T10:00Z'],
    ['Europe/Berlin', '2026-10-26T11:00Z', '48h', '2026-10-24T11:00Z'],
    ['Europe/Berlin', '2026-05-01T10:00Z', '2m', '2026-03-01T11:00Z'],
    // The earlier of the two times, where clocks show one twice, or leave it out.
    ['Europe/Berlin', '2026-11-25T01:30Z', '1m', '2026-10-25T00:30Z'],
    ['Europe/Berlin', '2026-04-29T00:30Z', '1m', '2026-03-29T00:30Z'],
    ['Pacific/Apia', '2012-01-30T10:00Z', '1m', '2011-12-30T10:00Z']
  ]
  for (const [zone, from, span, expected] of cases)
    t.equal(before(zone, from, span), expected, `${span} before ${from} in ${zone}`)
  const longest = new Date('2026-11-27T12:00Z')
  longest.setUTCFullYear(2026 - 999, 10 - 9999, 27 - 99_999)
  longest.setTime(longest.getTime() - 999_999 * 3_600_000)
  t.ok(longest.getUTCFullYear() < 0, 'before our era')
  t.equal(
    before('UTC', '2026-11-27T12:00Z', '999y9999m99999d999999h'),
    longest.toISOString().replace(':00.000Z', 'Z')
  )
})

t.test('names of periods are those that Intl spells', async () => {
  const at = fc.integer({ min: 1, max: Date.UTC(2100, 0, 1) })
  fc.assert(
    fc.property(fc.constantFrom(...ZONES), at, (timeZone, ms) => {
      const calendar = new Calendar(timeZone)
      const text = new Intl.DateTimeFormat('sv-SE', {
        timeZone,
        dateStyle: 'short',
        timeStyle: 'short'
      }).format(ms)
      return (
        calendar.hour(ms).startsWith(text.slice(0, 13).replace(' ', 'T')) &&
        calendar.day(ms) === text.slice(0, 10) &&
        calendar.month(ms) === text.slice(0, 7) &&
        calendar.year(ms) === text.slice(0, 4)
      )
    }),
    { numRuns: cases(500) }
  )
})

t.test('a longer span never begins later, and none begins after its end', async () => {
  const at = fc.integer({ min: Date.UTC(1990, 0, 1), max: Date.UTC(2050, 0, 1) })
  const span = fc.record({ years: fc.nat(3), months: fc.nat(20), days: fc.nat(60), hours: fc.nat(50) })
  fc.assert(
    fc.property(fc.constantFrom(...ZONES), at, span, (timeZone, ms, duration) => {
      const calendar = new Calendar(timeZone)
      const start = calendar.before(ms, duration)
      const longer = { ...duration, hours: duration.hours + 1 }
      return start <= ms && calendar.before(ms, longer) === start - 3_600_000
    }),
    { numRuns: cases(500) }
  )
})
