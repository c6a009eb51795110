import type { Readable } from 'node:stream'
import type {
  BackupContent,
  BackupSummary,
  CopyOptions,
  CopyOutcome,
  PruneOptions,
  PruneOutcome,
  RekeyOutcome,
  RemovedBackups,
  Requester,
  RestoreOptions,
  StartedBackup,
  StartedRestore,
  StartOptions
} from './backups.js'
import type { DatabaseNames } from './databases.js'
import type { DiffOptions, DiffStream } from './diff.js'
import type { OperationKind } from './events.js'
import type { VerifyDepth, VerifyOptions, VerifyReport } from './verify.js'
import type { ShownTransaction } from './webhooks.js'

export type * from './backups.js'
export type * from './databases.js'
export type * from './diff.js'
export type * from './events.js'
export type * from './metrics.js'
export type * from './options.js'
export type * from './restores.js'
export type * from './verify.js'
export type * from './webhooks.js'

/** How a run of the schedule went. */
export interface ScheduledRun {
  /** When it was due, in milliseconds since the epoch. */
  due: number
  /** When its result was known. */
  at: number
  /**
   * - `made`: by this instance.
   * - `made_elsewhere`: a good backup that began since then was there already.
   * - `skipped`: a good backup was younger than `unlessYoungerThan`.
   * - `failed`: it is tried again, until the next one is due, unless it was cancelled.
   */
  result: 'made' | 'made_elsewhere' | 'skipped' | 'failed'
  /** The backup: the one that was made, that was there, or that failed. */
  id?: string
  /** Why it failed. */
  reason?: string
  /** Why the pruning that followed it failed, and removed less than it should. The backup is good. */
  pruningError?: string
}

/** The schedule of the option `schedule`, as this instance sees it. */
export interface ScheduleState {
  cron: string
  timezone: string
  /**
   * When this instance next sees to a backup, in milliseconds since the epoch, its jitter or the wait after a failure
   * included. In the past while it does so. After a clock was less than a day ahead, the first time that has not been seen
   * to.
   */
  next: number
  /** The last run that this instance saw to. Absent until there is one. */
  last?: ScheduledRun
  /** The schedule of verifications. Only with the option `schedule.verify`. */
  verify?: VerifyScheduleState
}

/** How a run of the option `schedule.verify` went. */
export interface VerifyRun {
  /** When it was due, in milliseconds since the epoch. */
  due: number
  /** When its result was known. */
  at: number
  /**
   * - `verified`: by this instance.
   * - `verified_elsewhere`: since it was due, by another instance or by a call of `verify`.
   * - `no_backup`: there was none to be verified.
   * - `failed`: it is tried again, until the next one is due, unless it was cancelled.
   */
  result: 'verified' | 'verified_elsewhere' | 'no_backup' | 'failed'
  /** The backup. */
  id?: string
  /** Whether nothing was wrong with it. */
  good?: boolean
  /** Why it failed. */
  reason?: string
}

/** The option `schedule.verify`, as this instance sees it. */
export interface VerifyScheduleState {
  cron: string
  depth: VerifyDepth
  /** When this instance next sees to a verification, in milliseconds since the epoch. */
  next: number
  /** The last run that this instance saw to. Absent until there is one. */
  last?: VerifyRun
}

/** How far an operation has come. */
export interface OperationProgress {
  /** Documents that were backed up, or that a restore has decided on and written. */
  documents: number
  /** Bytes of the documents' JSON. */
  bytes: number
  /** Documents in all: of a restore, those of the backup; of a backup, those of the last complete one. */
  expected_documents?: number
  expected_bytes?: number
}

/** An operation that runs on this instance. */
export interface RunningOperation {
  operation: OperationKind
  /** Id of the backup, of the restore's transaction, or of the operation itself, such as `verify_<random>`. */
  id: string
  /** The backup that is restored, verified or copied, when it has an id. */
  backup_id?: string
  /** A restore that writes nothing. */
  dry_run?: true
  /** How far a verification checks. Absent for other operations. */
  depth?: VerifyDepth
  /** The operation holds the console's lease: backups, restores and removals are refused until it has ended. */
  lease?: true
  /** When it began, in milliseconds since the epoch. */
  since: number
  /** Absent before anything is known, and for prunings, rekeyings, verifications and copies. */
  progress?: OperationProgress
  /** The operation was cancelled, and is ending. */
  cancelling?: true
}

/**
 * `fastify.dbBackups`: the operations of the HTTP API for the host's own code. Nobody is authorized here.
 *
 * Every method may throw DatabaseUnavailableError when CouchDB does not answer, CouchError when it refuses, and
 * HostValueError when the host's `couch`, `databases` or `publicUrl` gives something that cannot be used.
 */
