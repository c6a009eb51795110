import { randomBytes } from 'node:crypto'
import type { LastVerification } from '../../types/backups.js'
import type { VerifyDepth, VerifyOptions, VerifyReport } from '../../types/verify.js'
import type { CouchClient } from '../couch/client.js'
import type { FailedAttempt } from '../couch/retry.js'
import { LOGICAL_DATABASES } from '../databases.js'
import {
  BackupNotFoundError,
  BackupNotVerifiableError,
  ClosingError,
  DamagedBackupError,
  TooManyRequestsError,
  VerifyInterruptedError
} from '../errors.js'
import { ChangedMeanwhileError } from '../repository/damage.js'
import type { BackupState, LoadedBackup } from '../repository/loaded-backup.js'
import { StoredSource } from '../restore/stored-source.js'
import { Spool } from '../spool/spool.js'
import { reportOf } from '../verify/report.js'
import { Scratch, type ScratchResult } from '../verify/scratch.js'
import { Verification } from '../verify/verification.js'
import { LinkedAbort, onAbort } from '../waits/linked-abort.js'
import { type ActiveOperation, endClientIn } from './active-operations.js'
import type { Databases } from './databases.js'
import type { Instance } from './instance.js'
import type { NewOperation, OperationRecords } from './lifecycle.js'

/** Begins the ids of verifications that restore: interrupted ones leave scratch databases. */
const RESTORES = 'verify_restore_'

/** How often a backup is verified that is sealed anew meanwhile. */
const ATTEMPTS = 3

/** Backups that are looked at for one that was verified since a run was due. */
const LOOKED_AT = 10

/** Why backups of some states are not verified. */
const NOT_VERIFIABLE: Partial<Record<BackupState, string>> = {
  running: 'it is still being made',
  failed: 'it has failed, and holds nothing'
}

/** A run of the schedule. */
export interface VerifyDue {
  /** Milliseconds since the epoch. */
  due: number
  depth: VerifyDepth
  /** The position at which an earlier attempt was interrupted. */
  resume?: { id: string; from: string }
}

/** A backup was verified since a run of the schedule was due. */
export class AlreadyVerifiedError extends Error {
  readonly id: string
  readonly verified: LastVerification

  constructor(id: string, verified: LastVerification) {
    super(`backup ${id} is verified`)
    this.id = id
    this.verified = verified
  }
}

/** Thrown when there is no backup to verify. */
export class NothingToVerifyError extends Error {}

/** A verification that is to run. */
export interface VerifyRequest {
  backup: LoadedBackup
  depth: VerifyDepth
  verification: Verification
  signal: AbortSignal | undefined
  /** Checks under the lease whether it is still needed. */
  check?(): Promise<void>
}

/** Describes and runs verifications: those that restore, or that the schedule makes, under the lease. */
export class Verifies implements OperationRecords {
  readonly #instance: Instance
  readonly #databases: Databases
  /** Verifications that run without the lease. */
  readonly #running = new Set<AbortController>()
  #isStopped = false

  constructor(instance: Instance, databases: Databases) {
    this.#instance = instance
    this.#databases = databases
  }

  /** @throws InvalidParameterError, BackupNotFoundError, UnknownLayoutError, BackupNotVerifiableError, CouchError */
  async prepare(id: string, options: VerifyOptions): Promise<VerifyRequest> {
    const { depth = 'data', from, signal } = options
    const { backup, problem } = await this.#open(id)
    const why = backup.isLegacy
      ? 'athena made it; a restore of it with dryRun reads and checks all of it'
      : NOT_VERIFIABLE[backup.state]
    if (why !== undefined) throw new BackupNotVerifiableError(id, why)
    return { backup, depth, verification: new Verification(backup, depth, { from, problem }), signal }
  }

