import t from 'tap'
import { decide, type KeepCandidate } from '../lib/retention/keep-rules.js'

const DAY = 24 * 3_600_000
const NOW = 1000 * DAY

const candidate = (days: number, state: KeepCandidate['state'], endedAt?: number): KeepCandidate => ({
  id: `03_ibp_db_backup_${NOW - days * DAY}`,
  at: NOW - days * DAY,
  state,
  endedAt,
  protected: false,
  legacy: false
})

const decided = (candidates: KeepCandidate[]) =>
  decide(candidates, { keep: { last: 1 }, keepFailed: 7 * DAY, legacy: false, now: NOW }).map(
    ({ keep, reasons }) => `${keep} ${reasons.join()}`
  )

t.test(
  'a damaged backup counts for no rule, and stays as long as a failed one from when that was found',
  async (t) => {
    const found = (days: number) => NOW - days * DAY
    t.strictSame(decided([candidate(30, 'good'), candidate(20, 'damaged', found(8))]), [
      'true newest good backup,last 1',
      'false damaged'
    ])
    t.strictSame(decided([candidate(30, 'good'), candidate(20, 'damaged', found(6))]), [
      'true newest good backup,last 1',
      'true damaged lately'
    ])
  }
)

t.test('where no backup is good, damaged ones stay', async (t) => {
  t.strictSame(decided([candidate(30, 'damaged', NOW - 20 * DAY), candidate(20, 'failed', NOW - 20 * DAY)]), [
    'true no backup is good',
    'false failed'
  ])
})
