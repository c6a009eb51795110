import { setTimeout as delay } from 'node:timers/promises'

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
  const end = Date.now() + timeout
  for (;;) {
    const value = await read()
    if (value !== undefined) return value
    if (Date.now() > end) throw new Error(`${what}: nothing within ${timeout} ms`)
    await delay(pause)
  }
}
