import type { KeepRules } from '../../types/options.js'
import { isBackupId } from '../own-documents.js'
import { Calendar, isTime } from './calendar.js'
import { durationOf, isSpan } from './duration.js'

const DAY = 24 * 3_600_000
/** Ages in days. Athena keeps the backup nearest to each. */
export const ATHENA_AGES = [0, 1, 2, 3, 4, 5, 6, 7, 10, 20, 30, 60, 90, 120]
const NEWEST = 'newest good backup'
const NO_GOOD = 'no backup is good'

/** A backup as the rules see it. Times are milliseconds since the epoch, and may be any number. */
export interface KeepCandidate {
  id: string
  /** When it began. */
  at: number
  /** `damaged`: it was good until a verification found damage. */
  state: 'good' | 'failed' | 'running' | 'damaged'
  /** When it ended, or was found to be damaged. Absent where that is not known. */
  endedAt?: number
  /** Made with `protect`. */
  protected: boolean
  /** Made by athena. */
  legacy: boolean
}

export interface KeepDecision {
  id: string
  keep: boolean
  /** Every rule that keeps the backup, such as `"daily 2026-11-26"`; or why none does. */
  reasons: string[]
}

export interface KeepOptions {
  keep: KeepRules | 'athena'
  /** Milliseconds for which a failed backup is kept. */
  keepFailed: number
  /** Whether backups that athena made may be removed. */
  legacy: boolean
  now: number
}

/** A backup that a rule keeps. */
type Kept = [candidate: KeepCandidate, reason: string]

/** Returns the calendar that rules go by. */
export const calendarOf = ({ keep }: Pick<KeepOptions, 'keep'>): Calendar =>
  new Calendar(keep === 'athena' ? 'UTC' : (keep.timezone ?? 'UTC'))

/**
 * Decides which backups to keep, and says why. @returns the oldest first, after those whose time is unknown
 * @param calendar of an earlier call with the same rules: it caches the times it was asked for
 */
export function decide(
  candidates: readonly KeepCandidate[],
  options: KeepOptions,
  calendar = calendarOf(options)
): KeepDecision[] {
  const oldestFirst = [...candidates].sort(byTime)
  // Ids always grow. A clock that was set back makes the newest backup look old.
  const last = candidates
    .filter(({ id, state }) => state === 'good' && isBackupId(id))
    .sort(byId)
    .at(-1)
  const counted = oldestFirst.filter((candidate) => counts(candidate, options)).reverse()
  const byRules = new Map<KeepCandidate, string[]>()
  for (const [candidate, reason] of keptByRules(counted, options, calendar)) {
    byRules.set(candidate, [...(byRules.get(candidate) ?? []), reason])
  }
  return oldestFirst.map((candidate) => {
    const reasons = [...keptAnyway(candidate, options), ...(byRules.get(candidate) ?? [])]
    if (candidate === last && reasons.length === 0) reasons.push(NEWEST)
    if (reasons.length > 0) return { id: candidate.id, keep: true, reasons }
    // Where no backup is good, much of a damaged one may still be.
    if (candidate.state === 'damaged' && !last) return { id: candidate.id, keep: true, reasons: [NO_GOOD] }
    const { state } = candidate
    const why = state === 'failed' || state === 'damaged' ? state : 'no rule keeps it'
    return { id: candidate.id, keep: false, reasons: [why] }
  })
}

/**
 * Returns whether the rules count a backup. A backup of athena that must stay would take the place of another, and so
 * would one that began in the future: for years, where a clock was wrong by years.
 */
const counts = ({ state, at, legacy }: KeepCandidate, { now, ...options }: KeepOptions): boolean =>
  state === 'good' && (!legacy || options.legacy) && isTime(at) && at <= now