export interface DbBackups {
  /**
   * Starts a backup of all databases, and resolves when its header is stored.
   * @throws OperationInProgressError when an operation holds the lease, on this instance or another
   * @throws InvalidParameterError when an option is not known or wrong
   * @throws KeyUnavailableError when the key of `encryption` is missing
   * @throws HostTimeoutError when `versions` does not answer, HostValueError when it gives more than 64 KiB
   * @throws TooManyRequestsError when 256 calls that begin an operation, or ask for a summary, wait, or this one has waited
   * for `timeouts.control`
   * @throws MissingDatabaseError, ReservedIdError, ClosingError
   */
  start(options?: StartOptions): Promise<StartedBackup>
  /**
   * Starts a restore of a stored backup (`{ id }`) or of one given as the JSON that the get-backup API sends (`{ body }`).
   * A `body` is read and checked whole before this resolves; `limits.uploadBytes` and `timeouts.idle` bound it.
   * @throws OperationInProgressError when an operation holds the lease, on this instance or another
   * @throws HostTimeoutError when `webhooks.create` does not answer
   * @throws MissingDatabaseError, ReservedIdError, ClosingError
   * @throws InvalidParameterError when the id is none, an option is not known or wrong, an operator of a selector among
   * them, the `body` is no stream, or the webhook's URL must not be called
   * @throws BackupNotFoundError, BackupNotRestorableError, UnknownLayoutError for an `id`, and TooManyRequestsError as
   * {@link start} does
   * @throws KeyUnavailableError, WrongKeyError, NotSealedBackupError, DamagedBackupError for an `id`, as {@link get} does
   * @throws InvalidBackupError, BackupNotRestorableError, TooLargeError, UploadTimeoutError, BodyAlreadyReadError,
   * InsufficientStorageError, TooManyUploadsError for a `body`
   */
  restore(source: { id: string } | { body: Readable }, options?: RestoreOptions): Promise<StartedRestore>
  /**
   * Opens a backup to be read: its summary, and a stream of the JSON document that the get-backup API sends.
   * @throws InvalidParameterError, BackupNotFoundError, UnknownLayoutError
   * @throws KeyUnavailableError, WrongKeyError, NotSealedBackupError, DamagedBackupError: see the option `encryption`
   * @throws TooManyDownloadsError when too many wait to be opened
   */
  get(id: string): Promise<BackupContent>
  /**
   * Returns a backup without its documents.
   * @throws InvalidParameterError, BackupNotFoundError, UnknownLayoutError
   * @throws KeyUnavailableError, WrongKeyError, NotSealedBackupError, DamagedBackupError as {@link get} does
   * @throws TooManyRequestsError as {@link start} does
   */
  summary(id: string): Promise<BackupSummary>
  /**
   * Tells how documents differ from a backup, in another backup or in the databases as they are: what was created, changed
   * and deleted since, from the backup `id` to `against`, whichever is older. Needs no lease and writes nothing; what
   * changes meanwhile is told as it was when it was read. Two backups that share chunks are compared by what they do not
   * share. Against `"now"` it decides as a restore with `exact` does: `created` is what that would delete, and the other
   * way round. Documents of types that one of the two left out are not told as created or deleted.
   *
   * One diff is read at a time; others wait for `timeouts.control`. A stream that was begun and is not read for
   * `timeouts.idle` fails with StalledDiffError. Failures, of the database too, end the stream with their error:
   * InvalidParameterError, BackupNotFoundError, BackupChangedError, UnknownLayoutError, BackupNotComparableError,
   * DamagedBackupError, KeyUnavailableError, WrongKeyError, NotSealedBackupError, InsufficientStorageError,
   * TooManyRequestsError, ClosingError, CouchError; and, of a backup that athena made, InvalidBackupError and TooLargeError.
   * @throws InvalidParameterError at once, when an option is not known or wrong
   */
  diff(id: string, options: DiffOptions): DiffStream
  /** Returns the ids of all backups, oldest first. */
  list(): Promise<{ ids: string[] }>
  /**
   * Stores `data` as an attachment of a backup, as it is. Simultaneous appends to one backup are stored one after
   * another.
   * @throws InvalidParameterError, BackupNotFoundError, UnknownLayoutError, DamagedBackupError
   * @throws TooLargeError when `limits` forbid it, or CouchDB or a proxy before it does not take so much
   * @throws AppendBusyError when its turn does not come in `timeouts.control`
   */
  attach(id: string, name: string, data: string | Buffer, options?: { contentType?: string }): Promise<void>
  /**
   * Removes a backup, whether it is good or failed, or made by athena, and resolves when all is deleted that no other
   * backup has of it.
   * @throws BackupProtectedError when it is the newest good one, or of another console
   * @throws OperationInProgressError when an operation holds the lease, on this instance or another
   * @throws InvalidParameterError, BackupNotFoundError, UnknownLayoutError, and TooManyRequestsError as {@link start} does
   * @throws DamagedBackupError, UnknownLayoutError when another backup cannot be read whole, which may have any chunk:
   * nothing is removed then
   * @throws MissingDatabaseError, ReservedIdError, ClosingError, and DatabaseUnavailableError also when the lease is lost
   */
  remove(id: string): Promise<RemovedBackups>
  /**
   * Removes the backups that no rule keeps, and resolves when that is done. The newest good one, those that are
   * protected and those that are still being made stay.
   * @throws InvalidParameterError when an option is not known or wrong, or there is no `keep`
   * @throws ClockAheadError when this host's clock is more than five minutes ahead of the database server's, also for a
   * dry run: what is young would look old
   * @throws what {@link remove} throws of other backups and operations
   */
  prune(options?: PruneOptions): Promise<PruneOutcome>
  /**
   * Seals all backups with the current key of the option `encryption`, also those that are not sealed, and resolves when
   * that is done and what it replaces is deleted. Wherever it ends, all backups are whole, and the next one goes on.
   * @throws InvalidParameterError without the option `encryption`, KeyUnavailableError when the current key is missing
   * @throws OperationInProgressError, TooManyRequestsError, MissingDatabaseError, ReservedIdError, ClosingError, and
   * DatabaseUnavailableError also when the lease is lost
   */
  rekey(): Promise<RekeyOutcome>
  /**
   * Checks that a backup is whole, and resolves with what was checked and what is wrong. Damage is recorded in
   * the headers of all backups that share it: `damaged` in their summaries. With `restore` it holds the lease, as a
   * backup does, and needs the rights of a server administrator, since it makes and deletes databases.
   * @throws BackupNotFoundError also when the backup is removed meanwhile
   * @throws BackupNotVerifiableError when it is still being made, has failed, or athena made it
   * @throws VerifyInterruptedError when it does not come to its end, with the position where another can go on
   * @throws InvalidParameterError when an option is not known or wrong, or `from` is of another verification
   * @throws TooManyRequestsError when another verification runs on this instance, or as {@link start} does
   * @throws OperationInProgressError, MissingDatabaseError, ReservedIdError with `restore`, as {@link start} does
   * @throws KeyUnavailableError, WrongKeyError, NotSealedBackupError as {@link get} does
   * @throws UnknownLayoutError, ClosingError, and the reason of `signal` when it is aborted already
   */
  verify(id: string, options?: VerifyOptions): Promise<VerifyReport>
  /**
   * Copies a good backup to another repository, with only the parts that are missing there, and resolves when its header is
   * there. It reads here, and holds the lease of the database that it writes to: backups and prunings there wait
   * for it. A copy that does not come to its end leaves no backup there; the next one goes on. Appended attachments
   * are copied, what verifications have noted is not.
   * @throws BackupNotFoundError also when the backup is removed meanwhile
   * @throws BackupNotCopyableError when it is still being made, has failed, is damaged, or athena made it
   * @throws CopyConflictError, ReservedIdError when something else is there under the id of the backup or of a part; nothing
   * is written
   * @throws DamagedBackupError when a part is missing or not what was stored
   * @throws OperationInProgressError when an operation holds the lease of that database
   * @throws LeaseLostError when it could not be renewed: nothing more is written; CancelledError after {@link cancel}
   * @throws KeyUnavailableError, WrongKeyError when the header of a sealed backup has to be sealed anew, since revisions
   * differ there, and the key is missing. As long as none differs, no key is needed
   * @throws NotSealedBackupError as {@link get} does
   * @throws InvalidParameterError when an option is not known or wrong, or `to` is the database of the backups
   * @throws MissingDatabaseError when there is no database `to`
   * @throws TooManyRequestsError when another copy runs on this instance, or as {@link start} does
   * @throws UnknownLayoutError, ClosingError, and the reason of `signal`
   */
  copy(id: string, options: CopyOptions): Promise<CopyOutcome>
  /** The next and the last run of the option `schedule`; `undefined` without it. */
  readonly schedule: ScheduleState | undefined
  /** The operations on this instance, in the order in which they began; safety backups of restores as well. */
  readonly running: readonly RunningOperation[]
  /** Real names of the databases, as the option `databases` gives them now. @throws HostValueError */
  readonly databases: Required<DatabaseNames>
  /**
   * Ends a backup, a restore, a verification or a copy that runs on this instance, by its id in {@link running}, and
   * resolves when it was told to end. It then fails with a CancelledError, a verification with a VerifyInterruptedError
   * that tells where it can go on: a backup is marked as failed and its parts are deleted; a restore writes nothing more,
   * and its transaction and IncompleteRestoreError tell what it had written; a copy leaves no backup. An operation that
   * has ended by then stays. The backup that a restore makes first is cancelled with the restore.
   * @param options.requester who asks, told as the reason
   * @throws InvalidParameterError when the id is no string, or an option is not known
   * @throws NotRunningError when nothing of this id runs on this instance
   * @throws NotCancellableError for a pruning or a rekeying
   */
  cancel(id: string, options?: { requester?: Requester }): Promise<RunningOperation>
  /**
   * Returns the transaction of a restore, or `null` when there is none.
   * @throws HostTimeoutError when `webhooks.get` does not answer
   */
  transaction(txId: string): Promise<ShownTransaction | null>
  /**
   * Returns the transactions of the latest restores, newest first, without dry runs: those that this instance began, and
   * those that the `list` of the host's webhook store tells, which is asked every five minutes at most.
   * @param options.limit 1 to 100, default 20
   * @throws InvalidParameterError for another limit, HostTimeoutError when `webhooks` does not answer
   */
  restores(options?: { limit?: number }): Promise<ShownTransaction[]>
}

declare module 'fastify' {
  interface FastifyInstance {
    dbBackups: DbBackups
  }
}
