/** Returns the milliseconds of a `Retry-After` header, in seconds or a date. */
export function retryAfter(header: string | string[] | undefined): number | undefined {
  if (header === undefined) return undefined
  const value = String(header)
  const wait = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now()
  return Number.isNaN(wait) ? undefined : Math.max(0, wait)
}
