/** Numbers, times and sizes for people, as the operator page spells them. */

const numbers = new Intl.NumberFormat('en')
const minutes = new Intl.DateTimeFormat('en-GB', {
  day: 'numeric',
  month: 'short',
  year: 'numeric',
  hour: '2-digit',
  minute: '2-digit'
})

/** Returns a number with separators of thousands. */
export const number = (value: number): string => numbers.format(value)

/** Returns a number and its noun: `1 document`, `1,204 documents`. */
export const count = (value: number, noun: string): string =>
  `${number(value)} ${noun}${value === 1 ? '' : 's'}`

/** Returns date and time to the minute, in the time zone of the process. */
export const minute = (ms: number): string => minutes.format(ms)

/** Returns how long ago a time was: `just now`, `3 h ago`. */
export function age(ms: number, now = Date.now()): string {
  const span = spanOf(now - ms)
  return span ? `${span} ago` : 'just now'
}

/** Returns how far ahead a time is: `now`, `in 3 h`. */
export function ahead(ms: number, now = Date.now()): string {
  const span = spanOf(ms - now)
  return span ? `in ${span}` : 'now'
}

/** Returns `5 min`, `3 h`, `4 days`; `undefined` for less than a minute. */
function spanOf(ms: number): string | undefined {
  const whole = Math.floor(ms / 60_000)
  if (whole < 1) return undefined
  if (whole < 60) return `${whole} min`
  const hours = Math.floor(whole / 60)
  return hours < 48 ? `${hours} h` : `${number(Math.floor(hours / 24))} days`
}

/** Returns how long something took: `0.6 s`, `23 s`, `4 min 10 s`, `2 h 5 min`. */
export function duration(ms: number): string {
  const seconds = ms / 1000
  if (seconds < 10) return `${seconds.toFixed(1)} s`
  if (seconds < 60) return `${Math.floor(seconds)} s`
  const whole = Math.floor(seconds / 60)
  if (whole < 60) return `${whole} min ${Math.floor(seconds % 60)} s`
  return `${Math.floor(whole / 60)} h ${whole % 60} min`
}

const UNITS = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB']

/** Returns a size: `6 bytes`, `20.1 KiB`. */
export function bytes(value: number): string {
  let unit = 0
  let scaled = value
  while (scaled >= 1024 && unit < UNITS.length - 1) {
    scaled /= 1024
    unit++
  }
  const digits = unit === 0 || scaled >= 100 ? 0 : 1
  return `${scaled.toFixed(digits)} ${UNITS[unit]}`
}
