import { setTimeout as sleep } from 'node:timers/promises'

/** Tells the time of day, and waits. Tests give one of their own. */
export interface Clock {
  /** Returns milliseconds since the epoch. The clock may be set at any time, forwards or back. */
  now(): number
  /** Waits so many milliseconds, however the clock is set meanwhile. @throws the signal's reason */
  sleep(ms: number, signal: AbortSignal): Promise<void>
}

export const systemClock: Clock = {
  now: () => Date.now(),
  // A schedule keeps no process alive.
  sleep: (ms, signal) => sleep(ms, undefined, { signal, ref: false })
}
