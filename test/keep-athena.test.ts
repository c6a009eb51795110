import t from 'tap'
import { ATHENA_AGES, decide, type KeepCandidate } from '../lib/retention/keep-rules.js'

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

type Pruning = (stored: KeepCandidate[], now: number) => KeepCandidate[]

const ours: Pruning = (stored, now) => {
  const ids = new Set(kept(stored, now))
  return stored.filter(({ id }) => ids.has(id))
}

/** What athena's own code keeps: each age, from the highest down, the nearest that is left, of two as near the later. */
const athenas: Pruning = (stored, now) => {
  const taken = new Set<KeepCandidate>()
  for (const age of [...ATHENA_AGES].reverse()) {
    const distance = ({ at }: KeepCandidate) => Math.abs(now - age * DAY - at)
    const left = stored.filter((candidate) => !taken.has(candidate))
    if (left.length === 0) break
    taken.add(left.reduce((best, other) => (distance(other) <= distance(best) ? other : best)))
  }
  return stored.filter((candidate) => taken.has(candidate))
}

/** Prunes after each of three years' nights. Returns, of the last two, how many stay and how far ages are missed. */
function nights(prune: Pruning) {
  let stored: KeepCandidate[] = []
  const counts = new Set<number>()
  const missedBy = new Map<number, number>(ATHENA_AGES.map((age) => [age, 0]))
  for (let night = 0; night < 3 * 366; night++) {
    const now = NOW + night * DAY
    stored = prune([...stored, { ...aged(-night), id: `${night}`.padStart(5, '0') }], now)
    if (night < 366) continue
    counts.add(stored.length)
    for (const [age, most] of missedBy) {
      const distance = Math.min(...stored.map(({ at }) => Math.abs(now - at - age * DAY))) / DAY
      missedBy.set(age, Math.max(most, distance))
    }
  }
  return { counts: [...counts].sort(), missedBy: [...missedBy.values()] }
}

t.test('nights for three years: at most fourteen stay, and each age has one near it', async (t) => {
  t.strictSame(nights(ours), {
    counts: [12, 13, 14],
    missedBy: [0, 0, 0, 0, 0, 0, 0, 0, 2, 8, 8, 24, 24, 24]
  })
})

t.test("what the page on migrating tells of athena's own pruning", async (t) => {
  t.strictSame(nights(athenas), {
    counts: [14],
    missedBy: [0, 0, 0, 0, 0, 0, 0, 0, 2, 9, 9, 20, 20, 20]
  })
  const hours = Array.from({ length: 20 }, (_, hour) => aged(hour / 24, { id: `hour ${hour}` })).reverse()
  t.equal(athenas(hours, NOW).length, 14, 'as many, though all are of one day')
  t.equal(ours(hours, NOW).length, 2)
  const failed = [aged(3), aged(1.9, { state: 'failed' }), aged(0)]
  t.equal(athenas([...hours, ...failed], NOW).filter(({ state }) => state === 'failed').length, 1)
})
