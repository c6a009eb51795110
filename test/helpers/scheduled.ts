import Fastify from 'fastify'
import type { Test } from 'tap'
import { createMemoryWebhookStore } from '../../lib/index.js'
import { Operations } from '../../lib/operations/operations.js'
import { resolveOptions } from '../../lib/options.js'
import type { Clock } from '../../lib/schedule/clock.js'
import type { BackupEvent, BackupSummary, DbBackupsOptions } from '../../types/index.js'
import { setupDatabases, type TestDatabases } from './database.js'
import { poll } from './poll.js'

export const [SECOND, MINUTE, HOUR] = [1000, 60_000, 3_600_000] as const

/** A clock that tests set and move. A wait ends when the clock has moved far enough. */
export class TestClock implements Clock {
  #now: number
  readonly #sleepers = new Set<{ left: number; wake: () => void }>()

  constructor(now: string) {
    this.#now = Date.parse(now)
  }

  now(): number {
    return this.#now
  }

  get asleep(): boolean {
    return this.#sleepers.size > 0
  }

  /** Sets the clock forwards, or back. No time passes. */
  set(by: number): void {
    this.#now += by
  }

  /** Lets time pass at once, as for a process that was suspended. */
  pass(ms: number): void {
    this.#now += ms
    for (const sleeper of [...this.#sleepers]) {
      sleeper.left -= ms
      if (sleeper.left <= 0) sleeper.wake()
    }
  }

  sleep(ms: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const abort = () => {
        this.#sleepers.delete(sleeper)
        reject(signal.reason)
      }
      const wake = () => {
        this.#sleepers.delete(sleeper)
        signal.removeEventListener('abort', abort)
        resolve()
      }
      const sleeper = { left: ms, wake }
      if (signal.aborted) return reject(signal.reason)
      this.#sleepers.add(sleeper)
      signal.addEventListener('abort', abort)
    })
  }
}

interface ScheduledHost {
  operations: Operations
  events: BackupEvent[]
  clock: TestClock
  on: TestDatabases
  /** Lets time pass in steps, and all work be done between them. */
  pass(ms: number, step?: number): Promise<void>
  close(): Promise<void>
}

export interface ScheduledOptions extends Partial<DbBackupsOptions> {
  on?: TestDatabases
  clock: TestClock
}

/** Builds a server with a clock of its own, as `lib/index.ts` does with the system's. It closes when the test ends. */
export async function buildScheduled(
  t: Test,
  { on, clock, ...more }: ScheduledOptions
): Promise<ScheduledHost> {
  const databases = on ?? (await setupDatabases(t))
  const events: BackupEvent[] = []
  const app = Fastify()
  const options = resolveOptions({
    couch: databases.couch,
    databases: databases.names,
    authorize: () => undefined,
    webhooks: createMemoryWebhookStore(),
    rebuildWhitelist: () => undefined,
    timeouts: { lease: 2000 },
    onEvent: (event) => void events.push(event),
    ...more
  })
  const operations = new Operations(options, app.log, { clock })
  app.addHook('onReady', async () => operations.watch())
  app.addHook('preClose', async () => operations.stop())
  app.addHook('onClose', async () => operations.close())
  t.teardown(() => app.close())
  await app.ready()
  return {
    operations,
    events,
    clock,
    on: databases,
    async pass(ms, step = 10 * SECOND) {
      for (let passed = 0; passed < ms; passed += step) {
        clock.pass(Math.min(step, ms - passed))
        await idle(clock)
      }
    },
    close: () => app.close()
  }
}

/** Waits until the schedule waits. */
export async function idle(clock: TestClock): Promise<void> {
  // Woken tasks run first.
  await new Promise((resolve) => setImmediate(resolve))
  await poll('the schedule to wait', () => (clock.asleep ? true : undefined), 30_000, 1)
}

/** Reads the backups that are there, in the order in which they were made. */
export async function summariesOf({
  operations
}: Pick<ScheduledHost, 'operations'>): Promise<BackupSummary[]> {
  const { ids } = await operations.list()
  return Promise.all(ids.map((id) => operations.summary(id)))
}

/** Tells whether a backup has ended without an error. */
export const isGood = ({ in_progress, error }: BackupSummary): boolean => !in_progress && !error
