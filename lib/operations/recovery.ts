import { markFailed } from '../backup/backup-job.js'
import { Lease, LeaseHeldError, type Operation } from '../store/lease.js'
import type { Environment } from './environment.js'
import type { Leftovers } from './leftovers.js'
import type { Running, RunningOperations } from './running-operations.js'
import type { Transactions } from './transactions.js'

/** Ends what instances that died have left. */
export class Recovery {
  readonly #environment: Environment
  readonly #running: RunningOperations
  readonly #transactions: Transactions
  readonly #leftovers: Leftovers

  constructor(
    environment: Environment,
    running: RunningOperations,
    transactions: Transactions,
    leftovers: Leftovers
  ) {
    this.#environment = environment
    this.#running = running
    this.#transactions = transactions
    this.#leftovers = leftovers
  }

  /** Takes over a stale lease: its backup is marked, its restore's transaction told. */
  async recover(): Promise<void> {
    const { store, options, events } = this.#environment
    const found = await Lease.inspect(store.db, options.timeouts.lease)
    if (!found?.stale || this.#running.closing) return
    const { operation, id } = found.holder
    const running = await this.#running.acquire(operation, id).catch((error: unknown) => {
      // Another instance found it as well, and ends it.
      if (error instanceof LeaseHeldError) return null
      throw error
    })
    if (!running) return
    events.emit({ type: 'lease_taken_over', operation, id })
    const writeDown = () => this.#writeDown(operation, id, running)
    await this.#running.endLeft(running, writeDown, operation === 'restore' ? id : undefined)
  }

  async #writeDown(operation: Operation, id: string, running: Running): Promise<void> {
    const interrupted = `interrupted: the server stopped while the ${operation} was running`
    if (operation === 'backup') {
      await markFailed(this.#environment.storeOn(running.end), id, interrupted)
      this.#leftovers.watch(id)
    } else {
      await this.#transactions.fail(id, `${interrupted}; run it again`, () => running.lease.check())
    }
  }
}
