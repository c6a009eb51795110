import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { CopyOptions, CopyOutcome } from '../../types/backups.js'
import type { OperationKind } from '../../types/events.js'
import { CouchDatabase } from '../couch/database.js'
import type { FailedAttempt } from '../couch/retry.js'
import {
  ClosingError,
  CopyConflictError,
  InvalidParameterError,
  MissingDatabaseError,
  OperationInProgressError,
  TooManyRequestsError
} from '../errors.js'
import type { Lease } from '../lease/lease.js'
import { LeaseDocument } from '../lease/lease-document.js'
import { type Inspected, LeaseGoneError, LeaseHeldError, type Leases, leasesOn } from '../lease/leases.js'
import { LinkedAbort } from '../waits/linked-abort.js'
import { Places } from '../waits/places.js'
import type { Databases } from './databases.js'
import type { Instance } from './instance.js'
import type { OperationRecords } from './lifecycle.js'

/** Milliseconds between two looks at a lease that may be left. */
const LOOK_INTERVAL = 500
/** Operations that leave no record to be ended: anybody may take over their stale lease. */
const WITHOUT_RECORD: readonly OperationKind[] = ['copy', 'prune', 'rekey']

/** A copy that is to run, or runs. */
interface RunningCopy {
  about: { id: string; backup_id: string; database: string }
  abort: LinkedAbort
  retries: number
}

/**
 * Copies backups to other repositories. A copy only reads the repository of its console, so it needs no lease there: it
 * holds the one of the database that it writes to, as the operations of that database's consoles do.
 */
export class Copies implements OperationRecords {
  readonly #instance: Instance
  readonly #databases: Databases
  readonly #places = new Places({ most: 1 })
  readonly #running = new Set<LinkedAbort>()
  #isStopped = false

  constructor(instance: Instance, databases: Databases) {
    this.#instance = instance
    this.#databases = databases
  }

  /** @throws InvalidParameterError, BackupNotFoundError, UnknownLayoutError, BackupNotCopyableError, DamagedBackupError */
  check(id: string): Promise<void> {
    return this.#databases.repository.checkCopyable(id)
  }

  /** Whether one runs. */
  get any(): boolean {
    return this.#running.size > 0
  }

  stop(): void {
    this.#isStopped = true
    for (const abort of this.#running) abort.abort(new ClosingError())
  }

  /** @throws TooManyRequestsError, ClosingError, and what the copy fails with */
  async run(id: string, options: CopyOptions): Promise<CopyOutcome> {
    if (this.#isStopped) throw new ClosingError()
    const full = () => new TooManyRequestsError('a backup is being copied by this instance')
    return this.#places.take(full, () => this.#instance.jobs.add(this.#run(id, options)))
  }

  async #run(backup: string, { to, signal }: CopyOptions): Promise<CopyOutcome> {
    const id = `copy_${randomBytes(16).toString('hex')}`
    const abort = new LinkedAbort().follow(signal)
    const copy: RunningCopy = { about: { id, backup_id: backup, database: to.database }, abort, retries: 0 }
    const cancel = (error: Error) => abort.abort(error)
    return this.#instance.running.during({ operation: 'copy', id, backup_id: backup }, { cancel }, () =>
      this.#runAs(copy, to)
    )
  }

