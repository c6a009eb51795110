import type { OperationKind } from '../../types/events.js'
import type { CouchClient } from '../couch/client.js'
import type { FailedAttempt } from '../couch/retry.js'
import { ClosingError, LeaseLostError } from '../errors.js'
import { EarlierVersions, type FoundLease, type KeepNotices, noticesIn } from '../lease/earlier-versions.js'
import type { Lease } from '../lease/lease.js'
import { LeaseDocument } from '../lease/lease-document.js'
import { Leases } from '../lease/leases.js'
import type { Databases } from './databases.js'
import type { Instance } from './instance.js'

/** An operation that holds the lease. */
export interface ActiveOperation {
  kind: OperationKind
  /** Id of the backup, or of the restore's transaction. */
  id: string
  /** The backups database of the instance that began it. */
  backups: string
  lease: Lease
  /** The number that the lease carries: no backup of these databases has a larger one, but for those that failed. */
  carried: bigint
  /** Aborted with the lease, or when the server closes. */
  abort: AbortController
  /** Ends with the lease, or when it is left: how the operation ended cannot be recorded any more. */
  left: AbortController
  /** For the work: stops with `abort`, and never writes without the lease. */
  workClient: CouchClient
  /** Records under the lease, also after `abort`. Gives up soon until the work begins: somebody waits. */
  endClient: CouchClient
  retries: number
  /** When it got the lease, on the monotonic clock. */
  beganAt: number
}

/** Returns an id after the number that the lease hands on (0 at first), and the next number, if any. */
export type IdAfter = (carried: bigint) => { id: string; carried?: bigint }

/** The operations of this instance that hold the lease: one at a time, on all instances. */
export class ActiveOperations {
  readonly #instance: Instance
  readonly #backups: string
  readonly #leases: Leases
  /** What earlier versions have left. */
  readonly earlier: EarlierVersions
  readonly #active = new Set<ActiveOperation>()
  /** No operation begins any more. */
  closing = false

  constructor(instance: Instance, { repository, system }: Databases, keep: KeepNotices) {
    this.#instance = instance
    this.#backups = repository.name
    const { control, lease } = instance.options.timeouts
    // A renewal that stalls leaves time for another.
    const settings = { control: Math.min(control, lease / 3), idle: lease }
    const { client } = instance
    const current = (by: CouchClient) => new LeaseDocument(system.on(by.with(settings)))
    const document = current(client)
    const former = repository.isIn(system) ? undefined : repository.formerLease(client.with(settings))
    this.#leases = new Leases(document, current(client.for('renewals')), lease, (leaves) =>
      keep(noticesIn(leaves))
    )
    this.earlier = new EarlierVersions(document, former, lease, keep)
  }

  get any(): boolean {
    return this.#active.size > 0
  }

  /** Returns who holds the lease, or else who has left it, on this instance or another. */
  async inspect(): Promise<FoundLease | null> {
    const found = await this.#leases.inspect()
    if (found && found.staleIn > 0) return found
    const former = await this.earlier.inspect()
    return !former || (found && former.staleIn === 0) ? found : former
  }

  /** Takes the lease, if free or stale, or only `stale`. @throws LeaseHeldError, LeaseGoneError */
  async acquire(kind: OperationKind, idAfter: IdAfter, stale?: FoundLease): Promise<ActiveOperation> {
    const { client, events, name: instance, options } = this.#instance
    const { backups = this.#backups } = stale?.holder ?? {}
    const [abort, left] = [new AbortController(), new AbortController()]
    let id = ''
    let carriedOn = 0n
    const lease = await this.#leases.acquire({
      insteadOf: stale?.former ? undefined : stale?.claim,
      holder(carried) {
        const next = idAfter(carried)
        id = next.id
        carriedOn = next.carried ?? carried
        return { holder: { operation: kind, id, instance, backups }, carried: carriedOn }
      },
      onLost(error) {
        abort.abort(error)
        left.abort(error)
      }
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
      carried: carriedOn,
      abort,
      left,
      workClient: own.with({ retry: options.retry, signal: abort.signal, beforeWrite, onRetry }),
      endClient: own.with({ signal: left.signal, beforeWrite, onRetry }),
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

  /** Leaves the lease to become stale: the instance that finds it ends the operation. */
  abandon(operation: ActiveOperation): void {
    operation.lease.abandon()
    operation.left.abort(new LeaseLostError('the lease was left'))
    this.#active.delete(operation)
  }

  /** Stops the work of the operations; their end is still recorded. */
  stop(): void {
    for (const { abort } of this.#active) abort.abort(new ClosingError())
  }

  abandonAll(): void {
    for (const operation of this.#active) this.abandon(operation)
  }
}