/** Yields the reasons to keep a backup whatever the rules say. */
function* keptAnyway(candidate: KeepCandidate, options: KeepOptions): Generator<string> {
  const { state, at, endedAt } = candidate
  if (state === 'running') yield 'running'
  if (candidate.protected) yield 'protected'
  if (candidate.legacy && !options.legacy) yield 'made by athena'
  if (state === 'failed' || state === 'damaged') {
    const end = [endedAt, at].find(isTime)
    if (end === undefined) yield 'unknown time'
    else if (options.now - end <= options.keepFailed) yield `${state} lately`
  }
  if (state === 'good') {
    if (!isTime(at)) yield 'unknown time'
    else if (at > options.now) yield 'in the future'
  }
}

/** Yields the backups that the rules keep. */
function* keptByRules(
  newestFirst: readonly KeepCandidate[],
  { keep, now }: KeepOptions,
  calendar: Calendar
): Generator<Kept> {
  const [newest] = newestFirst
  if (!newest) return
  yield [newest, NEWEST]
  if (keep === 'athena') {
    yield* nearestToAges(newestFirst, now)
    return
  }
  yield* newestFirst.slice(0, keep.last ?? 0).map((candidate): Kept => [candidate, `last ${keep.last}`])
  yield* newestOfEach('hourly', keep.hourly, newestFirst, (at) => calendar.hour(at))
  yield* newestOfEach('daily', keep.daily, newestFirst, (at) => calendar.day(at))
  yield* newestOfEach('weekly', keep.weekly, newestFirst, (at) => calendar.week(at))
  yield* newestOfEach('monthly', keep.monthly, newestFirst, (at) => calendar.month(at))
  yield* newestOfEach('yearly', keep.yearly, newestFirst, (at) => calendar.year(at))
  if (keep.within !== undefined && isSpan(keep.within)) {
    const limit = calendar.before(newest.at, durationOf(keep.within))
    for (const candidate of newestFirst) if (candidate.at > limit) yield [candidate, `within ${keep.within}`]
  }
}

/**
 * Yields the newest backup of each of the last `count` periods that have one, and, with fewer periods, the oldest
 * backup as well, as restic does: history grows until the rule is filled.
 */
function* newestOfEach(
  rule: string,
  count = 0,
  newestFirst: readonly KeepCandidate[],
  periodOf: (at: number) => string
): Generator<Kept> {
  const periods = new Set<string>()
  let latest: KeepCandidate | undefined
  for (const candidate of newestFirst) {
    if (periods.size >= count) return
    const period = periodOf(candidate.at)
    if (periods.has(period)) continue
    periods.add(period)
    latest = candidate
    yield [candidate, `${rule} ${period}`]
  }
  const oldest = newestFirst.at(-1)
  if (periods.size < count && oldest && oldest !== latest) yield [oldest, `oldest ${rule}`]
}

/** Yields the backup nearest to each of athena's ages; of two as near, the newer one. */
function* nearestToAges(newestFirst: readonly KeepCandidate[], now: number): Generator<Kept> {
  for (const age of ATHENA_AGES) {
    const distance = ({ at }: KeepCandidate) => Math.abs(now - age * DAY - at)
    const nearest = newestFirst.reduce((best, other) => (distance(other) < distance(best) ? other : best))
    yield [nearest, `age ${age} ${age === 1 ? 'day' : 'days'}`]
  }
}

/** Orders by the numbers in ids, which always grow. */
export const byId = (a: Pick<KeepCandidate, 'id'>, b: Pick<KeepCandidate, 'id'>): number =>
  a.id.length - b.id.length || (a.id < b.id ? -1 : Number(a.id > b.id))

/** Orders from old to new, those of one time by id, and those of unknown time first. */
function byTime(a: KeepCandidate, b: KeepCandidate): number {
  const [first, second] = [a, b].map(({ at }) => (isTime(at) ? at : Number.NEGATIVE_INFINITY))
  // Two unknown times differ by NaN.
  return first - second || (a.id < b.id ? -1 : Number(a.id > b.id))
}