  async #runAs(copy: RunningCopy, { couch, database }: CopyOptions['to']): Promise<CopyOutcome> {
    const { abort } = copy
    const client = this.#instance.clientTo(couch, { option: 'options/to/couch', server: 'destination' })
    this.#running.add(abort)
    try {
      const target = new CouchDatabase(client.with({ signal: abort.signal }), database)
      await this.#checkTarget(target)
      const lease = await this.#acquire(target, copy)
      try {
        return await this.#copy(copy, target, lease)
      } finally {
        await lease.release()
      }
    } finally {
      this.#running.delete(abort)
      abort.release()
      await client.close()
    }
  }

  /** @throws InvalidParameterError, MissingDatabaseError */
  async #checkTarget(target: CouchDatabase): Promise<void> {
    if (this.#databases.repository.isIn(target))
      throw new InvalidParameterError('options/to: names the database that the backups are in')
    const sources = Object.values(this.#databases.sourcesOn(this.#instance.client))
    if (sources.some((source) => source.isSame(target)))
      throw new InvalidParameterError(`options/to: names a database that is backed up, "${target.name}"`)
    if (await target.find()) return
    throw new MissingDatabaseError(
      `database "${target.name}" does not exist where the backup is to be copied to: check options/to, or create it`
    )
  }

  async #copy(copy: RunningCopy, target: CouchDatabase, lease: Lease): Promise<CopyOutcome> {
    const { client, events, options } = this.#instance
    const { about, abort } = copy
    const startedAt = performance.now()
    const ended = () => ({ durationMs: performance.now() - startedAt, retries: copy.retries })
    const onRetry = (failed: FailedAttempt) => {
      copy.retries++
      events.emit({ type: 'retry', operation: 'copy', id: about.id, ...failed })
    }
    const settings = { retry: options.retry, signal: abort.signal, onRetry }
    const repository = this.#databases.repository.on(client.for('operations').with(settings))
    const writing = target.client.for('operations').with({ ...settings, beforeWrite: () => lease.check() })
    events.emit({ type: 'copy_started', ...about })
    try {
      const copied = await repository.copy(about.backup_id, target.on(writing), this.#databases.system.name)
      const outcome = { id: about.backup_id, ...copied }
      events.emit({ type: 'copy_finished', ...about, ...ended(), outcome })
      return outcome
    } catch (error) {
      events.emit({ type: 'copy_failed', ...about, ...ended(), error: error as Error })
      throw error
    }
  }

  /**
   * Takes the lease of the database that is written to. One that is not renewed is waited for until it is stale.
   * @throws OperationInProgressError, CopyConflictError when its operation has to be ended by its console
   */
  async #acquire(target: CouchDatabase, copy: RunningCopy): Promise<Lease> {
    const { about, abort } = copy
    // Given back also when the copy was ended.
    const client = target.client.with({ signal: undefined })
    const { leases } = leasesOn(
      client,
      (by) => new LeaseDocument(target.on(by)),
      this.#instance.options.timeouts
    )
    const stale = await this.#left(leases, abort.signal)
    if (stale && !WITHOUT_RECORD.includes(stale.holder.operation))
      throw new CopyConflictError(
        about.backup_id,
        target.name,
        `a ${stale.holder.operation} was interrupted there: start a console that keeps its backups there, which ends it`
      )
    const holder = { operation: 'copy' as const, id: about.id, instance: this.#instance.name }
    try {
      return await leases.acquire({
        insteadOf: stale?.claim,
        holder: (carried) => ({ holder, carried }),
        onLost: (error) => abort.abort(error)
      })
    } catch (error) {
      if (error instanceof LeaseHeldError) throw new OperationInProgressError('copy', error.holder)
      if (error instanceof LeaseGoneError) return this.#acquire(target, copy)
      throw error
    }
  }

  /** Returns a stale lease, if there is one. @throws OperationInProgressError when the lease is renewed, or changes hands */
  async #left(leases: Leases, signal: AbortSignal): Promise<Inspected | null> {
    for (let last: Inspected | undefined; ; ) {
      signal.throwIfAborted()
      const found = await leases.inspect()
      if (!found || found.staleIn === 0) return found
      if (last && (found.claim !== last.claim || found.staleIn > last.staleIn))
        throw new OperationInProgressError('copy', found.holder)
      last = found
      await sleep(Math.min(found.staleIn, LOOK_INTERVAL), undefined, { signal }).catch(() => undefined)
    }
  }

  /** Returns `false`: only the lease tells of a copy. What it left has no header; the next pruning deletes it. */
  async isOver(): Promise<boolean> {
    return false
  }
}
