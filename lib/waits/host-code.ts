import { HostTimeoutError } from '../errors.js'
import { within } from './within.js'

/**
 * Waits for code of the host.
 * @param name of the option, for the error
 * @throws HostTimeoutError, and what the code throws
 */
export const hostWithin = <T>(ms: number, name: string, call: () => T | Promise<T>): Promise<T> =>
  within(
    ms,
    () => new HostTimeoutError(name, ms),
    async () => call()
  )

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
