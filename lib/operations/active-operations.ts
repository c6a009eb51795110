import type { OperationKind } from '../../types/events.js'
import type { CouchClient } from '../couch/client.js'
import type { FailedAttempt } from '../couch/retry.js'
import { ClosingError } from '../errors.js'
import type { Lease } from '../lease/lease.js'
import { LeaseDocument } from '../lease/lease-document.js'
import { type Inspected, type KeepNotices, Leases } from '../lease/leases.js'
import type { Databases } from './databases.js'
import type { Instance } from './instance.js'

/** An operation that holds the lease. */
export interface ActiveOperation {
  kind: OperationKind
  /** Id of the backup, or of the restore's transaction. */
  id: string
  /** Database that keeps the backups of the instance that began it. */
  backups: string
  lease: Lease
  /** Ends with the lease, or when the server closes. */
  abort: AbortController
  /** For the work: stops with `abort`, and never writes without the lease. */
  workClient: CouchClient
  /** For recording how the operation ended: goes on after `abort`, and never writes without the lease. */
  endClient: CouchClient
  /** Calls that were made again. */
  retries: number
  /** When it got the lease, on the monotonic clock. */
  beganAt: number
}

/**
 * Returns the id of an operation.
 * @param newest number in the id of the newest backup that ever began
 */
export type IdAfter = (newest: bigint) => { id: string; newest?: bigint }

/** Says who holds the lease, or has left it; `former` where earlier versions kept it. */
export type FoundLease = Inspected & { former?: true }

/** The operations of this instance that hold the lease: one at a time, on all instances. */
export class ActiveOperations {
  readonly #instance: Instance
  readonly #backups: string
  readonly #leases: Leases
  /** The lease where earlier versions kept it, when that is another database. */
  readonly #formerLeases: Leases | undefined
  readonly #active = new Set<ActiveOperation>()
  /** Whether what an earlier version noted in the lease was handed over. */
  #noticesPassed = false
  /** No operation begins any more. */
  closing = false

  constructor(instance: Instance, { repository, system }: Databases, keepNotices: KeepNotices) {
    this.#instance = instance
    this.#backups = repository.name
    const { control, lease } = instance.options.timeouts
    // A renewal that stalls leaves time for another.
    const settings = { control: Math.min(control, lease / 3), idle: lease }
    const { client } = instance
    const leasesBy = (on: (by: CouchClient) => LeaseDocument) =>
      new Leases(on(client.with(settings)), on(client.for('renewals').with(settings)), lease, keepNotices)
    this.#leases = leasesBy((by) => new LeaseDocument(system.on(by)))
    this.#formerLeases = repository.isIn(system) ? undefined : leasesBy((by) => repository.formerLease(by))
  }

  /** Whether one holds the lease. */
  get any(): boolean {
    return this.#active.size > 0
  }

  /** Returns who holds the lease, or else who has left it, on this instance or another. */
  async inspect(): Promise<FoundLease | null> {
    const found = await this.#leases.inspect()
    if (found && found.staleIn > 0) return found
    const former = await this.#formerLeases?.inspect()
    if (!former || (found && former.staleIn === 0)) return found
    return { ...former, former: true }
  }

  /**
   * Takes the lease when it is free or stale.
   * @param left the stale lease that is to be taken over, and no other
   * @throws LeaseHeldError, LeaseGoneError
   */
  async acquire(kind: OperationKind, idAfter: IdAfter, left?: FoundLease): Promise<ActiveOperation> {
    const { client, events, name: instance, options } = this.#instance
    const { backups = this.#backups } = left?.holder ?? {}
    const abort = new AbortController()
    let id = ''
    const lease = await this.#leases.acquire({
      insteadOf: left?.former ? undefined : left?.claim,
      holder(newest) {
        const next = idAfter(newest)
        id = next.id
        return { holder: { operation: kind, id, instance, backups }, newest: next.newest ?? newest }
      },
      onLost: (error) => abort.abort(error)
    })
    const beforeWrite = () => lease.check()
    const own = client.for('operations')
    const onRetry = (failed: FailedAttempt) => {
      operation.retries++
      events.emit({ type: 'retry', operation: kind, id, ...failed })
    }
    const operation: ActiveOperation = {
      kind,
      id,
      backups,
      lease,
      abort,
      workClient: own.with({ retry: options.retry, signal: abort.signal, beforeWrite, onRetry }),
      endClient: own.with({ beforeWrite, onRetry }),
      retries: 0,
      beganAt: performance.now()
    }
    this.#active.add(operation)
    return operation
  }

  async release(operation: ActiveOperation): Promise<void> {
    await operation.lease.release()
    this.#active.delete(operation)
  }

  /** Leaves the lease to become stale: the instance that finds it then ends the operation. */
  abandon(operation: ActiveOperation): void {
    operation.lease.abandon()
    this.#active.delete(operation)
  }

  /** Hands over what an earlier version noted in the lease, and removes a lease that nobody holds where it kept it. */
  async moveFormer(): Promise<void> {
    await this.#formerLeases?.discard()
    if (this.#noticesPassed) return
    await this.#leases.passNotices()
    this.#noticesPassed = true
  }

  /** Removes the lease of an operation that was ended, where an earlier version kept it. */
  async discardFormer({ former, claim }: FoundLease): Promise<void> {
    if (former) await this.#formerLeases?.discard(claim)
  }

  /** Stops the work of the operations; their end is still recorded. */
  stop(): void {
    for (const { abort } of this.#active) abort.abort(new ClosingError())
  }

  /** Leaves the leases of operations that have not stopped. */
  abandonAll(): void {
    for (const { lease } of this.#active) lease.abandon()
  }
}
