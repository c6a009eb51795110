const numbers = new Intl.NumberFormat('en')
const dates = new Intl.DateTimeFormat('en-GB', {
  day: 'numeric',
  month: 'short',
  year: 'numeric',
  hour: '2-digit',
  minute: '2-digit',
  second: '2-digit'
})

export const number = (value) => numbers.format(value)

/** `1 document`, `1,204 documents` */
export const count = (value, noun) => `${number(value)} ${noun}${value === 1 ? '' : 's'}`

/** Returns date and time in the browser's time zone. */
export const dateTime = (ms) => dates.format(ms)

/** `just now`, `3 h ago` */
export function age(ms, now = Date.now()) {
  const minutes = Math.floor((now - ms) / 60_000)
  if (minutes < 1) return 'just now'
  if (minutes < 60) return `${minutes} min ago`
  const hours = Math.floor(minutes / 60)
  if (hours < 48) return `${hours} h ago`
  return `${number(Math.floor(hours / 24))} days ago`
}

/** `0.6 s`, `23 s`, `4 min 10 s`, `2 h 5 min` */
export function duration(ms) {
  const seconds = ms / 1000
  if (seconds < 10) return `${seconds.toFixed(1)} s`
  if (seconds < 60) return `${Math.floor(seconds)} s`
  const minutes = Math.floor(seconds / 60)
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`
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
