import { Lease, type Operation } from '../store/lease.js'
import { writeBackupFailure } from './backups.js'
import type { ClientNotices } from './client-notices.js'
import type { Environment } from './environment.js'
import type { Running, RunningOperations } from './running-operations.js'
import type { Transactions } from './transactions.js'

/** Ends what instances that died have left. */
export class Recovery {
  readonly #environment: Environment
  readonly #running: RunningOperations
  readonly #transactions: Transactions
  readonly #notices: ClientNotices
  #timer: NodeJS.Timeout | undefined

  constructor(
    environment: Environment,
    running: RunningOperations,
    transactions: Transactions,
    notices: ClientNotices
  ) {
    this.#environment = environment
    this.#running = running
    this.#transactions = transactions
    this.#notices = notices
  }

  /** Looks now, and from time to time. */
  watch(): void {
    const { jobs, log, options } = this.#environment
    const check = () =>
      void jobs.add(
        this.recover()
          .then(() => this.#notices.sendOverdue())
          .catch((error: unknown) => {
            log.warn({ err: error }, 'could not look for interrupted backups and restores; will try again')
          })
      )
    this.#timer = setInterval(check, options.timeouts.lease)
    this.#timer.unref()
    check()
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  /** Takes over a stale lease: its backup is marked, its restore's transaction told. */
  async recover(): Promise<void> {
    const { store, options, log } = this.#environment
    const found = await Lease.inspect(store.db, options.timeouts.lease)
    if (!found?.stale || this.#running.closing) return
    const { operation, id } = found.holder
    const running = await this.#running.acquire(operation, id)
    try {
      log.warn({ operation, id }, 'found an interrupted operation')
      await this.#writeDown(operation, id, running)
    } catch (error) {
      this.#running.abandon(running)
      throw error
    }
    await this.#running.end(running, operation === 'restore' ? id : undefined)
  }

  async #writeDown(operation: Operation, id: string, running: Running): Promise<void> {
    const interrupted = `interrupted: the server stopped while the ${operation} was running`
    if (operation === 'backup') {
      await writeBackupFailure(this.#environment.storeOn(running.end), id, interrupted)
    } else {
      await this.#transactions.fail(id, `${interrupted}; run it again`)
    }
  }
}
