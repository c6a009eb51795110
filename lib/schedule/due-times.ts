import { Cron } from 'croner'
import type { ScheduleOptions } from '../../types/options.js'

/** Runs whose distance is looked at: patterns of five fields repeat within these, but for leap years. */
const LOOKED_AT = 64
/** Distances are of a fixed time, so that the same options are accepted on every day. */
const FROM = new Date('2024-01-01T00:00:00Z')

/** The times at which a cron expression is due, in its time zone. */
export class DueTimes {
  readonly #cron: Cron

  /** @throws Error that says what is wrong with the expression */
  constructor(cron: string, timezone: string) {
    // A list of hours is as fixed as one hour: each of its times comes once, also when clocks are changed.
    this.#cron = new Cron(cron, { mode: '5-part', timezone, fixedTimeRule: 'no-wildcard' })
  }

  /** Returns the first due time after `time`, in milliseconds since the epoch; infinity if there is none. */
  after(time: number): number {
    return this.#cron.nextRun(new Date(time))?.getTime() ?? Number.POSITIVE_INFINITY
  }

  /** Returns the latest due time that is not after `time`, if there is one. */
  latest(time: number): number | undefined {
    return this.#cron.previousRuns(1, new Date(time + 1))[0]?.getTime()
  }

  /** Returns the milliseconds between the last two due times before `time`; 0 if there are no two. */
  gapBefore(time: number): number {
    const [last, before] = this.#cron.previousRuns(2, new Date(time + 1))
    return last && before ? last.getTime() - before.getTime() : 0
  }

  /** Whether it is one moment, written as a date, and no pattern. */
  get isDate(): boolean {
    return this.#cron.getOnce() !== null
  }

  /** Returns the shortest time between two runs, in milliseconds; infinity when it does not run twice. */
  shortestGap(): number {
    const times = this.#cron.nextRuns(LOOKED_AT, FROM).map((date) => date.getTime())
    return Math.min(...times.slice(1).map((time, i) => time - times[i]))
  }
}

/** Finds what is wrong with a schedule whose members have the right types. */
export function problemOf(
  schedule: Required<Omit<ScheduleOptions, 'verify'>>
): { member: keyof ScheduleOptions; problem: string } | undefined {
  const { cron, timezone, jitter } = schedule
  if (!isTimeZone(timezone))
    return { member: 'timezone', problem: `must be an IANA time zone such as "Europe/Berlin": "${timezone}"` }
  try {
    const times = new DueTimes(cron, timezone)
    if (times.isDate) return { member: 'cron', problem: `must be a cron expression, not a date: "${cron}"` }
    if (times.after(FROM.getTime()) === Number.POSITIVE_INFINITY)
      return { member: 'cron', problem: `never comes: "${cron}"` }
    // UTC has no clock changes.
    const gap = new DueTimes(cron, 'UTC').shortestGap()
    if (jitter >= gap)
      return { member: 'jitter', problem: `must be shorter than the time between two runs, ${gap} ms` }
  } catch (error) {
    const why = (error as Error).message.replace(/^CronPattern: /, '')
    return { member: 'cron', problem: `must be a cron expression of five fields: ${why}` }
  }
  return undefined
}

function isTimeZone(timezone: string): boolean {
  try {
    return new Intl.DateTimeFormat('en', { timeZone: timezone }) !== undefined
  } catch {
    return false
  }
}
