import t from 'tap'
import { ATHENA_AGES } from '../lib/retention/athena-ages.js'
import { decide, type KeepCandidate } from '../lib/retention/keep-rules.js'

const HOUR = 3_600_000
const DAY = 24 * HOUR
const NOW = Date.UTC(2026, 10, 27, 2)

/** Returns a good backup of an age in days. */
const aged = (age: number, more: Partial<KeepCandidate> = {}): KeepCandidate => ({
  id: `${age}`,
  at: NOW - age * DAY,
  state: 'good',
  protected: false,
  legacy: false,
  ...more
})

const decided = (candidates: KeepCandidate[], now = NOW) =>
  decide(candidates, { keep: 'athena', keepFailed: 0, legacy: false, now })

const kept = (candidates: KeepCandidate[], now = NOW) =>
  decided(candidates, now).flatMap(({ id, keep }) => (keep ? [id] : []))

t.test('of nightly backups those of the fourteen ages stay', async (t) => {
  const nights = Array.from({ length: 200 }, (_, age) => aged(age))
  t.strictSame(kept(nights), [...ATHENA_AGES].reverse().map(String))
  const reasons = Object.fromEntries(decided(nights).map(({ id, reasons }) => [id, reasons]))
  t.strictSame(reasons['0'], ['newest good backup', 'age 0 days'])
  t.strictSame(reasons['1'], ['age 1 day'])
  t.strictSame(reasons['20'], ['age 20 days'])
  t.strictSame(reasons['21'], ['no rule keeps it'])
})

t.test('each age has the nearest backup, of two as near the newer', async (t) => {
  t.strictSame(kept([aged(0), aged(118), aged(121), aged(123)]), ['121', '118', '0'])
  const reasons = Object.fromEntries(
    decided([aged(0), aged(11), aged(9), aged(25), aged(15)]).map(({ id, reasons }) => [id, reasons])
  )
  t.strictSame(
    reasons['9'],
    ['5', '6', '7', '10'].map((age) => `age ${age} days`)
  )
  t.strictSame(reasons['11'], ['no rule keeps it'])
  t.strictSame(reasons['15'], ['age 20 days'])
  t.strictSame(
    reasons['25'],
    ['30', '60', '90', '120'].map((age) => `age ${age} days`)
  )
})

t.test('one backup may be the nearest to several ages: a crowd of one day does not stay', async (t) => {
  const hours = Array.from({ length: 20 }, (_, hour) => aged(hour / 24, { id: `hour ${hour}` }))
  t.strictSame(kept(hours), ['hour 19', 'hour 0'])
  t.strictSame(kept([aged(500)]), ['500'])
})

t.test('failed, running, future and legacy backups are nearest to no age', async (t) => {
  const candidates = [
    aged(120, { id: 'failed', state: 'failed' }),
    aged(120, { id: 'running', state: 'running' }),
    aged(120, { id: 'legacy', legacy: true }),
    aged(0.1, { id: 'newest' }),
    aged(0, { id: 'failed now', state: 'failed', endedAt: NOW - 1 }),
    aged(-0.01, { id: 'future' })
  ]
  t.strictSame(kept(candidates), ['legacy', 'running', 'newest', 'future'])
})

t.test('nights for three years: at most fourteen stay, and each age has one near it', async (t) => {
  /** Days by which the nearest backup may differ from an age: halfway to its neighbours, which it grows out of. */
  const farthest = { 10: 2, 20: 8, 30: 8, 60: 24, 90: 24, 120: 24 } as Record<number, number>
  let stored: KeepCandidate[] = []
  const counts = new Set<number>()
  const found: Record<number, number> = {}
  for (let night = 0; night < 3 * 366; night++) {
    const now = NOW + night * DAY
    stored.push({ ...aged(-night), id: `${night}`.padStart(5, '0') })
    const ids = new Set(kept(stored, now))
    stored = stored.filter(({ id }) => ids.has(id))
    if (night < 366) continue
    counts.add(stored.length)
    for (const age of ATHENA_AGES) {
      const distance = Math.min(...stored.map(({ at }) => Math.abs(now - at - age * DAY))) / DAY
      found[age] = Math.max(found[age] ?? 0, distance)
    }
  }
  t.strictSame([...counts].sort(), [12, 13, 14])
  for (const age of ATHENA_AGES) t.equal(found[age], farthest[age] ?? 0, `${age} days`)
})
