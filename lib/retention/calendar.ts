import type { Duration } from './duration.js'

const HOUR = 3_600_000
const DAY = 24 * HOUR

/** The last time that a Date can hold. */
const LAST = 8.64e15

/** Returns whether a backup may have begun at this time. No clock shows 0 or less. */
export const isTime = (at: number | undefined): at is number => at !== undefined && at > 0 && at <= LAST

/** Names hours, days, ISO weeks, months and years in one time zone. Times are milliseconds since the epoch. */
export class Calendar {
  readonly #format: Intl.DateTimeFormat
  /** Caches wall-clock times: computing one takes microseconds, and each rule asks for it. */
  readonly #walls = new Map<number, number>()

  /** @throws RangeError for an unknown time zone */
  constructor(timeZone: string) {
    this.#format = new Intl.DateTimeFormat('en-US', {
      timeZone,
      calendar: 'gregory',
      numberingSystem: 'latn',
      hourCycle: 'h23',
      era: 'short',
      year: 'numeric',
      month: 'numeric',
      day: 'numeric',
      hour: 'numeric',
      minute: 'numeric',
      second: 'numeric'
    })
  }

  /** Returns an hour's name, with its offset, which tells the two hours apart when clocks are set back. */
  hour(at: number): string {
    const wall = this.#wallAt(at)
    return `${dayOf(wall)}T${digits(new Date(wall).getUTCHours())}${offsetText(wall - at)}`
  }

  day(at: number): string {
    return dayOf(this.#wallAt(at))
  }

  /** Returns the name of an ISO week, which begins on a Monday and belongs to the year of its Thursday. */
  week(at: number): string {
    const wall = this.#wallAt(at)
    const weekday = (new Date(wall).getUTCDay() + 6) % 7
    const thursday = new Date(wall + (3 - weekday) * DAY)
    const year = thursday.getUTCFullYear()
    const number = 1 + Math.floor((thursday.getTime() - midnight(year, 0, 1)) / (7 * DAY))
    return `${year}-W${digits(number)}`
  }

  month(at: number): string {
    return dayOf(this.#wallAt(at)).slice(0, -3)
  }

  year(at: number): string {
    return String(new Date(this.#wallAt(at)).getUTCFullYear())
  }

  /**
   * Returns the time a duration before another: the same time of day on an earlier date, then so many hours less. A date
   * that its month does not have runs over, as in Go and restic: a month before 31 March is 3 March.
   */
  before(at: number, { years, months, days, hours }: Duration): number {
    const wall = this.#wallAt(at)
    const date = new Date(wall)
    const timeOfDay = wall - midnight(date.getUTCFullYear(), date.getUTCMonth(), date.getUTCDate())
    const earlier = midnight(
      date.getUTCFullYear() - years,
      date.getUTCMonth() - months,
      date.getUTCDate() - days
    )
    return this.#atWall(earlier + timeOfDay) - hours * HOUR
  }

  /** Returns what clocks on the wall show, as if they showed UTC. */
  #wallAt(at: number): number {
    const known = this.#walls.get(at)
    if (known !== undefined) return known
    const wall = this.#readWall(at)
    this.#walls.set(at, wall)
    return wall
  }

  #readWall(at: number): number {
    const parts = Object.fromEntries(this.#format.formatToParts(at).map(({ type, value }) => [type, value]))
    const year = parts.era === 'BC' ? 1 - Number(parts.year) : Number(parts.year)
    const time = (Number(parts.hour) * 60 + Number(parts.minute)) * 60 + Number(parts.second)
    const milliseconds = at - Math.floor(at / 1000) * 1000
    return midnight(year, Number(parts.month) - 1, Number(parts.day)) + time * 1000 + milliseconds
  }

  /** Returns when clocks show a wall-clock time: the earlier time where they show it twice, or skip it. */
  #atWall(wall: number): number {
    const [earlier, later] = [wall - DAY, wall + DAY]
      .map((near) => wall - (this.#wallAt(near) - near))
      .sort((a, b) => a - b)
    return this.#wallAt(earlier) !== wall && this.#wallAt(later) === wall ? later : earlier
  }
}

/** Returns the start of a day. Months count from 0; days and months out of range run over. */
const midnight = (year: number, month: number, day: number): number =>
  new Date(0).setUTCFullYear(year, month, day)

function dayOf(wall: number): string {
  const date = new Date(wall)
  return `${date.getUTCFullYear()}-${digits(date.getUTCMonth() + 1)}-${digits(date.getUTCDate())}`
}

function offsetText(offset: number): string {
  const minutes = Math.round(Math.abs(offset) / 60_000)
  return `${offset < 0 ? '-' : '+'}${digits(Math.floor(minutes / 60))}:${digits(minutes % 60)}`
}

const digits = (number: number): string => String(number).padStart(2, '0')
