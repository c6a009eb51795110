import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { BackupEvent, OperationKind } from '../../types/events.js'
import type { RunningOperation } from '../../types/index.js'
import { cutText, MOST, messageOf } from '../bytes/cut-text.js'
import type { DatabaseSettings } from '../couch/database.js'
import { expected, isCouchError } from '../couch/errors.js'
import { type CancelledError, ClosingError, OperationInProgressError } from '../errors.js'
import type { LeaseHolder } from '../lease/lease-document.js'
import { type Inspected, LeaseGoneError, LeaseHeldError, type Leases } from '../lease/leases.js'
import { Progress } from '../observe/progress.js'
import { LinkedAbort } from '../waits/linked-abort.js'
import {
  type ActiveOperation,
  type ActiveOperations,
  type FoundLease,
  type Hold,
  holdOf,
  type IdAfter,
  type Resource,
  type Site
} from './active-operations.js'
import type { Databases } from './databases.js'
import type { Instance } from './instance.js'

/** How often, and milliseconds apart, to look whether an ended operation has given the lease back. */
const LEAVE_ATTEMPTS = 40
const LEAVE_WAIT = 50
/** Milliseconds between two looks at a lease of others that may be left. */
const LOOK_INTERVAL = 500

type Ended = Pick<Extract<BackupEvent, { type: 'backup_failed' }>, 'durationMs' | 'retries'>

export interface Failure {
  reason: string
  /** The error. Absent for an operation that another instance has left. */
  error?: unknown
  /** Whether the operation's record is known to have been created. */
  recorded: boolean
}

/**
 * The records that operations of one kind leave: headers of backups, transactions of restores. A kind that neither
 * records failures nor has anything to do before its lease is given back leaves nothing to be ended: anybody may take
 * over its stale lease.
 */
export interface OperationRecords {
  /** Absent where only the lease tells. */
  isOver?(holder: LeaseHolder): Promise<boolean>
  /** Records on a resource, unless that is recorded, that an operation has failed. Called for each resource, under its lease. */
  recordFailure?(operation: ActiveOperation, resource: Resource, failure: Failure): Promise<void>
  /**
   * Runs before the sources' lease is given back. If it fails, the instance that takes the stale lease over runs it.
   * @returns what is to be done afterwards, and is not waited for
   */
  beforeRelease?(operation: ActiveOperation): Promise<(() => Promise<void>) | undefined>
  /** Called for each operation that failed here, or was ended for another instance under the lease of the repository. */
  onFailed?(operation: ActiveOperation): void
}

/** The records of a kind that leaves none. */
export const NO_RECORDS: OperationRecords = {}

/** Runs an operation inside of another, under its lease and until its end. @throws what the inner operation throws */
export type RunInside = <Result, Prepared>(inner: InnerOperation<Result, Prepared>) => Promise<Result>

/**
 * Takes the lease of a database that is not the console's. One that is not renewed is waited for until it is stale.
 * @param conflict returns the error for a stale one whose operation has to be ended by its own console
 * @throws OperationInProgressError when the lease is renewed, or changes hands
 */
type HoldElsewhere = (leases: Leases, conflict: (left: LeaseHolder) => Error) => Promise<void>

type Kinds = Readonly<Record<OperationKind, OperationRecords>>

/** An operation that is to run. Its `work` is given what `prepare` has found: `true` where that is nothing. */
export interface NewOperation<Result, Prepared = true> {
  kind: OperationKind
  /** The resources whose leases it holds. Absent: the sources and the repository. Empty: none. */
  resources?: readonly Resource[]
  /** How to create the system database; `undefined`: it must exist. */
  system?: DatabaseSettings
  /** Returns the id after the number that the lease hands on, and after `taken` ids of other documents. */
  idAfter(carried: bigint, taken: readonly string[]): ReturnType<IdAfter>
  /** Called under the lease before anything is written. If it throws, the operation leaves no trace. */
  check?(): Promise<void>
  /**
   * Prepares the work, and creates the operation's record, if it has one, when all that may refuse it has been looked at.
   * @returns what the work is given, or `false` when another document has the id
   */
  prepare(operation: ActiveOperation, holdElsewhere: HoldElsewhere): Promise<Prepared | false>
  work(operation: ActiveOperation, prepared: Prepared, runInside: RunInside): Promise<Result>
  started(id: string): BackupEvent
  finished(id: string, ended: Ended, result: Result): BackupEvent
  failed(id: string, ended: Ended, error: Error): BackupEvent
  /** Facts that are told of it while it runs, besides its kind and id. */
  about?: Pick<RunningOperation, 'backup_id' | 'dry_run' | 'depth'>
  /** How it is cancelled. Absent where it must come to its end. */
  cancel?: 'now' | 'gently'
  /** Ends its work as well, for its reason. */
  signal?: AbortSignal
  /** Frees what was prepared, whether or not the operation began. */
  dispose?(): Promise<void>
}

