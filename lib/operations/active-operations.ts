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

/** The subject of a lease: the source databases, or the backups. One lease is for both where they share a database. */
export type Place = 'sources' | 'repository'

/** The places in the order in which leases are taken: the repository's lease numbers the backups. */
const PLACES: readonly Place[] = ['repository', 'sources']

/** A lease that an operation holds. */
export interface Hold {
  places: readonly Place[]
  lease: Lease
  /** Ends with the lease, or when it is left: nothing can be recorded in its places any more. */
  left: AbortController
  /** Records in its places, also after the work was stopped. Gives up soon until the work begins: somebody waits. */
  client: CouchClient
}

/** An operation that holds the leases of the places that it works on, or the stale one of an operation to be ended. */
export interface ActiveOperation {
  kind: OperationKind
  /** Id of the backup, or of the restore's transaction. */
  id: string
  /** The last one taken comes first. */
  holds: readonly Hold[]
  /** The number that its first lease carries: no backup there has a larger one, but for those that failed. */
  carried: bigint
  /** Aborted with any of the leases, or when the server closes. */
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

/** Returns the lease that an operation holds for a place, if any. */
export const holdOf = ({ holds }: Pick<ActiveOperation, 'holds'>, place: Place): Hold | undefined =>
  holds.find(({ places }) => places.includes(place))

/** Returns the client that records in a place under its lease. @throws LeaseLostError when the operation has none there */
export function endClientIn(operation: ActiveOperation, place: Place): CouchClient {
  const hold = holdOf(operation, place)
  if (!hold) throw new LeaseLostError(`the operation has no lease of the ${place}`)
  return hold.client
}

/** Checks that an operation may go on. @throws LeaseLostError */
export const checkLeases = ({ holds }: Pick<ActiveOperation, 'holds'>): void => {
  for (const { lease } of holds) lease.check()
}

/** Returns an id after the number that the lease hands on (0 at first), and the next number, if any. */
export type IdAfter = (carried: bigint) => { id: string; carried?: bigint }

/** A lease, and what it is for. */
export interface Site {
  places: readonly Place[]
  leases: Leases
  notices: Notices
}

/** Says who holds a lease, or has left it, and where. */
export interface Found extends Inspected {
  site: Site
}

/** The operations of this instance that hold leases: one at a time in each place, on all instances. */
export class ActiveOperations {
  readonly #instance: Instance
  readonly #sites: readonly Site[]
  readonly #active = new Set<ActiveOperation>()
  /** No operation begins any more. */
  closing = false

  constructor(instance: Instance, { repository, system }: Databases, keep: KeepNotices) {
    this.#instance = instance
    const siteOf = (places: readonly Place[], on: (client: CouchClient) => LeaseDocument): Site => {
      const { document, leases } = leasesOn(instance.client, on, instance.options.timeouts, (leaves) =>
        keep(noticesIn(leaves))
      )
      return { places, leases, notices: new Notices(document, keep) }
    }
    const sources = (places: readonly Place[]) => siteOf(places, (by) => new LeaseDocument(system.on(by)))
    this.#sites = repository.isIn(system)
      ? [sources(PLACES)]
      : [siteOf(['repository'], (by) => repository.lease(by)), sources(['sources'])]
  }

  get any(): boolean {
    return this.#active.size > 0
  }

  /** Returns the leases of some places, or of all, in the order in which they are taken. */
  sitesOf(places: readonly Place[] = PLACES): readonly Site[] {
    return this.#sites.filter((site) => site.places.some((place) => places.includes(place)))
  }

  /** Returns who holds a lease, or has left it, on this instance or another. */
  async inspectAt(site: Site): Promise<Found | null> {
    const found = await site.leases.inspect()
    return found && { ...found, site }
  }

  /** Takes the leases of these places, if free or stale. @throws LeaseHeldError, CouchError */
  async acquire(kind: OperationKind, idAfter: IdAfter, places?: readonly Place[]): Promise<ActiveOperation> {
    const operation = this.#new(kind)
    const [first, ...further] = this.sitesOf(places)
    try {
      await this.#hold(operation, first, (carried) => {
        const next = idAfter(carried)
        operation.id = next.id
        operation.carried = next.carried ?? carried
        return operation.carried
      })
      for (const site of further) await this.#hold(operation, site, (carried) => carried)
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

  /** Takes over a stale lease, to end in its places what was left. @throws LeaseHeldError, LeaseGoneError, CouchError */
  async takeOver({ site, claim, holder }: Found): Promise<ActiveOperation> {
    const operation = this.#new(holder.operation)
    operation.id = holder.id
    const handOn = (carried: bigint) => {
      operation.carried = carried
      return carried
    }
    await this.#hold(operation, site, handOn, claim)
    return operation
  }

  #new(kind: OperationKind): ActiveOperation {
    const { options } = this.#instance
    const abort = new AbortController()
    const cancellation = new Cancellation(abort)
    const operation: ActiveOperation = {
      kind,
      id: '',
      holds: [],
      carried: 0n,
      abort,
      workClient: this.#clientOf(
        () => operation,
        () => checkLeases(operation)
      ).with({
        retry: options.retry,
        signal: abort.signal,
        beforeRequest: () => cancellation.check()
      }),
      retries: 0,
      beganAt: performance.now(),
      progress: new Progress(),
      cancellation
    }
    return operation
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

  /** Takes one lease. @param handOn returns the number that the lease carries, after the one that it carried */
  async #hold(
    operation: ActiveOperation,
    { leases, places }: Site,
    handOn: (carried: bigint) => bigint,
    insteadOf?: string
  ): Promise<void> {
    const { name: instance } = this.#instance
    const left = new AbortController()
    const lease = await leases.acquire({
      insteadOf,
      holder(carried) {
        const handedOn = handOn(carried)
        return { holder: { operation: operation.kind, id: operation.id, instance }, carried: handedOn }
      },
      onLost(error) {
        operation.abort.abort(error)
        left.abort(error)
      }
    })
    const client = this.#clientOf(
      () => operation,
      () => lease.check()
    ).with({ signal: left.signal })
    operation.holds = [{ places, lease, left, client }, ...operation.holds]
    operation.beganAt = performance.now()
    this.#active.add(operation)
  }

  /** Gives leases back: all that an operation holds, or one. */
  async release(operation: ActiveOperation, holds = operation.holds): Promise<void> {
    for (const { lease } of holds) await lease.release()
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

  /** Stops the work of the operations; their end is still recorded. */
  stop(): void {
    for (const { abort } of this.#active) abort.abort(new ClosingError())
  }

  abandonAll(): void {
    for (const operation of this.#active) this.abandon(operation)
  }
}