  /** Opens a backup. @returns what is wrong with its header, if it is so damaged that nothing can be read by it */
  async #open(
    id: string,
    repository = this.#databases.repository
  ): Promise<{ backup: LoadedBackup; problem?: DamagedBackupError }> {
    const found = await repository.find(id)
    try {
      found.checkReadable()
      return { backup: await found.open() }
    } catch (error) {
      if (!(error instanceof DamagedBackupError)) throw error
      return { backup: found, problem: error }
    }
  }

  /** Prepares the verification of a run. @throws AlreadyVerifiedError, NothingToVerifyError, CouchError */
  async prepareRun({ due, depth, resume }: VerifyDue): Promise<VerifyRequest> {
    const { id, contentDigest } = await this.#toVerify(due)
    const check = async () => {
      const newest = await this.#toVerify(due)
      // Another one may have ended: the next attempt verifies that.
      if (newest.id !== id || newest.contentDigest !== contentDigest) throw new BackupNotFoundError(id)
    }
    return {
      ...(await this.prepare(id, { depth, from: resume?.id === id ? resume.from : undefined })),
      check
    }
  }

  /** Finds the newest backup, unless one was verified since a run was due. */
  async #toVerify(due: number): Promise<LoadedBackup> {
    const { repository } = this.#databases
    const owner = await this.#databases.owner()
    let newest: LoadedBackup | undefined
    let looked = 0
    for (const id of (await repository.list()).toReversed()) {
      const loaded = await repository.load(id)
      if (!loaded?.isComplete || loaded.isLegacy || loaded.isLater || !loaded.isOf(owner)) continue
      newest ??= loaded
      const { verified } = loaded
      if (verified && verified.at >= due) throw new AlreadyVerifiedError(id, verified)
      if (++looked >= LOOKED_AT) break
    }
    if (!newest) throw new NothingToVerifyError()
    return newest
  }

  /** Verifies without the lease: nothing is written but what was found. */
  async run(request: VerifyRequest): Promise<VerifyReport> {
    if (this.#isStopped) throw new ClosingError()
    const full = () => new TooManyRequestsError('a backup is being verified on this instance')
    return this.#instance.verifications.take(full, () => this.#instance.jobs.add(this.#runFree(request)))
  }

  async #runFree(request: VerifyRequest): Promise<VerifyReport> {
    const about = aboutOf(request, newId(request))
    const abort = new LinkedAbort().follow(request.signal)
    const cancel = (error: Error) => abort.abort(error)
    return this.#instance.running.during({ operation: 'verify', ...about }, { cancel }, () =>
      this.#runAs(request, about, abort)
    )
  }

  async #runAs(
    request: VerifyRequest,
    about: ReturnType<typeof aboutOf>,
    abort: LinkedAbort
  ): Promise<VerifyReport> {
    const { events, client, options } = this.#instance
    const startedAt = performance.now()
    let retries = 0
    const ended = () => ({ durationMs: performance.now() - startedAt, retries })
    const onRetry = (failed: FailedAttempt) => {
      retries++
      events.emit({ type: 'retry', operation: 'verify', id: about.id, ...failed })
    }
    const own = client.for('operations').with({ retry: options.retry, signal: abort.signal, onRetry })
    this.#running.add(abort)
    events.emit({ type: 'verify_started', ...about })
    try {
      const report = await this.#verify(request, own)
      events.emit({ type: 'verify_finished', ...about, ...ended(), report })
      return report
    } catch (error) {
      events.emit({ type: 'verify_failed', ...about, ...ended(), error: error as Error })
      throw interrupted(request, error)
    } finally {
      this.#running.delete(abort)
      abort.release()
    }
  }

  /** Describes one that holds the lease. */
  describe(request: VerifyRequest): NewOperation<VerifyReport> {
    const id = newId(request)
    const about = aboutOf(request, id)
    return {
      kind: 'verify',
      cancel: 'now',
      about: { backup_id: about.backup_id, depth: about.depth },
      idAfter: () => ({ id }),
      check: request.check,
      createRecord: async () => true,
      work: (operation) => this.#underLease(request, operation),
      started: () => ({ type: 'verify_started', ...about }),
      finished: (_id, ended, report) => ({ type: 'verify_finished', ...about, ...ended, report }),
      failed: (_id, ended, error) => ({ type: 'verify_failed', ...about, ...ended, error: error as Error })
    }
  }

  async #underLease(request: VerifyRequest, operation: ActiveOperation): Promise<VerifyReport> {
    const { abort, workClient } = operation
    const stop = request.signal && onAbort(request.signal, (reason) => abort.abort(reason))
    try {
      return await this.#verify(request, workClient, operation)
    } finally {
      stop?.()
    }
  }

  /** @param operation absent where the lease is not held: nothing is restored then */
  async #verify(
    request: VerifyRequest,
    client: CouchClient,
    operation?: ActiveOperation
  ): Promise<VerifyReport> {
    const repository = this.#databases.repository.on(client)
    for (let left = ATTEMPTS; ; left--) {
      try {
        return await this.#verifyOnce(request, client, operation)
      } catch (error) {
        if (!(error instanceof ChangedMeanwhileError) || left <= 1) throw error
        const { backup, problem } = await this.#open(request.backup.id, repository)
        request.backup = backup
        request.verification = new Verification(backup, request.depth, { problem })
      }
    }
  }

  async #verifyOnce(
    { backup, depth, verification }: VerifyRequest,
    client: CouchClient,
    operation?: ActiveOperation
  ): Promise<VerifyReport> {
    const { id } = backup
    const own = backup.on(client)
    const repository = this.#databases.repository.on(client)
    await verification.run(own)
    if (!verification.isGood && !(await repository.has(id))) throw new BackupNotFoundError(id)
    const scratch =
      operation && depth === 'restore' && verification.isGood
        ? await this.#restore(own, operation)
        : undefined
    client.settings.signal?.throwIfAborted()
    const at = this.#instance.clock.now()
    const good = verification.isGood && (scratch?.problemCount ?? 0) === 0
    const sharing = await repository.recordVerdict({
      id,
      content: backup.contentDigest,
      findings: verification.findings,
      verified: { at, depth, good },
      readAll: depth !== 'structure' && verification.isComplete
    })
    return reportOf({ id, depth, at, verification, sharing, scratch })
  }

  async #restore(backup: LoadedBackup, { id, workClient }: ActiveOperation): Promise<ScratchResult> {
    const source = await StoredSource.open(backup, LOGICAL_DATABASES, () => new Spool(this.#instance.room))
    try {
      return await new Scratch(workClient, id).run(source)
    } finally {
      await source.close()
    }
  }

  /** Whether one runs without the lease. */
  get any(): boolean {
    return this.#running.size > 0
  }

  /** Ends those without the lease. */
  stop(): void {
    this.#isStopped = true
    for (const abort of this.#running) abort.abort(new ClosingError())
  }

  /** Returns `false`: only the lease tells of a verification. */
  async isOver(): Promise<boolean> {
    return false
  }

  /** Deletes scratch databases, whoever made them: nothing is given back as long as they are there. */
  async beforeRelease(operation: ActiveOperation): Promise<undefined> {
    const { id } = operation
    if (id.startsWith(RESTORES)) await new Scratch(endClientIn(operation, 'sources'), id).drop()
  }
}

/** Returns the error for the caller: one with a position, unless the backup has gone. */
export const interrupted = ({ backup, verification }: VerifyRequest, error: unknown): unknown =>
  error instanceof BackupNotFoundError
    ? error
    : new VerifyInterruptedError(backup.id, verification.position, error)

const newId = ({ depth }: VerifyRequest): string =>
  `${depth === 'restore' ? RESTORES : 'verify_'}${randomBytes(16).toString('hex')}`

const aboutOf = ({ backup, depth }: VerifyRequest, id: string) => ({ id, backup_id: backup.id, depth })