/** An operation that runs inside of another, with an id that is given. */
export interface InnerOperation<Result, Prepared = true> extends NewOperation<Result, Prepared> {
  /** Prepares the work, and creates the operation's record. @throws ReservedIdError when another document has its id */
  prepare(operation: ActiveOperation, holdElsewhere: HoldElsewhere): Promise<Prepared>
}

/** Runs operations under the leases that they need, records their failures, and ends those of instances that died. */
export class Lifecycle {
  readonly #instance: Instance
  readonly #active: ActiveOperations
  readonly #databases: Databases
  readonly #kinds: Kinds

  /** @param kinds all that this version knows */
  constructor(instance: Instance, active: ActiveOperations, databases: Databases, kinds: Kinds) {
    this.#instance = instance
    this.#active = active
    this.#databases = databases
    this.#kinds = kinds
  }

  /** Looks at the leases of `resources`, or at all. @throws OperationInProgressError, ClosingError */
  async refuseIfInProgress(asked: OperationKind, resources?: readonly Resource[]): Promise<void> {
    if (this.#active.closing) throw new ClosingError()
    // One by one: an operation that has ended gives each lease back when its server takes it.
    for (const site of this.#active.sitesOf(resources)) {
      const found = await this.#active.inspectAt(site)
      if (found && found.staleIn > 0 && !(await this.#isLeaving(found)))
        throw new OperationInProgressError(asked, found.holder)
    }
  }

  /**
   * Runs an operation until it is recorded; ignoring the rejection of `finished`, its end, is safe.
   * @throws OperationInProgressError, MissingDatabaseError, ClosingError, and what `prepare` throws
   */
  async run<Result, Prepared>(
    operation: NewOperation<Result, Prepared>
  ): Promise<{ id: string; finished: Promise<Result> }> {
    const { jobs } = this.#instance
    let begun!: (id: string) => void
    const id = new Promise<string>((resolve) => {
      begun = resolve
    })
    const finished = jobs.add(this.#live(operation, begun))
    const over = jobs.add(finished.finally(() => operation.dispose?.()))
    // A failure before the operation has begun refuses it.
    return { id: await Promise.race([id, over.then(() => id)]), finished }
  }

  /**
   * Ends what stale leases of `resources`, or of all, name there: one server that is down keeps nothing from the other.
   * @returns milliseconds until a lease that was found is stale
   */
  async recover(resources?: readonly Resource[]): Promise<number | undefined> {
    const sites = this.#active.sitesOf(resources)
    const ended = await Promise.allSettled(sites.map((site) => this.#recoverAt(site)))
    const found = ended.map((one) => {
      if (one.status === 'rejected') throw one.reason
      return one.value ?? Number.POSITIVE_INFINITY
    })
    const staleIn = Math.min(...found)
    return Number.isFinite(staleIn) ? staleIn : undefined
  }

  async #recoverAt(site: Site): Promise<number | undefined> {
    await site.notices.move()
    const found = await this.#active.inspectAt(site)
    if (!found || found.staleIn > 0 || this.#active.closing) return found?.staleIn
    await this.#takeOver(found)
    return undefined
  }

  /**
   * Records a failure beside the backups again, under the repository's lease, if `isLate` then says so and no operation
   * is running.
   */
  async failAgain(
    { kind, id }: Pick<ActiveOperation, 'kind' | 'id'>,
    reason: string,
    isLate: () => Promise<boolean>
  ): Promise<void> {
    const acquiring = this.#acquire({ kind, resources: ['repository'] }, () => ({ id }))
    const active = await acquiring.catch(expected(isOneOf(OperationInProgressError, ClosingError), undefined))
    if (!active) return
    let late = false
    try {
      late = await isLate()
    } finally {
      if (!late) await this.#end(active)
    }
    if (late) await this.#endLeft(active, reason)
  }

  async #takeOver(found: FoundLease): Promise<void> {
    const { operation: kind, id } = found.holder
    const acquiring = this.#active.takeOver(found)
    const active = await acquiring.catch(expected(isOneOf(LeaseHeldError, LeaseGoneError), undefined))
    // Another instance ends it, or has done so.
    if (!active) return
    this.#instance.events.emit({ type: 'lease_taken_over', operation: kind, id })
    const records = this.#recordsOf(kind)
    // Only a later version can end the record of its kind.
    if (!records) return this.#active.release(active)
    const ofRepository = holdOf(active, 'repository') !== undefined
    await this.#endLeft(active, `interrupted: the server stopped while the ${kind} was running`)
    if (ofRepository) records.onFailed?.(active)
  }

  /** Returns the records of a kind, unless only a later version knows it. */
  #recordsOf(kind: OperationKind): OperationRecords | undefined {
    return Object.hasOwn(this.#kinds, kind) ? this.#kinds[kind] : undefined
  }

  /** Sees to an operation from its leases to its end. @param begun is called when it can no longer be refused */
  async #live<Result, Prepared>(
    operation: NewOperation<Result, Prepared>,
    begun: (id: string) => void
  ): Promise<Result> {
    for (const taken: string[] = []; ; ) {
      const { id, ended } = await this.#attempt(operation, taken, begun)
      if (ended) return ended.result
      taken.push(id)
    }
  }

  /** Attempts an operation with the next id. @returns how it ended, unless another document has the id */
  async #attempt<Result, Prepared>(
    operation: NewOperation<Result, Prepared>,
    taken: readonly string[],
    begun: (id: string) => void
  ): Promise<{ id: string; ended?: { result: Result } }> {
    const abort = new LinkedAbort().follow(operation.signal)
    try {
      const active = await this.#acquire(operation, (carried) => operation.idAfter(carried, taken), abort)
      const { id } = active
      return await this.#listed(operation, active, async () => {
        await operation.check?.()
        const prepared = await this.#prepare(operation, active)
        if (prepared === false) return { id }
        begun(id)
        return { id, ended: { result: await this.#see(operation, active, prepared) } }
      }).finally(() => this.#active.release(active))
    } finally {
      abort.release()
    }
  }

  /** Lists an operation as running, so that it can be cancelled, until `live` ends. */
  #listed<T>(
    { about, cancel: how }: Pick<NewOperation<unknown>, 'about' | 'cancel'>,
    { kind, id, holds, progress, cancellation }: ActiveOperation,
    live: () => Promise<T>
  ): Promise<T> {
    const cancel = how && ((error: CancelledError) => cancellation[how](error))
    const told = { ...about, operation: kind, id, ...(holds.length > 0 && { lease: true as const }) }
    return this.#instance.running.during(told, { progress, cancel }, live)
  }

  /** Takes the leases, after ending what another instance has left. */
  async #acquire(
    { kind, resources, system }: Pick<NewOperation<unknown>, 'kind' | 'resources' | 'system'>,
    idAfter: IdAfter,
    abort?: AbortController
  ): Promise<ActiveOperation> {
    if (this.#active.closing) throw new ClosingError()
    await this.#databases.ensure(resources, system)
    await this.refuseIfInProgress(kind, resources)
    await this.recover(resources)
    try {
      return await this.#active.acquire(kind, idAfter, resources, abort)
    } catch (error) {
      throw error instanceof LeaseHeldError ? new OperationInProgressError(kind, error.holder) : error
    }
  }

  /** Returns how an operation takes leases of others. */
  #elsewhere(active: ActiveOperation): HoldElsewhere {
    const { kind, abort } = active
    return async (leases, conflict) => {
      for (;;) {
        const left = await leftAt(leases, kind, abort.signal)
        if (left && !leavesNothing(this.#recordsOf(left.holder.operation))) throw conflict(left.holder)
        try {
          return await this.#active.hold(active, { leases, resources: [] }, left?.claim)
        } catch (error) {
          if (error instanceof LeaseHeldError) throw new OperationInProgressError(kind, error.holder)
          if (!(error instanceof LeaseGoneError)) throw error
        }
      }
    }
  }

  async #prepare<Prepared>(
    operation: Pick<NewOperation<unknown, Prepared>, 'prepare'>,
    active: ActiveOperation
  ): Promise<Prepared | false> {
    try {
      return await operation.prepare(active, this.#elsewhere(active))
    } catch (error) {
      // The record may have been written after all.
      await this.#fail(active, error, false)
      throw error
    }
  }

  async #see<Result, Prepared>(
    operation: NewOperation<Result, Prepared>,
    active: ActiveOperation,
    prepared: Prepared
  ): Promise<Result> {
    const { retry } = this.#instance.options
    for (const hold of active.holds) hold.client = hold.client.with({ retry })
    return this.#carryOut(operation, active, prepared, {
      end: () => this.#end(active),
      fail: (error) => this.#fail(active, error, true)
    })
  }

  /** Does the work and emits the events. @param ends record how it ended */
  async #carryOut<Result, Prepared>(
    operation: NewOperation<Result, Prepared>,
    active: ActiveOperation,
    prepared: Prepared,
    ends: { end: () => Promise<void>; fail: (error: unknown) => Promise<void> }
  ): Promise<Result> {
    const { events } = this.#instance
    const { id } = active
    const startedAt = performance.now()
    const before = active.retries
    const ended = () => ({ durationMs: performance.now() - startedAt, retries: active.retries - before })
    events.emit(operation.started(id))
    try {
      const result = await operation.work(active, prepared, (inner) =>
        this.#inside(active, { ...inner, cancel: operation.cancel })
      )
      await ends.end()
      events.emit(operation.finished(id, ended(), result))
      return result
    } catch (error) {
      await ends.fail(error)
      events.emit(operation.failed(id, ended(), error as Error))
      throw error
    }
  }

