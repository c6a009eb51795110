import type { OperationKind } from '../../types/events.js'
import type { CouchClient } from '../couch/client.js'
import type { FailedAttempt } from '../couch/retry.js'
import { ClosingError, HostValueError, LeaseLostError } from '../errors.js'
import type { Lease } from '../lease/lease.js'
import { LeaseDocument } from '../lease/lease-document.js'
import { type Inspected, LeaseHeldError, type Leases, leasesOn } from '../lease/leases.js'
import { type KeepNotices, Notices, noticesIn } from '../lease/notices.js'
import { Progress } from '../observe/progress.js'
import { Cancellation } from './cancellation.js'
import type { Databases } from './databases.js'
import type { Instance } from './instance.js'

/** A part of the console that a lease is for: the sources, or the backups. They share one where they share a database. */
export type Resource = 'sources' | 'repository'

/** The resources in the order in which leases are taken: the repository's lease numbers the backups. */
const RESOURCES: readonly Resource[] = ['repository', 'sources']

/** A lease that an operation holds. */
export interface Hold {
  resources: LeaseSite['resources']
  lease: Lease
  /** Ends with the lease, or when it is left: nothing can be recorded under it any more. */
  left: AbortController
  /** Records on its resources, also after the work was stopped. Gives up soon until the work begins: somebody waits. */
  client: CouchClient
}

/** An operation as it is known as soon as it has its first lease, or needs none. */
interface Begun {
  readonly kind: OperationKind
  /** Id of the backup, of the restore's transaction, or of its own. */
  readonly id: string
  /**
   * The number that its first lease carries: no backup there has a larger one, but for those that failed. 0 without a
   * lease.
   */
  readonly carried: bigint
}

/** An operation that has the leases that it needs, if any, or the stale one of an operation to be ended. */
export interface ActiveOperation extends Begun {
  /** The last one taken comes first. */
  holds: readonly Hold[]
  /** Aborted with any of the leases, when the server closes, or when the operation is cancelled. */
  abort: AbortController
  /** For the work: stops with `abort`, and never writes without all leases. */
  workClient: CouchClient
  retries: number
  /** When it got the leases, on the monotonic clock. */
  beganAt: number
  progress: Progress
  /** Shared with the backup that a restore makes first. */
  cancellation: Cancellation
}

/** Returns the lease that an operation holds for a resource, if any. */
export const holdOf = ({ holds }: Pick<ActiveOperation, 'holds'>, resource: Resource): Hold | undefined =>
  holds.find(({ resources }) => resources.includes(resource))

/** Returns the client that records on a resource under its lease. @throws LeaseLostError when the operation has none there */
export function endClientIn(operation: ActiveOperation, resource: Resource): CouchClient {
  const hold = holdOf(operation, resource)
  if (!hold) throw new LeaseLostError(`the operation has no lease of the ${resource}`)
  return hold.client
}

/** Checks that an operation may go on. @throws LeaseLostError */
export const checkLeases = ({ holds }: Pick<ActiveOperation, 'holds'>): void => {
  for (const { lease } of holds) lease.check()
}

/** Returns an id after the number that the lease hands on (0 at first), and the next number, if any. */
export type IdAfter = (carried: bigint) => { id: string; carried?: bigint }

/** A lease, and what it is for. */
interface LeaseSite {
  leases: Leases
  /** Empty where the database is not the console's. */
  resources: readonly Resource[]
}

/** A lease of the console. */
export interface Site extends LeaseSite {
  notices: Notices
}

/** Says who holds a lease, or has left it, and where. */
export interface FoundLease extends Inspected {
  site: Site
}

/** The operations of this instance. Those that hold a lease are alone under it, on all instances. */
export class ActiveOperations {
  readonly #instance: Instance
  readonly #sites: readonly Site[]
  readonly #active = new Set<ActiveOperation>()
  /** End the work of operations that still take their leases. */
  readonly #beginning = new Set<AbortController>()
  /** No operation begins any more. */
  closing = false

