/** Returns what a function of the host gives now: it may throw, or give nothing, until the host is ready. */
export function nowOf(read: () => unknown): unknown {
  try {
    return read() ?? undefined
  } catch {
    return undefined
  }
}

/** Returns whether a host gives a promise where a value is wanted. Its rejection is not left unhandled. */
export function isPromise(value: unknown): boolean {
  if (!(value instanceof Promise)) return false
  value.catch(() => undefined)
  return true
}