  /** Runs an operation that has a record of its own, under the leases of another. */
  async #inside<Result, Prepared>(
    outer: ActiveOperation,
    inner: InnerOperation<Result, Prepared>
  ): Promise<Result> {
    const { kind } = inner
    const { id } = inner.idAfter(outer.carried, [])
    const active = { ...outer, kind, id, beganAt: performance.now(), progress: new Progress() }
    return this.#listed(inner, active, async () => {
      const prepared = await inner.prepare(active, this.#elsewhere(outer))
      return this.#carryOut(inner, active, prepared, {
        end: async () => {},
        fail: (error) => this.#failInside(active, error)
      })
    })
  }

  /** Records the failure of an inner operation. If this fails, the end of the outer one does, or a take-over. */
  async #failInside(active: ActiveOperation, error: unknown): Promise<void> {
    const failure = { reason: reasonOf(error), error, recorded: true }
    for (const hold of active.holds.filter(isHeld))
      await this.#record(active, hold, failure).catch((cause) => this.#notRecorded(active, cause))
    this.#kinds[active.kind].onFailed?.(active)
  }

  /** Records a failure at once wherever the operation holds the lease. An instance that takes over does the rest. */
  async #fail(active: ActiveOperation, error: unknown, recorded: boolean): Promise<void> {
    const failure = { reason: reasonOf(error), error, recorded }
    const end = (hold: Hold) =>
      this.#endFailed(active, hold, failure).catch((cause) => this.#notRecorded(active, cause))
    await Promise.all(active.holds.map(end))
    this.#kinds[active.kind].onFailed?.(active)
  }

  #notRecorded({ kind, id }: ActiveOperation, error: Error): void {
    this.#instance.events.emit({ type: 'failure_not_recorded', operation: kind, id, error })
  }

  async #endLeft(active: ActiveOperation, reason: string): Promise<void> {
    const { kind, id } = active
    const startedAt = performance.now()
    for (const hold of active.holds) await this.#endFailed(active, hold, { reason, recorded: false })
    const durationMs = performance.now() - startedAt
    this.#instance.events.emit({ type: 'recovered', operation: kind, id, durationMs })
  }

  /** Records a failure on the resources of a lease, and gives that back. If recording fails, it becomes stale. */
  async #endFailed(active: ActiveOperation, hold: Hold, failure: Failure): Promise<void> {
    if (!isHeld(hold)) return this.#active.abandon(active, [hold])
    try {
      await this.#record(active, hold, failure)
    } catch (error) {
      this.#active.abandon(active, [hold])
      throw error
    }
    await this.#giveBack(active, hold)
  }

  async #record(active: ActiveOperation, { resources }: Hold, failure: Failure): Promise<void> {
    const records = this.#kinds[active.kind]
    // The sources come first: a client waits for its transaction to end.
    for (const resource of resources.toReversed()) await records.recordFailure?.(active, resource, failure)
  }

  /** Gives all leases back at once: a server that does not answer keeps only its own. */
  async #end(active: ActiveOperation): Promise<void> {
    await Promise.all(active.holds.map((hold) => this.#giveBack(active, hold)))
  }

  /** Gives a lease back, when what has to be done before is done. */
  async #giveBack(active: ActiveOperation, hold: Hold): Promise<void> {
    try {
      const after = hold.resources.includes('sources')
        ? await this.#kinds[active.kind].beforeRelease?.(active)
        : undefined
      await this.#active.release(active, [hold])
      if (after) this.#instance.jobs.add(after())
    } catch {
      // The instance that takes over the lease does what is left.
      this.#active.abandon(active, [hold])
    }
  }

  /** Waits for an operation whose record says that it is over to give the lease back. */
  async #isLeaving({ holder, site }: FoundLease): Promise<boolean> {
    const records = this.#recordsOf(holder.operation)
    for (let attempt = 0; attempt < LEAVE_ATTEMPTS; attempt++) {
      // The lease tells enough where the record cannot be read.
      if (!(await records?.isOver?.(holder).catch(expected(isCouchError, false)))) return false
      const found = await this.#active.inspectAt(site)
      if (found?.holder.id !== holder.id || found.staleIn === 0) return true
      await sleep(LEAVE_WAIT)
    }
    return false
  }
}

