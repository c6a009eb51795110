import { setTimeout as sleep } from 'node:timers/promises'
import type { BackupEvent, OperationKind } from '../../types/events.js'
import { cutText, MOST, messageOf } from '../bytes/cut-text.js'
import type { DatabaseSettings } from '../couch/database.js'
import { ClosingError, LeaseLostError, OperationInProgressError, ReservedIdError } from '../errors.js'
import type { FoundLease } from '../lease/earlier-versions.js'
import type { LeaseHolder } from '../lease/lease-document.js'
import { LeaseGoneError, LeaseHeldError } from '../lease/leases.js'
import type { ActiveOperation, ActiveOperations, IdAfter } from './active-operations.js'
import type { Instance } from './instance.js'

/** How often, and milliseconds apart, to look whether an ended operation has given the lease back. */
const LEAVE_ATTEMPTS = 40
const LEAVE_WAIT = 50

type Ended = Pick<Extract<BackupEvent, { type: 'backup_failed' }>, 'durationMs' | 'retries'>

export interface Failure {
  reason: string
  /** The error. Absent for an operation that another instance has left. */
  error?: unknown
  /** Whether the operation's record is known to have been created. */
  recorded: boolean
}

/** The records that operations of one kind leave: headers of backups, transactions of restores. */
export interface OperationRecords {
  /** Checks or creates the databases; without `system`, that one must exist. @throws MissingDatabaseError */
  ensureDatabases(system?: DatabaseSettings): Promise<void>
  isOver(holder: LeaseHolder): Promise<boolean>
  /** Records that an operation has failed, unless its record says that it has ended. */
  recordFailure(operation: ActiveOperation, failure: Failure): Promise<void>
  /**
   * Runs before the lease is given back. If it fails, the instance that takes the stale lease over runs it.
   * @returns what is to be done afterwards, and is not waited for
   */
  beforeRelease?(operation: ActiveOperation): Promise<(() => Promise<void>) | undefined>
  /** Is told of each operation that failed here, or that was ended for another instance. */
  onFailed?(operation: ActiveOperation): void
}

/** Runs an operation inside of another, under its lease and until its end. @throws what the inner operation throws */
export type RunInside = <Result>(inner: NewOperation<Result>) => Promise<Result>

type Kinds = Readonly<Record<OperationKind, OperationRecords>>

export interface NewOperation<Result> {
  kind: OperationKind
  /** How to create the system database; `undefined`: it must exist. */
  system?: DatabaseSettings
  /** Returns the id after the number that the lease hands on, and after `taken` ids of other documents. */
  idAfter(carried: bigint, taken: readonly string[]): ReturnType<IdAfter>
  /** Is asked under the lease before anything is written. If it throws, the operation leaves no trace. */
  check?(): Promise<void>
  /** Creates the operation's record. Returns `false` when another document has its id. */
  createRecord(operation: ActiveOperation): Promise<boolean>
  work(operation: ActiveOperation, runInside: RunInside): Promise<Result>
  started(id: string): BackupEvent
  finished(id: string, ended: Ended, result: Result): BackupEvent
  failed(id: string, ended: Ended, error: unknown): BackupEvent
  /** Frees what was prepared, whether or not the operation began. */
  dispose?(): Promise<void>
}

/** Runs operations under the lease, records their failures, and ends those of instances that died. */
export class Lifecycle {
  readonly #instance: Instance
  readonly #active: ActiveOperations
  readonly #kinds: Kinds

  /** @param kinds all that this version knows */
  constructor(instance: Instance, active: ActiveOperations, kinds: Kinds) {
    this.#instance = instance
    this.#active = active
    this.#kinds = kinds
  }