  constructor(instance: Instance, { repository, system }: Databases, keep: KeepNotices) {
    this.#instance = instance
    const siteOf = (resources: readonly Resource[], on: (client: CouchClient) => LeaseDocument): Site => {
      const { document, leases } = leasesOn(instance.client, on, instance.options.timeouts, (leaves) =>
        keep(noticesIn(leaves))
      )
      return { resources, leases, notices: new Notices(document, keep) }
    }
    const sources = (resources: readonly Resource[]) =>
      siteOf(resources, (by) => new LeaseDocument(system.on(by)))
    this.#sites = repository.isIn(system)
      ? [sources(RESOURCES)]
      : [siteOf(['repository'], (by) => repository.lease(by)), sources(['sources'])]
  }

  get any(): boolean {
    return this.#active.size + this.#beginning.size > 0
  }

  /** Returns the leases of some resources, or of all, in the order in which they are taken. */
  sitesOf(resources: readonly Resource[] = RESOURCES): readonly Site[] {
    return this.#sites.filter((site) => site.resources.some((resource) => resources.includes(resource)))
  }

  /** Returns who holds a lease, or has left it, on this instance or another. */
  async inspectAt(site: Site): Promise<FoundLease | null> {
    const found = await site.leases.inspect()
    return found && { ...found, site }
  }

  /**
   * Begins an operation with the leases of these resources, if free or stale.
   * @param abort ends its work @throws LeaseHeldError, CouchError, ClosingError, and the reason of `abort`
   */
  async acquire(
    kind: OperationKind,
    idAfter: IdAfter,
    resources?: readonly Resource[],
    abort = new AbortController()
  ): Promise<ActiveOperation> {
    const begun = (carried: bigint): Begun => {
      const next = idAfter(carried)
      return { kind, id: next.id, carried: next.carried ?? carried }
    }
    this.#beginning.add(abort)
    try {
      const operation = await this.#begin(begun, this.sitesOf(resources), abort)
      // A server may have closed, or somebody given up, while a slow database gave the leases.
      if (this.closing) abort.abort(new ClosingError())
      if (abort.signal.aborted) await this.release(operation)
      abort.signal.throwIfAborted()
      return operation
    } finally {
      this.#beginning.delete(abort)
    }
  }

