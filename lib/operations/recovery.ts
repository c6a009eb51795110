import { markFailed } from '../backup/backup-job.js'
import type { LeaseHolder } from '../store/lease-document.js'
import { LeaseGoneError, LeaseHeldError } from '../store/leases.js'
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

  /**
   * Takes over a stale lease: its backup is marked, its restore's transaction told.
   * @returns milliseconds until the lease that was found is stale, unless it is renewed
   */
  async recover(): Promise<number | undefined> {
    await this.#tidyFormer()
    const found = await this.#running.inspect()
    if (!found || found.staleIn > 0 || this.#running.closing) return found?.staleIn
    const { holder, claim, former } = found
    const { operation, id } = holder
    const taken = this.#running.acquire(operation, () => ({ id }), former ? undefined : claim)
    const running = await taken.catch((error: unknown) => {
      // Another instance found it as well, and ends it or has ended it.
      if (error instanceof LeaseHeldError || error instanceof LeaseGoneError) return null
      throw error
    })
    if (!running) return undefined
    this.#environment.events.emit({ type: 'lease_taken_over', operation, id })
    const writeDown = () => this.#writeDown(holder, running)
    await this.#running.endLeft(running, writeDown, operation === 'restore' ? id : undefined)
    return undefined
  }

  async #writeDown(holder: LeaseHolder, running: Running): Promise<void> {
    const { operation, id, backups } = holder
    const { formerLeases } = this.#environment
    const interrupted = `interrupted: the server stopped while the ${operation} was running`
    if (operation === 'backup') {
      await markFailed(this.#environment.storeOn(running.end, backups), id, interrupted)
      this.#leftovers.watch(id)
    } else {
      await this.#transactions.fail(id, `${interrupted}; run it again`, () => running.lease.check())
    }
    if ((await formerLeases?.inspect())?.staleIn === 0) await formerLeases?.discard()
  }

  /** Earlier versions kept the lease where backups are kept. Once nobody holds it there, it moves. */
  async #tidyFormer(): Promise<void> {
    const { formerLeases: former, notices } = this.#environment
    if (!former || (await former.inspect())) return
    for (const txId of await former.notices()) await notices.add(txId)
    await former.discard()
  }
}
