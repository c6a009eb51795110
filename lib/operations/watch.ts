import type { ClientNotices } from './client-notices.js'
import type { Environment } from './environment.js'
import type { Leftovers } from './leftovers.js'
import { NewestBackup } from './newest-backup.js'
import type { Recovery } from './recovery.js'

/** Milliseconds between two looks at a lease. */
const LOOK_AGAIN = 100

/** Looks, at the start and from time to time, for what other instances have left or done. */
export class Watch {
  readonly #environment: Environment
  readonly #recovery: Recovery
  readonly #notices: ClientNotices
  readonly #leftovers: Leftovers
  readonly #newest: NewestBackup
  #timer: NodeJS.Timeout | undefined
  #staleTimer: NodeJS.Timeout | undefined
  #stopped = false
  #knowsNewest = false

  constructor(environment: Environment, recovery: Recovery, notices: ClientNotices, leftovers: Leftovers) {
    this.#environment = environment
    this.#recovery = recovery
    this.#notices = notices
    this.#leftovers = leftovers
    this.#newest = new NewestBackup(environment.store)
  }

  start(): void {
    const { options } = this.#environment
    this.#timer = setInterval(() => this.#run(() => this.#check()), options.timeouts.lease)
    this.#timer.unref()
    this.#run(() => this.#check())
  }

  stop(): void {
    clearInterval(this.#timer)
    clearTimeout(this.#staleTimer)
    this.#stopped = true
  }

  #run(check: () => Promise<void>): void {
    const { jobs, events } = this.#environment
    const told = check().catch((error: Error) => {
      events.emit({ type: 'check_failed', error })
    })
    void jobs.add(told)
  }

  /** Looks for everything, whatever fails. */
  async #check(): Promise<void> {
    const { metrics } = this.#environment
    const looks = [
      () => this.#recover(),
      () => this.#notices.sendOverdue(),
      async () => metrics?.foundBackup(await this.#newest.endedAt()),
      () => this.#sweep()
    ]
    const failures: unknown[] = []
    for (const look of looks) await look().catch((error: unknown) => failures.push(error))
    if (failures.length > 0) throw failures[0]
  }

  /** Looks again as soon as a lease that was found can be stale. */
  async #recover(): Promise<void> {
    const staleIn = await this.#recovery.recover()
    if (staleIn === undefined || this.#stopped) return
    clearTimeout(this.#staleTimer)
    this.#staleTimer = setTimeout(() => this.#run(() => this.#recover()), Math.max(LOOK_AGAIN, staleIn))
    this.#staleTimer.unref()
  }

  async #sweep(): Promise<void> {
    if (!this.#knowsNewest) await this.#leftovers.watchNewest()
    this.#knowsNewest = true
    await this.#leftovers.sweep()
  }
}
