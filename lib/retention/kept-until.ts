import { futureBackupId } from '../repository/ids.js'
import type { Steps } from '../waits/steps.js'
import { calendarOf, decideBy, type KeepCandidate, type KeepOptions } from './keep-rules.js'

const DAY = 24 * 3_600_000

/** How far ahead is looked. */
export const HORIZON = 400 * DAY

/** Most backups that are looked at, each as often as pruning would: one or two seconds of work. */
const MOST_LOOKS = 1_500_000

/** The further cost of a run, mostly to find its time, in looks. */
const LOOKS_OF_A_RUN = 50

/** The future of backups if backups go on as planned. Times are milliseconds since the epoch. */
export interface Foresight {
  /** When each backup goes, by its id. One that is not in here stays beyond `foreseen`. */
  goes: Map<string, number>
  /** How far ahead was looked. */
  foreseen: number
}

/**
 * Foresees when pruning removes each backup: at every time of `runs` a good backup is made, and what no rule keeps then
 * goes. A backup that is still being made counts as a good one. Looks {@link HORIZON} ahead, less where that would take
 * too long, and ends early when all that can go are gone.
 * @param runs not before `options.now`, in order
 */
export function* keptUntil(
  candidates: readonly KeepCandidate[],
  options: KeepOptions,
  runs: Iterable<number>
): Steps<Foresight> {
  const calendar = calendarOf(options)
  const horizon = options.now + HORIZON
  const goes = new Map<string, number>()
  const known = new Set(candidates.map(({ id }) => id))
  let present = candidates.map(onceMade)
  let awaited = candidates.filter((candidate) => !candidate.protected).length
  let looks = 0
  let foreseen = options.now
  for (const now of runs) {
    if (now > horizon || awaited === 0) return { goes, foreseen: horizon }
    present.push(madeAt(now))
    looks += present.length + LOOKS_OF_A_RUN
    if (looks > MOST_LOOKS) return { goes, foreseen }
    const gone = new Set(
      decideBy(calendar, present, { ...options, now }).flatMap(({ id, keep }) => (keep ? [] : [id]))
    )
    present = present.filter(({ id }) => !gone.has(id))
    for (const id of gone) {
      if (!known.has(id)) continue
      goes.set(id, now)
      awaited--
    }
    foreseen = now
    yield
  }
  return { goes, foreseen: horizon }
}

const onceMade = (candidate: KeepCandidate): KeepCandidate =>
  candidate.state === 'running' ? { ...candidate, state: 'good' } : candidate

const madeAt = (at: number): KeepCandidate => ({
  id: futureBackupId(at),
  at,
  state: 'good',
  protected: false,
  legacy: false
})
