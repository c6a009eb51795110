/** A span of calendar time, as restic's `--keep-within` takes it. */
export interface Duration {
  years: number
  months: number
  days: number
  hours: number
}

/** `"1y5m7d2h"`: each unit at most once, the largest first. */
export const DURATION = /^(?=\d)(?:(\d{1,3})y)?(?:(\d{1,4})m)?(?:(\d{1,5})d)?(?:(\d{1,6})h)?$/

/** Reads a duration. @throws TypeError for text that does not match {@link DURATION} */
export function durationOf(text: string): Duration {
  const match = DURATION.exec(text)
  if (!match) throw new TypeError(`"${text}" is not a duration`)
  const [years, months, days, hours] = match.slice(1).map((digits) => Number(digits ?? 0))
  return { years, months, days, hours }
}

/** Returns whether a text that matches {@link DURATION} is longer than nothing. */
export const isSpan = (text: string): boolean => /[1-9]/.test(text)