  /** @throws OperationInProgressError, ClosingError */
  async refuseIfInProgress(asked: OperationKind): Promise<void> {
    if (this.#active.closing) throw new ClosingError()
    const found = await this.#active.inspect()
    if (!found || found.staleIn === 0 || (await this.#isLeaving(found.holder))) return
    throw new OperationInProgressError(asked, found.holder)
  }

  /**
   * Runs an operation until it is recorded; ignoring the rejection of `finished`, its end, is safe.
   * @throws OperationInProgressError, MissingDatabaseError, ClosingError, and what `createRecord` throws
   */
  async run<Result>(operation: NewOperation<Result>): Promise<{ id: string; finished: Promise<Result> }> {
    const { jobs } = this.#instance
    try {
      const active = await this.#begin(operation)
      const finished = jobs.add(this.#see(operation, active))
      jobs.add(finished.finally(() => operation.dispose?.()))
      return { id: active.id, finished }
    } catch (error) {
      await operation.dispose?.()
      throw error
    }
  }

  /** Ends the operation of a stale lease. @returns milliseconds until the lease found is stale */
  async recover(): Promise<number | undefined> {
    await this.#active.earlier.move()
    const found = await this.#active.inspect()
    if (!found || found.staleIn > 0 || this.#active.closing) return found?.staleIn
    await this.#takeOver(found)
    return undefined
  }

  /** Records a failure again under the lease, if `isLate` then says so and no operation is running. */
  async failAgain(
    kind: OperationKind,
    id: string,
    reason: string,
    isLate: () => Promise<boolean>
  ): Promise<void> {
    const taking = this.#take(kind, () => ({ id }))
    const active = await taking.catch(unless(OperationInProgressError, ClosingError))
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
    const taking = this.#active.acquire(kind, () => ({ id }), found)
    const active = await taking.catch(unless(LeaseHeldError, LeaseGoneError))
    // Another instance ends it, or has done so.
    if (!active) return
    this.#instance.events.emit({ type: 'lease_taken_over', operation: kind, id })
    // Only a later version can end the record of its kind.
    if (!Object.hasOwn(this.#kinds, kind)) return this.#active.release(active)
    await this.#endLeft(active, `interrupted: the server stopped while the ${kind} was running`, found)
    this.#kinds[kind].onFailed?.(active)
  }

  async #begin(operation: NewOperation<unknown>): Promise<ActiveOperation> {
    const { kind, system } = operation
    for (const taken: string[] = []; ; ) {
      const active = await this.#take(kind, (carried) => operation.idAfter(carried, taken), system)
      await this.#check(operation, active)
      if (await this.#createRecord(operation, active)) return active
      await this.#end(active)
      taken.push(active.id)
    }
  }

  /** Takes the lease, after ending what another instance has left. */
  async #take(kind: OperationKind, idAfter: IdAfter, system?: DatabaseSettings): Promise<ActiveOperation> {
    if (this.#active.closing) throw new ClosingError()
    await this.#kinds[kind].ensureDatabases(system)
    await this.refuseIfInProgress(kind)
    await this.recover()
    try {
      return await this.#active.acquire(kind, idAfter)
    } catch (error) {
      throw error instanceof LeaseHeldError ? new OperationInProgressError(kind, error.holder) : error
    }
  }

  async #check(operation: NewOperation<unknown>, active: ActiveOperation): Promise<void> {
    try {
      await operation.check?.()
    } catch (error) {
      await this.#end(active)
      throw error
    }
  }

  async #createRecord(operation: NewOperation<unknown>, active: ActiveOperation): Promise<boolean> {
    try {
      return await operation.createRecord(active)
    } catch (error) {
      // The record may have been written after all.
      await this.#fail(active, error, false)
      throw error
    }
  }

  async #see<Result>(operation: NewOperation<Result>, active: ActiveOperation): Promise<Result> {
    active.endClient = active.endClient.with({ retry: this.#instance.options.retry })
    return this.#carryOut(operation, active, {
      end: () => this.#end(active),
      fail: (error) => this.#fail(active, error, true)
    })
  }

  /** Does the work and emits the events. @param ends record how it ended */
  async #carryOut<Result>(
    operation: NewOperation<Result>,
    active: ActiveOperation,
    ends: { end: () => Promise<void>; fail: (error: unknown) => Promise<void> }
  ): Promise<Result> {
    const { events } = this.#instance
    const { id } = active
    const startedAt = performance.now()
    const before = active.retries
    const ended = () => ({ durationMs: performance.now() - startedAt, retries: active.retries - before })
    events.emit(operation.started(id))
    try {
      const result = await operation.work(active, (inner) => this.#inside(active, inner))
      await ends.end()
      events.emit(operation.finished(id, ended(), result))
      return result
    } catch (error) {
      await ends.fail(error)
      events.emit(operation.failed(id, ended(), error))
      throw error
    }
  }

  /** Runs an operation that has a record of its own, and no lease. */
  async #inside<Result>(outer: ActiveOperation, inner: NewOperation<Result>): Promise<Result> {
    const { kind } = inner
    const { id } = inner.idAfter(outer.carried, [])
    const active = { ...outer, kind, id, beganAt: performance.now() }
    await this.#kinds[kind].ensureDatabases(inner.system)
    if (!(await inner.createRecord(active))) throw new ReservedIdError(id, active.backups)
    return this.#carryOut(inner, active, {
      end: async () => {},
      fail: (error) => this.#failInside(active, error)
    })
  }

  /** Records the failure of an inner operation. The outer one does, or who takes the lease over, if this fails. */
  async #failInside(active: ActiveOperation, error: unknown): Promise<void> {
    const { kind, id } = active
    try {
      if (!(error instanceof LeaseLostError))
        await this.#kinds[kind].recordFailure(active, { reason: reasonOf(error), error, recorded: true })
    } catch (cause) {
      this.#instance.events.emit({ type: 'failure_not_recorded', operation: kind, id, error: cause as Error })
    }
    this.#kinds[kind].onFailed?.(active)
  }

