import { futureBackupId } from '../own-documents.js'
import type { Steps } from '../waits/steps.js'
import { calendarOf, decide, type KeepCandidate, type KeepOptions } from './keep-rules.js'

const DAY = 24 * 3_600_000

/** Milliseconds that are looked ahead. */
export const HORIZON = 400 * DAY

/** Most decisions on a backup: one or two seconds of work. */
const MOST_DECISIONS = 1_500_000

/** What a run costs beside, mostly to find its time, in decisions. */
const DECISIONS_OF_A_RUN = 50

/** When backups go if all runs go as planned. Times are milliseconds since the epoch. */
export interface Foresight {
  /** When each backup goes, by its id. Backups that are missing here stay beyond `foreseen`. */
  goes: Map<string, number>
  /** The time up to which was looked. */
  foreseen: number
}

/**
 * Foresees when pruning removes each backup. Assumes that each run makes a good backup, after which all that no rule
 * keeps are removed, and that a running backup will be good. Looks {@link HORIZON} ahead, less where that would take too
 * long, and ends early once all backups that can go are gone.
 * @param runs times, not before `options.now`, in order
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
  let decisions = 0
  let foreseen = options.now
  for (const now of runs) {
    if (now > horizon || awaited === 0) return { goes, foreseen: horizon }
    present.push(madeAt(now))
    decisions += present.length + DECISIONS_OF_A_RUN
    if (decisions > MOST_DECISIONS) return { goes, foreseen }
    const gone = new Set(
      decide(present, { ...options, now }, calendar).flatMap(({ id, keep }) => (keep ? [] : [id]))
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