/** Returns an id for an operation whose record has none. @param beginning tells people its kind */
export const newOperationId = (beginning: string): string => `${beginning}_${randomBytes(16).toString('hex')}`

/** Returns whether a lease is relied on. */
function isHeld({ lease }: Hold): boolean {
  try {
    lease.check()
    return true
  } catch {
    return false
  }
}

/** Returns a stale lease, if there is one. @throws OperationInProgressError when the lease is renewed, or changes hands */
async function leftAt(leases: Leases, asked: OperationKind, signal: AbortSignal): Promise<Inspected | null> {
  for (let last: Inspected | undefined; ; ) {
    signal.throwIfAborted()
    const found = await leases.inspect()
    if (!found || found.staleIn === 0) return found
    if (last && (found.claim !== last.claim || found.staleIn > last.staleIn))
      throw new OperationInProgressError(asked, found.holder)
    last = found
    await sleep(Math.min(found.staleIn, LOOK_INTERVAL), undefined, { signal }).catch(() => undefined)
  }
}

/** Returns whether a kind is known to leave nothing that has to be ended. */
const leavesNothing = (records: OperationRecords | undefined): boolean =>
  records !== undefined && !records.recordFailure && !records.beforeRelease

/** Returns a test for errors of these kinds. */
export const isOneOf =
  (...kinds: (new (...given: never[]) => Error)[]) =>
  (error: unknown): boolean =>
    kinds.some((kind) => error instanceof kind)

function reasonOf(error: unknown): string {
  if (error instanceof ClosingError) return 'interrupted: the server was shut down'
  return cutText(messageOf(error), MOST.message)
}
