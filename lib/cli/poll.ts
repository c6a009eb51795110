import { setTimeout as sleep } from 'node:timers/promises'

const FIRST_WAIT = 200
const LONGEST_WAIT = 2000

/** Reads until there is a result, at growing intervals. */
export async function poll<T>(read: () => Promise<T | undefined>, signal: AbortSignal): Promise<T> {
  for (let wait = FIRST_WAIT; ; wait = Math.min(LONGEST_WAIT, wait * 1.5)) {
    const result = await read()
    if (result !== undefined) return result
    await sleep(wait, undefined, { signal })
  }
}
