import { HostTimeoutError } from '../errors.js'
import { within } from './within.js'

/** Waits for code of the host, `name` being its option. @throws HostTimeoutError, and what the code throws */
export const hostWithin = <T>(ms: number, name: string, call: () => T | Promise<T>): Promise<T> =>
  within(
    ms,
    () => new HostTimeoutError(name, ms),
    async () => call()
  )

/** Returns what a function of the host gives now; `undefined` while it throws or gives nothing. */
export function nowOf(read: () => unknown): unknown {
  try {
    return read() ?? undefined
  } catch {
    return undefined
  }
}

/** Returns whether a host gave a promise in place of a value, and handles its rejection. */
export function isPromise(value: unknown): boolean {
  if (!(value instanceof Promise)) return false
  value.catch(() => undefined)
  return true
}
