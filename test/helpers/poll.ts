import { setTimeout as delay } from 'node:timers/promises'

/** Share of the time waited so far that a pause takes: a long wait need not ask often. */
const PART = 1 / 8
const LONGEST_PAUSE = 250

/**
 * Calls `read` until it returns something other than `undefined`, and returns that.
 * @throws after `timeout` milliseconds, naming `what` was waited for
 */
export async function poll<T>(
  what: string,
  read: () => Promise<T | undefined> | T | undefined,
  timeout = 30_000,
  pause = 20
): Promise<T> {
  const began = Date.now()
  for (;;) {
    const value = await read()
    if (value !== undefined) return value
    const waited = Date.now() - began
    if (waited > timeout) throw new Error(`${what}: nothing within ${timeout} ms`)
    await delay(Math.max(pause, Math.min(waited * PART, LONGEST_PAUSE)))
  }
}