  async #begin(
    begun: (carried: bigint) => Begun,
    [first, ...further]: readonly Site[],
    abort: AbortController
  ): Promise<ActiveOperation> {
    if (!first) return this.#add(begun(0n), abort)
    const operation = await this.#beginAt(first, begun, abort)
    try {
      for (const site of further) await this.hold(operation, site)
    } catch (error) {
      await this.release(operation)
      throw this.#isHeldBy(operation, error)
        ? new HostValueError('backups', 'the system database, by another address: leave out the option')
        : error
    }
    return operation
  }

  /** Returns whether an operation found a lease held by itself: two databases that are one. */
  #isHeldBy({ id }: ActiveOperation, error: unknown): boolean {
    if (!(error instanceof LeaseHeldError)) return false
    return error.holder.id === id && error.holder.instance === this.#instance.name
  }

  /** Takes over a stale lease, to end on its resources what was left. @throws LeaseHeldError, LeaseGoneError, CouchError */
  takeOver({ site, claim, holder: { operation: kind, id } }: FoundLease): Promise<ActiveOperation> {
    return this.#beginAt(site, (carried) => ({ kind, id, carried }), new AbortController(), claim)
  }

  /** Takes a further lease for an operation. @param insteadOf the claim of a stale one @throws what {@link Leases} does */
  async hold(
    operation: ActiveOperation,
    { leases, resources }: LeaseSite,
    insteadOf?: string
  ): Promise<void> {
    const { kind, id, abort } = operation
    const { lease, left } = await this.#acquire(
      leases,
      (carried) => ({ kind, id, carried }),
      abort,
      insteadOf
    )
    this.#addHold(operation, { resources, lease, left })
  }

  /** Begins an operation with its first lease. @param begun returns what it is, after the number that the lease carried */
  async #beginAt(
    { leases, resources }: LeaseSite,
    begun: (carried: bigint) => Begun,
    abort: AbortController,
    insteadOf?: string
  ): Promise<ActiveOperation> {
    const { lease, left, holder } = await this.#acquire(leases, begun, abort, insteadOf)
    const operation = this.#add(holder, abort)
    this.#addHold(operation, { resources, lease, left })
    return operation
  }

  async #acquire(
    leases: Leases,
    begun: (carried: bigint) => Begun,
    abort: AbortController,
    insteadOf?: string
  ): Promise<Pick<Hold, 'lease' | 'left'> & { holder: Begun }> {
    const { name: instance } = this.#instance
    const left = new AbortController()
    let holder!: Begun
    const lease = await leases.acquire({
      insteadOf,
      holder(carried) {
        holder = begun(carried)
        const { kind: operation, id } = holder
        return { holder: { operation, id, instance }, carried: holder.carried }
      },
      onLost(error) {
        abort.abort(error)
        left.abort(error)
      }
    })
    return { lease, left, holder }
  }

  #add(begun: Begun, abort: AbortController): ActiveOperation {
    const { retry } = this.#instance.options
    const cancellation = new Cancellation(abort)
    const operation: ActiveOperation = {
      ...begun,
      holds: [],
      abort,
      workClient: this.#clientOf(
        () => operation,
        () => checkLeases(operation)
      ).with({ retry, signal: abort.signal, beforeRequest: () => cancellation.check() }),
      retries: 0,
      beganAt: performance.now(),
      progress: new Progress(),
      cancellation
    }
    this.#active.add(operation)
    return operation
  }

  #addHold(operation: ActiveOperation, hold: Omit<Hold, 'client'>): void {
    const { lease, left } = hold
    const client = this.#clientOf(
      () => operation,
      () => lease.check()
    ).with({ signal: left.signal })
    operation.holds = [{ ...hold, client }, ...operation.holds]
    operation.beganAt = performance.now()
  }

  /** Returns a client on the connections of operations, which tells its retries as those of an operation. */
  #clientOf(operation: () => ActiveOperation, beforeWrite: () => void): CouchClient {
    const { client, events } = this.#instance
    const onRetry = (failed: FailedAttempt) => {
      const told = operation()
      told.retries++
      events.emit({ type: 'retry', operation: told.kind, id: told.id, ...failed })
    }
    return client.for('operations').with({ beforeWrite, onRetry })
  }

  /** Gives leases back, all that an operation holds or one, at once: a server that does not answer keeps only its own. */
  async release(operation: ActiveOperation, holds = operation.holds): Promise<void> {
    await Promise.all(holds.map(({ lease }) => lease.release()))
    this.#leave(operation, holds)
  }

  /** Leaves leases to become stale: the instance that finds them ends the operation there. */
  abandon(operation: ActiveOperation, holds = operation.holds): void {
    for (const { lease, left } of holds) {
      lease.abandon()
      left.abort(new LeaseLostError('the lease was left'))
    }
    this.#leave(operation, holds)
  }

  #leave(operation: ActiveOperation, holds: readonly Hold[]): void {
    operation.holds = operation.holds.filter((hold) => !holds.includes(hold))
    if (operation.holds.length === 0) this.#active.delete(operation)
  }

  /** Stops the work of the operations; their end is still recorded. Those that take their leases do not begin. */
  stop(): void {
    for (const { abort } of this.#active) abort.abort(new ClosingError())
    for (const abort of this.#beginning) abort.abort(new ClosingError())
  }

  abandonAll(): void {
    for (const operation of this.#active) this.abandon(operation)
  }
}
