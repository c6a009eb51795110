import { setTimeout as sleep } from 'node:timers/promises'
import type { CouchClient, FailedAttempt } from '../couch/client.js'
import { ClosingError, OperationInProgressError } from '../errors.js'
import { Lease, LeaseHeldError, type LeaseHolder, LeaseLostError, type Operation } from '../store/lease.js'
import type { ClientNotices } from './client-notices.js'
import type { Environment } from './environment.js'
import type { Transactions } from './transactions.js'

/** How often, and how many milliseconds apart, to look whether an operation that is over has given the lease back. */
const LEAVE_ATTEMPTS = 40
const LEAVE_WAIT = 50

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
}

/** The operations of this instance that hold the lease: one at a time, on all instances. */
export class RunningOperations {
  readonly #environment: Environment
  readonly #transactions: Transactions
  readonly #notices: ClientNotices
  readonly #recover: () => Promise<void>
  readonly #running = new Set<Running>()
  #closing = false

  /** @param recover ends an operation whose lease has become stale */
  constructor(
    environment: Environment,
    transactions: Transactions,
    notices: ClientNotices,
    recover: () => Promise<void>
  ) {
    this.#environment = environment
    this.#transactions = transactions
    this.#notices = notices
    this.#recover = recover
  }

  get closing(): boolean {
    return this.#closing
  }

  /** @throws OperationInProgressError, ClosingError */
  async refuseIfRunning(asked: Operation): Promise<void> {
    if (this.#closing) throw new ClosingError()
    const { store, options } = this.#environment
    const found = await Lease.inspect(store.db, options.timeouts.lease)
    if (!found || found.stale || (await this.#leaves(found.holder))) return
    throw new OperationInProgressError(asked, found.holder)
  }

  /**
   * Takes the lease for a new operation.
   * @throws OperationInProgressError, ClosingError
   */
  async begin(operation: Operation, id: string): Promise<Running> {
    if (this.#closing) throw new ClosingError()
    await this.#environment.store.db.ensure()
    await this.refuseIfRunning(operation)
    await this.#recover()
    return this.acquire(operation, id).catch((error: unknown) => {
      throw error instanceof LeaseHeldError ? new OperationInProgressError(operation, error.holder) : error
    })
  }

  /**
   * Takes the lease when it is free or stale.
   * @throws LeaseHeldError
   */
  async acquire(operation: Operation, id: string): Promise<Running> {
    const { store, client, instance, options, events } = this.#environment
    const abort = new AbortController()
    const lease = await Lease.acquire(
      store.db,
      { operation, id, instance },
      options.timeouts.lease,
      (error) => abort.abort(error)
    )
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
      retries: 0
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
    await running.lease.release(notify)
    this.#running.delete(running)
    if (notify !== undefined) this.#environment.jobs.add(this.#notices.send(notify))
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
    const { store, options } = this.#environment
    for (let attempt = 0; attempt < LEAVE_ATTEMPTS; attempt++) {
      if (!(await this.#isOver(holder))) return false
      const found = await Lease.inspect(store.db, options.timeouts.lease)
      if (found?.holder.id !== holder.id || found.stale) return true
      await sleep(LEAVE_WAIT)
    }
    return false
  }

  async #isOver({ operation, id }: LeaseHolder): Promise<boolean> {
    if (operation === 'restore') return this.#transactions.isOver(id)
    const loaded = await this.#environment.store.load(id)
    return loaded !== null && !loaded.header.in_progress
  }
}
