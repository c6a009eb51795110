import type { ClientNotices } from './client-notices.js'
import type { Environment } from './environment.js'
import type { Leftovers } from './leftovers.js'
import { NewestBackup } from './newest-backup.js'
import type { Recovery } from './recovery.js'

/** Looks, at the start and from time to time, for what other instances have left or done. */
export class Watch {
  readonly #environment: Environment
  readonly #recovery: Recovery
  readonly #notices: ClientNotices
  readonly #leftovers: Leftovers
  readonly #newest: NewestBackup
  #timer: NodeJS.Timeout | undefined
  #knowsNewest = false

  constructor(environment: Environment, recovery: Recovery, notices: ClientNotices, leftovers: Leftovers) {
    this.#environment = environment
    this.#recovery = recovery
    this.#notices = notices
    this.#leftovers = leftovers
    this.#newest = new NewestBackup(environment.store)
  }

  start(): void {
    const { jobs, events, options } = this.#environment
    const check = () =>
      void jobs.add(
        this.#check().catch((error: Error) => {
          events.emit({ type: 'check_failed', error })
        })
      )
    this.#timer = setInterval(check, options.timeouts.lease)
    this.#timer.unref()
    check()
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  async #check(): Promise<void> {
    await this.#recovery.recover()
    await this.#notices.sendOverdue()
    const { metrics } = this.#environment
    if (metrics) metrics.foundBackup(await this.#newest.endedAt())
    await this.#sweep()
  }

  async #sweep(): Promise<void> {
    if (!this.#knowsNewest) await this.#leftovers.watchNewest()
    this.#knowsNewest = true
    await this.#leftovers.sweep()
  }
}
