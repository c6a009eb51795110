import { markFailed } from '../backup/backup-job.js'
import { CouchError } from '../couch/errors.js'
import type { LeaseHolder } from '../lease/lease-document.js'
import { type KeepNotices, LeaseGoneError, LeaseHeldError } from '../lease/leases.js'
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
  /** What an earlier version noted in the lease was looked for. */
  #noticesMoved = false

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
    const { operation, id, backups } = holder
    const left = former ? { backups } : { backups, claim }
    const taken = this.#running.acquire(operation, () => ({ id }), left)
    const running = await taken.catch((error: unknown) => {
      // Another instance found it as well, and ends it or has ended it.
      if (error instanceof LeaseHeldError || error instanceof LeaseGoneError) return null
      throw error
    })
    if (!running) return undefined
    this.#environment.events.emit({ type: 'lease_taken_over', operation, id })
    const writeDown = async () => {
      await this.#writeDown(holder, running)
      if (former) await this.#environment.formerLeases?.discard(this.#keep, claim)
    }
    await this.#running.endLeft(running, writeDown, operation === 'restore' ? id : undefined)
    return undefined
  }

  async #writeDown(holder: LeaseHolder, running: Running): Promise<void> {
    const { operation, id } = holder
    const interrupted = `interrupted: the server stopped while the ${operation} was running`
    if (operation === 'backup') await this.#markBackup(holder, running, interrupted)
    else await this.#transactions.failIfThere(id, `${interrupted}; run it again`, () => running.lease.check())
  }

  async #markBackup({ id, backups }: LeaseHolder, running: Running, reason: string): Promise<void> {
    const isOwn = backups === undefined || backups === this.#environment.options.databases.backups
    try {
      await markFailed(this.#environment.storeOn(running.end, backups), id, reason)
    } catch (error) {
      // Where this instance has no right, the registration whose backup it is marks it when it starts.
      if (isOwn || !(error instanceof CouchError) || error.retryable) throw error
    }
    if (isOwn) this.#leftovers.watch(id)
  }

  /** Earlier versions kept the lease where backups are kept, and notices in it. Once nobody holds it there, they move. */
  async #tidyFormer(): Promise<void> {
    const { leases, formerLeases } = this.#environment
    await formerLeases?.discard(this.#keep)
    if (this.#noticesMoved) return
    await leases.passNotices(this.#keep)
    this.#noticesMoved = true
  }

  readonly #keep: KeepNotices = (txIds) => this.#environment.notices.addAll(txIds)
}
