import type { LastVerification } from '../../types/backups.js'
import type { VerifyDepth, VerifyOptions, VerifyReport } from '../../types/verify.js'
import { LOGICAL_DATABASES } from '../databases.js'
import {
  BackupChangedError,
  BackupNotFoundError,
  BackupNotVerifiableError,
  DamagedBackupError,
  TooManyRequestsError,
  VerifyInterruptedError
} from '../errors.js'
import { type LoadedBackup, whyEmpty } from '../repository/loaded-backup.js'
import { StoredSource } from '../restore/stored-source.js'
import type { Clock } from '../schedule/clock.js'
import { reportOf } from '../verify/report.js'
import { Scratch, type ScratchResult } from '../verify/scratch.js'
import { Verification } from '../verify/verification.js'
import type { Places } from '../waits/places.js'
import { type ActiveOperation, endClientIn } from './active-operations.js'
import type { Databases } from './databases.js'
import type { Instance } from './instance.js'
import { type NewOperation, newOperationId, type OperationRecords } from './lifecycle.js'

/** Begins the ids of verifications that restore: interrupted ones leave scratch databases. */
const RESTORES = 'verify_restore'

/** How often a backup is verified that is sealed anew meanwhile. */
const ATTEMPTS = 3

/** Backups that are looked at for one that was verified since a run was due. */
const LOOKED_AT = 10

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

/** Describes verifications: those that restore, or that the schedule makes, hold the lease. */
export class Verifies implements OperationRecords {
  readonly #clock: Clock
  readonly #places: Places
  readonly #databases: Databases

  constructor({ clock, verifications }: Pick<Instance, 'clock' | 'verifications'>, databases: Databases) {
    this.#clock = clock
    this.#places = verifications
    this.#databases = databases
  }

  /** @throws InvalidParameterError, BackupNotFoundError, UnknownLayoutError, BackupNotVerifiableError, CouchError */
  async prepare(id: string, options: VerifyOptions): Promise<VerifyRequest> {
    const { depth = 'data', from, signal } = options
    const { backup, problem } = await this.#open(id)
    const why = backup.isLegacy
      ? 'athena made it; a restore of it with dryRun reads and checks all of it'
      : whyEmpty(backup.state)
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

  /** Describes a verification: under the lease where databases are made, or where it is asked for. */
  describe(request: VerifyRequest): NewOperation<VerifyReport> {
    const { backup, depth, signal, check } = request
    const id = newOperationId(depth === 'restore' ? RESTORES : 'verify')
    const about = { backup_id: backup.id, depth }
    return {
      kind: 'verify',
      cancel: 'now',
      about,
      resources: isAlone(request) ? undefined : [],
      signal,
      idAfter: () => ({ id }),
      check,
      prepare: async () => true,
      work: (operation) => this.#verify(request, operation),
      started: () => ({ type: 'verify_started', id, ...about }),
      finished: (_id, ended, report) => ({ type: 'verify_finished', id, ...about, ...ended, report }),
      failed: (_id, ended, error) => ({ type: 'verify_failed', id, ...about, ...ended, error })
    }
  }

  /** Runs a verification in the only place, unless it runs alone: each may take as much memory as a restore. */
  inPlace<T>(request: VerifyRequest, run: () => Promise<T>): Promise<T> {
    if (isAlone(request)) return run()
    const full = () => new TooManyRequestsError('a backup is being verified on this instance')
    return this.#places.run(full, run)
  }

  async #verify(request: VerifyRequest, operation: ActiveOperation): Promise<VerifyReport> {
    const repository = this.#databases.repository.on(operation.workClient)
    for (let left = ATTEMPTS; ; left--) {
      try {
        return await this.#verifyOnce(request, operation)
      } catch (error) {
        if (!(error instanceof BackupChangedError) || left <= 1) throw error
        const { backup, problem } = await this.#open(request.backup.id, repository)
        request.backup = backup
        request.verification = new Verification(backup, request.depth, { problem })
      }
    }
  }

  async #verifyOnce(
    { backup, depth, verification }: VerifyRequest,
    operation: ActiveOperation
  ): Promise<VerifyReport> {
    const { abort, workClient } = operation
    const { id } = backup
    const own = backup.on(workClient)
    const repository = this.#databases.repository.on(workClient)
    await verification.run(own)
    if (!verification.isGood && !(await repository.has(id))) throw new BackupNotFoundError(id)
    const scratch =
      depth === 'restore' && verification.isGood ? await this.#restore(own, operation) : undefined
    abort.signal.throwIfAborted()
    const at = this.#clock.now()
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
    const source = await StoredSource.open(backup, LOGICAL_DATABASES, this.#databases.newSpool)
    try {
      return await new Scratch(workClient, id).run(source)
    } finally {
      await source.close()
    }
  }

  /** Deletes scratch databases, whoever made them: nothing is given back as long as they are there. */
  async beforeRelease(operation: ActiveOperation): Promise<undefined> {
    const { id } = operation
    if (id.startsWith(`${RESTORES}_`)) await new Scratch(endClientIn(operation, 'sources'), id).drop()
  }
}

/** Returns the error of a verification that had begun: one with a position, unless the backup has gone. */
export const interrupted = ({ backup, verification }: VerifyRequest, error: unknown): unknown =>
  error instanceof BackupNotFoundError
    ? error
    : new VerifyInterruptedError(backup.id, verification.position, error)

/** Returns whether a verification holds the lease: it makes databases, or must not be made twice. */
const isAlone = ({ depth, check }: VerifyRequest): boolean => depth === 'restore' || check !== undefined
