import { setTimeout as sleep } from 'node:timers/promises'
import type { CouchClient } from '../couch/client.js'
import type { DatabaseSettings } from '../couch/database.js'
import { CouchError } from '../couch/errors.js'
import type { FailedAttempt } from '../couch/retry.js'
import { ClosingError, MissingDatabaseError, OperationInProgressError } from '../errors.js'
import { type Lease, LeaseLostError } from '../lease/lease.js'
import type { LeaseHolder, Operation } from '../lease/lease-document.js'
import { type Inspected, LeaseHeldError } from '../lease/leases.js'
import type { ClientNotices } from './client-notices.js'
import type { Environment } from './environment.js'
import type { Transactions } from './transactions.js'

/** How often, and how many milliseconds apart, to look whether an operation that is over has given the lease back. */
const LEAVE_ATTEMPTS = 40
const LEAVE_WAIT = 50

/** What is to begin. */
export interface NewOperation {
  /** How to create the system database, where the lease lies, when it is missing; `undefined`: it has to be there. */
  system?: DatabaseSettings
  /**
   * Returns the id of the backup, or of the restore's transaction.
   * @param newest number in the id of the newest backup that ever began
   */
  idAfter: (newest: bigint) => { id: string; newest?: bigint }
}

/** An operation that holds the lease. */
export interface Running {
  operation: Operation
  /** Of the backup, or of the restore's transaction. */
  id: string
  lease: Lease
  /** Ends with the lease, or when the server closes. */
  abort: AbortController
  /** For the work: stops with `abort`, and never writes without the lease. */
  work: CouchClient
  /** For the end of the work, whatever ended it. */
  end: CouchClient
  /** Calls that were made again. */
  retries: number
  /** When it began, on the monotonic clock. */
  beganAt: number
}

/** The operations of this instance that hold the lease: one at a time, on all instances. */
export class RunningOperations {
  readonly #environment: Environment
  readonly #transactions: Transactions
  readonly #notices: ClientNotices
  readonly #recover: () => Promise<unknown>
  readonly #running = new Set<Running>()
  #closing = false

  /** @param recover ends an operation whose lease has become stale */
  constructor(
    environment: Environment,
    transactions: Transactions,
    notices: ClientNotices,
    recover: () => Promise<unknown>
  ) {
    this.#environment = environment
    this.#transactions = transactions
    this.#notices = notices
    this.#recover = recover
  }

  /** Whether one holds the lease. */
  get busy(): boolean {
    return this.#running.size > 0
  }

  get closing(): boolean {
    return this.#closing
  }