  async #fail(active: ActiveOperation, error: unknown, recorded: boolean): Promise<void> {
    const { kind, id } = active
    try {
      // The instance that has taken over the lease records the failure.
      if (error instanceof LeaseLostError) this.#active.abandon(active)
      else await this.#endFailed(active, { reason: reasonOf(error), error, recorded })
    } catch (cause) {
      const { events } = this.#instance
      events.emit({ type: 'failure_not_recorded', operation: kind, id, error: cause as Error })
    }
    this.#kinds[kind].onFailed?.(active)
  }

  async #endLeft(active: ActiveOperation, reason: string, found?: FoundLease): Promise<void> {
    const { kind, id } = active
    const startedAt = performance.now()
    await this.#endFailed(active, { reason, recorded: false }, found)
    const durationMs = performance.now() - startedAt
    this.#instance.events.emit({ type: 'recovered', operation: kind, id, durationMs })
  }

  /** Records a failure and gives the lease back. If recording fails, the lease becomes stale. */
  async #endFailed(active: ActiveOperation, failure: Failure, found?: FoundLease): Promise<void> {
    try {
      await this.#kinds[active.kind].recordFailure(active, failure)
      if (found) await this.#active.earlier.discard(found)
    } catch (error) {
      this.#active.abandon(active)
      throw error
    }
    await this.#end(active)
  }

  /** Gives the lease back, when what has to be done before is done. */
  async #end(active: ActiveOperation): Promise<void> {
    try {
      const after = await this.#kinds[active.kind].beforeRelease?.(active)
      await this.#active.release(active)
      if (after) this.#instance.jobs.add(after())
    } catch {
      // The instance that takes over the lease does what is left.
      this.#active.abandon(active)
    }
  }

  /** Waits for an operation whose record says that it is over to give the lease back. */
  async #isLeaving(holder: LeaseHolder): Promise<boolean> {
    const known = Object.hasOwn(this.#kinds, holder.operation) ? this.#kinds[holder.operation] : undefined
    for (let attempt = 0; attempt < LEAVE_ATTEMPTS; attempt++) {
      if (!(await known?.isOver(holder))) return false
      const found = await this.#active.inspect()
      if (found?.holder.id !== holder.id || found.staleIn === 0) return true
      await sleep(LEAVE_WAIT)
    }
    return false
  }
}

/** Returns a rejection handler that ignores errors of these kinds. */
export function unless(...kinds: (new (...given: never[]) => Error)[]): (error: unknown) => undefined {
  return (error) => {
    if (!kinds.some((kind) => error instanceof kind)) throw error
  }
}

function reasonOf(error: unknown): string {
  if (error instanceof ClosingError) return 'interrupted: the server was shut down'
  return cutText(messageOf(error), MOST.message)
}
