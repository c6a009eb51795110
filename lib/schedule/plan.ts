import type { DueTimes } from './due-times.js'

const SECOND = 1000
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE
/** The clock is looked at as often as this: timers do not see that it is set, or that a laptop slept. */
export const LONGEST_WAIT = MINUTE
/** How long to wait for another operation before looking again. */
const BUSY_WAIT = 5 * SECOND
/** Waits after a failed attempt. */
const FIRST_RETRY = MINUTE
const LONGEST_RETRY = HOUR
/** A time further ahead than this was noted by a clock that was wrong. */
export const MOST_AHEAD = 24 * HOUR

/** A due time that is not over. */
interface Pending {
  due: number
  /** When it is seen to, by the clock, and how long that was ahead when it was decided. */
  at: number
  delay: number
  failures: number
}

/** Decides when to see to which due time, whatever the clock does. Does nothing by itself. */
export class Plan {
  readonly #times: DueTimes
  readonly #jitter: number
  readonly #random: () => number
  /** The latest due time that is over. */
  #over: number | undefined
  #pending: Pending | undefined
  /** The jitter of a due time, drawn before it comes: {@link next} tells it. */
  #late: { due: number; ms: number } | undefined

  /** @param jitter milliseconds @param random returns a number from 0 to 1 */
  constructor(times: DueTimes, jitter: number, random: () => number = Math.random) {
    this.#times = times
    this.#jitter = jitter
    this.#random = random
  }

  /** The due time that waits for its turn, if one does. */
  get pending(): number | undefined {
    return this.#pending?.due
  }

  /** Returns the due time to see to at `now`, if there is one: the latest of several that were missed. */
  look(now: number): number | undefined {
    const due = this.#dueAt(now)
    if (due === undefined) {
      this.#pending = undefined
      return undefined
    }
    if (this.#pending?.due !== due) this.#await(due, now, this.#lateness(due), 0)
    const pending = this.#pending as Pending
    // The clock may have been set back.
    pending.at = Math.min(pending.at, now + pending.delay)
    return now >= pending.at ? due : undefined
  }

  /** Returns when something is to be seen to next, as far as is known at `now`. */
  next(now: number): number {
    if (this.#pending) return this.#pending.at
    // A clock that was ahead has seen to due times that come again.
    const due = this.#times.after(Math.max(now, this.#lastOver(now) ?? now))
    return due + this.#lateness(due)
  }

  /** Returns the milliseconds from `now` to the next look. */
  wait(now: number): number {
    const first = Math.min(this.#pending?.at ?? Number.POSITIVE_INFINITY, this.#times.after(now))
    return Math.min(Math.max(1, first - now), LONGEST_WAIT)
  }

  /** Notes that a due time is over, unless everything was forgotten since it was seen to. */
  over(due: number): void {
    if (this.#pending?.due !== due) return
    this.#over = due
    this.#pending = undefined
  }

  /** Notes that another operation kept a due time from its turn. */
  busy(due: number, now: number): void {
    if (this.#pending?.due === due) this.#await(due, now, BUSY_WAIT, this.#pending.failures)
  }

  /** Notes a failed attempt. @returns when there is another, unless the next run comes first */
  failed(due: number, now: number): number | undefined {
    if (this.#pending?.due !== due) return undefined
    const { failures } = this.#pending
    const delay = Math.min(FIRST_RETRY * 2 ** Math.min(failures, 30), LONGEST_RETRY)
    this.#await(due, now, delay, failures + 1)
    return now + delay < this.#times.after(now) ? now + delay : undefined
  }

  /** Forgets what is over: the databases are others. */
  forget(): void {
    this.#over = undefined
    this.#pending = undefined
  }

  #await(due: number, now: number, delay: number, failures: number): void {
    this.#pending = { due, at: now + delay, delay, failures }
  }

  /** Returns the latest due time that is not over. */
  #dueAt(now: number): number | undefined {
    const over = this.#lastOver(now)
    const due = this.#times.latest(now)
    return due !== undefined && (over === undefined || due > over) ? due : undefined
  }

  /** Returns the latest due time that is over, unless a clock that was wrong has noted it. */
  #lastOver(now: number): number | undefined {
    if (this.#over !== undefined && this.#over > now + MOST_AHEAD) this.#over = undefined
    return this.#over
  }

  #lateness(due: number): number {
    if (this.#late?.due !== due) this.#late = { due, ms: Math.round(this.#random() * this.#jitter) }
    return this.#late.ms
  }
}
