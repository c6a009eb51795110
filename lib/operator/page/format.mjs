const numbers = new Intl.NumberFormat('en')
const DAY = { day: 'numeric', month: 'short', year: 'numeric' }
const days = new Intl.DateTimeFormat('en-GB', DAY)
const TIME = { hour: '2-digit', minute: '2-digit' }
const minutes = new Intl.DateTimeFormat('en-GB', { ...DAY, ...TIME })
const dates = new Intl.DateTimeFormat('en-GB', { ...DAY, ...TIME, second: '2-digit' })

export const number = (value) => numbers.format(value)

/** `1 document`, `1,204 documents` */
export const count = (value, noun) => `${number(value)} ${noun}${value === 1 ? '' : 's'}`

/** Returns date and time to the second, in the browser's time zone. */
export const dateTime = (ms) => dates.format(ms)

/** Returns date and time to the minute. */
export const minute = (ms) => minutes.format(ms)

/** Returns the date. */
export const day = (ms) => days.format(ms)

/** `just now`, `3 h ago` */
export function age(ms, now = Date.now()) {
  const span = spanOf(now - ms)
  return span ? `${span} ago` : 'just now'
}

/** `now`, `in 3 h` */
export function ahead(ms, now = Date.now()) {
  const span = spanOf(ms - now)
  return span ? `in ${span}` : 'now'
}

/** `5 min`, `3 h`, `4 days`; `undefined` for less than a minute */
function spanOf(ms) {
  const whole = Math.floor(ms / 60_000)
  if (whole < 1) return undefined
  if (whole < 60) return `${whole} min`
  const hours = Math.floor(whole / 60)
  return hours < 48 ? `${hours} h` : `${number(Math.floor(hours / 24))} days`
}

/** `0.6 s`, `23 s`, `4 min 10 s`, `2 h 5 min` */
export function duration(ms) {
  const seconds = ms / 1000
  if (seconds < 10) return `${seconds.toFixed(1)} s`
  if (seconds < 60) return `${Math.floor(seconds)} s`
  const whole = Math.floor(seconds / 60)
  if (whole < 60) return `${whole} min ${Math.floor(seconds % 60)} s`
  return `${Math.floor(whole / 60)} h ${whole % 60} min`
}

const UNITS = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB']

export function bytes(value) {
  let unit = 0
  let scaled = value
  while (scaled >= 1024 && unit < UNITS.length - 1) {
    scaled /= 1024
    unit++
  }
  const digits = unit === 0 || scaled >= 100 ? 0 : 1
  return `${scaled.toFixed(digits)} ${UNITS[unit]}`
}
