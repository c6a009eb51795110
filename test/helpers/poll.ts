import { setTimeout as delay } from 'node:timers/promises'

/** What `read` gives, once it gives something. */
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