  /** @throws OperationInProgressError, ClosingError */
  async refuseIfRunning(asked: Operation): Promise<void> {
    if (this.#closing) throw new ClosingError()
    const found = await this.inspect()
    if (!found || found.staleIn === 0 || (await this.#leaves(found.holder))) return
    throw new OperationInProgressError(asked, found.holder)
  }

  /**
   * Returns who holds the lease, or else who has left it, also where earlier versions kept it (`former`).
   */
  async inspect(): Promise<(Inspected & { former?: true }) | null> {
    const { leases, formerLeases } = this.#environment
    const found = await leases.inspect()
    if (found && found.staleIn > 0) return found
    const former = await formerLeases?.inspect()
    if (!former || (found && former.staleIn === 0)) return found
    return { ...former, former: true }
  }

  /**
   * Takes the lease for a new operation.
   * @throws OperationInProgressError, ClosingError
   */
  async begin(operation: Operation, { system, idAfter }: NewOperation): Promise<Running> {
    if (this.#closing) throw new ClosingError()
    await this.#ensureDatabases(operation, system)
    await this.refuseIfRunning(operation)
    await this.#recover()
    return this.acquire(operation, idAfter).catch((error: unknown) => {
      throw error instanceof LeaseHeldError ? new OperationInProgressError(operation, error.holder) : error
    })
  }

  /**
   * Only a restore that holds the system database creates it: a mistyped name would look like an empty database from then
   * on.
   * @throws MissingDatabaseError
   */
  async #ensureDatabases(operation: Operation, settings: DatabaseSettings | undefined): Promise<void> {
    const { store, system } = this.#environment
    if (settings) await system.ensure(settings)
    else if (!(await system.find()))
      throw new MissingDatabaseError(
        `database "${system.name}" does not exist: check option "databases.system", create it, or restore a backup of it`
      )
    if (operation === 'backup' && store.db.name !== system.name) await store.db.ensure()
  }

  /**
   * Takes the lease when it is free or stale.
   * @param left who left the lease that is to be taken over, and its claim
   * @throws LeaseHeldError, LeaseGoneError
   */
  async acquire(
    operation: Operation,
    idAfter: NewOperation['idAfter'],
    left?: { backups?: string; claim?: string }
  ): Promise<Running> {
    const { leases, notices, client, instance, options, events } = this.#environment
    const backups = left?.backups ?? options.databases.backups
    const abort = new AbortController()
    let id = ''
    const lease = await leases.acquire({
      insteadOf: left?.claim,
      holder(newest) {
        const next = idAfter(newest)
        id = next.id
        return { holder: { operation, id, instance, backups }, newest: next.newest ?? newest }
      },
      onLost: (error) => abort.abort(error),
      keepNotices: (txIds) => notices.addAll(txIds)
    })
    const beforeWrite = () => lease.check()
    const onRetry = (failed: FailedAttempt) => {
      running.retries++
      events.emit({ type: 'retry', operation, id, ...failed })
    }
    const running: Running = {
      operation,
      id,
      lease,
      abort,
      work: client.with({ retry: options.retry, signal: abort.signal, beforeWrite, onRetry }),
      end: client.with({ beforeWrite, onRetry }),
      retries: 0,
      beganAt: performance.now()
    }
    this.#running.add(running)
    return running
  }

  /**
   * Gives the lease back.
   * @param txId transaction of a restore, whose client is told when it asked for that
   */
  async end(running: Running, txId?: string): Promise<void> {
    const notify = txId !== undefined && (await this.#notices.isDue(txId)) ? txId : undefined
    if (notify === undefined || (await this.#note(notify))) await running.lease.release()
    // Whoever finds the lease stale tells the client.
    else running.lease.abandon()
    this.#running.delete(running)
    if (notify !== undefined) this.#environment.jobs.add(this.#notices.send(notify))
  }

  /** @returns whether every instance knows now that the transaction's client is to be told */
  async #note(txId: string): Promise<boolean> {
    return this.#environment.notices.add(txId).then(
      () => true,
      () => false
    )
  }

  /** Ends an operation that failed. The lease is kept, to become stale, when its failure could not be written down. */
  async endFailed(
    running: Running,
    error: unknown,
    writeDown: () => Promise<void>,
    txId?: string
  ): Promise<void> {
    if (error instanceof LeaseLostError) {
      this.#abandon(running)
      return
    }
    try {
      await writeDown()
    } catch (cause) {
      const { operation, id } = running
      this.#environment.events.emit({ type: 'failure_not_recorded', operation, id, error: cause as Error })
      this.#abandon(running)
      return
    }
    await this.end(running, txId)
  }

  /**
   * Ends what another instance has left, once `writeDown` has recorded that; if it cannot, the lease is left.
   * @param running holds the lease in its place
   */
  async endLeft(running: Running, writeDown: () => Promise<void>, txId?: string): Promise<void> {
    const { operation, id } = running
    const startedAt = performance.now()
    try {
      await writeDown()
    } catch (error) {
      this.#abandon(running)
      throw error
    }
    await this.end(running, txId)
    const durationMs = performance.now() - startedAt
    this.#environment.events.emit({ type: 'recovered', operation, id, durationMs })
  }

  /** Leaves the lease to become stale: whoever finds it then cleans up. */
  #abandon(running: Running): void {
    running.lease.abandon()
    this.#running.delete(running)
  }

  /** No operation begins any more. */
  close(): void {
    this.#closing = true
  }

  /** Stops the work of what runs; its end is still written down. */
  stop(): void {
    for (const { abort } of this.#running) abort.abort(new ClosingError())
  }

  abandonAll(): void {
    for (const { lease } of this.#running) lease.abandon()
  }

  /** Waits for an operation that is over, as its header or transaction says, to give the lease back. */
  async #leaves(holder: LeaseHolder): Promise<boolean> {
    for (let attempt = 0; attempt < LEAVE_ATTEMPTS; attempt++) {
      if (!(await this.#isOver(holder))) return false
      const found = await this.inspect()
      if (found?.holder.id !== holder.id || found.staleIn === 0) return true
      await sleep(LEAVE_WAIT)
    }
    return false
  }

  async #isOver({ operation, id, backups }: LeaseHolder): Promise<boolean> {
    if (operation === 'restore') return this.#transactions.isOver(id)
    const { client } = this.#environment
    try {
      const loaded = await this.#environment.storeOn(client, backups).load(id)
      return loaded !== null && !loaded.header.in_progress
    } catch (error) {
      // Another registration's backups may be in a database that this one must not read.
      if (error instanceof CouchError && !error.retryable) return false
      throw error
    }
  }
}
