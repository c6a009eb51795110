import createError from '@fastify/error'
import type { RestoreOutcome } from '../types/backups.js'
import type { OperationKind } from '../types/events.js'
import { cutText, MOST, messageOf } from './bytes/cut-text.js'
import { type CouchServer, nameOfServer } from './databases.js'

// Errors for callers, events, log and replies: each has a code, a status and a row in docs/hosts.md.

type MessageArgument = string | number | { cause: unknown }

/** Makes the base of a class of errors, which bear the name of the class. */
const publicError = <Code extends string, Status extends number>(
  code: Code,
  message: string,
  status: Status
) =>
  class extends createError<Code, Status, MessageArgument[]>(code, message, status, Error, false) {
    constructor(...given: MessageArgument[]) {
      super(...given)
      this.name = new.target.name
      // Begins with the name.
      Error.captureStackTrace(this, new.target)
    }
  }

export class DatabaseUnavailableError extends publicError(
  'DB_BACKUPS_DATABASE_UNAVAILABLE',
  'the database is not available: %s',
  503
) {}

/** A backup is another one than when its reading began: it was sealed anew, or something was appended. Nothing is damaged. */
export class BackupChangedError extends publicError(
  'DB_BACKUPS_CHANGED',
  'backup "%s" was changed while it was read: read it again',
  409
) {}

export class BackupNotFoundError extends publicError(
  'DB_BACKUPS_NOT_FOUND',
  'there is no backup "%s"',
  404
) {}

/** A backup that is not to be removed. The message says why. */
export class BackupProtectedError extends publicError(
  'DB_BACKUPS_PROTECTED',
  'backup "%s" cannot be removed: %s',
  409
) {}

export class ClockLeapError extends publicError(
  'DB_BACKUPS_CLOCK_LEAP',
  'backup "%s" began so long after "%s" that a clock may have been wrong: nothing was pruned. Look at prune({ dryRun: true }), and prune by hand, or wait for the next backup',
  409
) {}

/** The host's clock is ahead of the database server's: what goes by time, such as pruning, is refused. */
export class ClockAheadError extends publicError(
  'DB_BACKUPS_CLOCK_AHEAD',
  "the clock of this host is %s minutes ahead of the database server's: nothing was pruned. Set the one that is wrong, and prune again",
  409
) {}

export class BackupDeletedError extends publicError(
  'DB_BACKUPS_DELETED',
  'the header of backup "%s" was deleted or replaced while the backup was being made',
  500
) {}

export class ReservedIdError extends publicError(
  'DB_BACKUPS_RESERVED_ID',
  'document "%s" of database "%s" does not belong to the backups, but they need its id: give the document another id',
  409
) {}

/** A database is missing that is needed, or that a backup has documents of, or was deleted meanwhile. */
export class MissingDatabaseError extends publicError('DB_BACKUPS_MISSING_DATABASE', '%s', 409) {}

/** A backup that a later version of this package has stored in a way that this one does not know. */
export class UnknownLayoutError extends publicError(
  'DB_BACKUPS_UNKNOWN_LAYOUT',
  'the backup "%s" was made by a later version',
  400
) {
  constructor(readonly id: string) {
    super(id)
  }
}

export class BackupNotRestorableError extends publicError(
  'DB_BACKUPS_NOT_RESTORABLE',
  'cannot restore, %s',
  400
) {}

/** The backup cannot be verified at all. The message says why. */
export class BackupNotVerifiableError extends publicError(
  'DB_BACKUPS_NOT_VERIFIABLE',
  'backup "%s" cannot be verified: %s',
  400
) {}

/** A backup that cannot be compared with another or with the databases. The message says why. */
export class BackupNotComparableError extends publicError(
  'DB_BACKUPS_NOT_COMPARABLE',
  'cannot compare backup "%s": %s',
  400
) {}

/** A backup that cannot be copied to another repository. The message says why. */
export class BackupNotCopyableError extends publicError(
  'DB_BACKUPS_NOT_COPYABLE',
  'cannot copy backup "%s": %s',
  400
) {}

/** Something in the database that a backup is to be copied to is in the way, and was left as it is. */
export class CopyConflictError extends publicError(
  'DB_BACKUPS_COPY_CONFLICT',
  'cannot copy backup "%s" to database "%s": %s',
  409
) {}

/** An upload is not a backup. The message names the field. */
export class InvalidBackupError extends publicError('DB_BACKUPS_INVALID', '%s', 400) {}

/** A key that a backup is, or is to be, sealed with cannot be had. The message names its id. */
export class KeyUnavailableError extends publicError(
  'DB_BACKUPS_KEY_UNAVAILABLE',
  'the key "%s" of the backups is not available: %s',
  503
) {}

/** The host gives another key under an id than the one that a backup was sealed with. */
export class WrongKeyError extends publicError(
  'DB_BACKUPS_WRONG_KEY',
  'the key "%s" is not the one that the backup was sealed with',
  500
) {}

/** A backup that is not sealed, where `encryption.plain` is `refuse`. */
export class NotSealedBackupError extends publicError(
  'DB_BACKUPS_NOT_SEALED',
  'backup "%s" is not sealed, and encryption.plain refuses such backups: if it can be trusted, set that to "read" and run rekey()',
  409
) {}

/** A parameter is not what it should be. The message names it. */
export class InvalidParameterError extends publicError('DB_BACKUPS_INVALID_PARAMETER', '%s', 400) {}

/** A body, an attachment or an inflated upload is larger than allowed. The message names the limit. */
export class TooLargeError extends publicError('DB_BACKUPS_TOO_LARGE', '%s', 413) {}

/** Code of the host has read a body before the backups could. */
export class BodyAlreadyReadError extends publicError(
  'DB_BACKUPS_BODY_ALREADY_READ',
  'the host has read the body before the backups could: keep what reads bodies (hooks, middleware, parsers in front of Fastify) away from the paths of backups',
  500
) {}

/** A body stopped arriving for too long. */
export class UploadTimeoutError extends publicError(
  'DB_BACKUPS_UPLOAD_TIMEOUT',
  'the body stopped arriving',
  408
) {}

/** No room to spool an upload, or what is to be appended. */
export class InsufficientStorageError extends publicError('DB_BACKUPS_INSUFFICIENT_STORAGE', '%s', 507) {}

/** What was spooled to disk cannot be read back. */
export class SpoolDamagedError extends publicError(
  'DB_BACKUPS_SPOOL_DAMAGED',
  'what was spooled to disk cannot be read back: %s',
  500
) {}

/** Other appends took the places, or the header, for too long. */
export class AppendBusyError extends publicError(
  'DB_BACKUPS_APPEND_BUSY',
  'backup "%s" was not free for this append in time, or limits.appends arrive already: try again',
  503
) {}

export class RangeAfterEndError extends publicError(
  'DB_BACKUPS_RANGE',
  'headers/range begins after the end of the %s bytes',
  416
) {}

/** Code of the host, a hook or its webhook store, does not answer. The message names it. */
export class HostTimeoutError extends publicError(
  'DB_BACKUPS_HOST_TIMEOUT',
  '%s did not answer within %s ms',
  503
) {}

/** Code of the host gave something that cannot be used. The message names the option. */
export class HostValueError extends publicError('DB_BACKUPS_HOST_VALUE', '%s gave %s', 500) {}

export class TooManyRequestsError extends publicError(
  'DB_BACKUPS_TOO_MANY_REQUESTS',
  'too many requests at a time, %s',
  503
) {}

export class TooManyDownloadsError extends publicError(
  'DB_BACKUPS_TOO_MANY_DOWNLOADS',
  '%s backups are being downloaded, and no more at a time are allowed: try again later',
  503
) {}

export class TooManyUploadsError extends publicError(
  'DB_BACKUPS_TOO_MANY_UPLOADS',
  '%s backups are being uploaded, and no more at a time are allowed: try again later',
  503
) {}

/** The stream of a download was ended because its reader had stopped reading. */
export class StalledDownloadError extends publicError(
  'DB_BACKUPS_DOWNLOAD_STALLED',
  'the download was ended: too little of it was read for %s ms',
  408
) {}

/** A diff was ended because its reader had stopped reading. */
export class StalledDiffError extends publicError(
  'DB_BACKUPS_DIFF_STALLED',
  'the diff was ended: nothing of it was read for %s ms',
  408
) {}

/** An operation was ended because somebody asked for that. The message tells who, if that is known. */
export class CancelledError extends publicError('DB_BACKUPS_CANCELLED', 'cancelled%s', 409) {}

/** No operation of this id runs on this instance: it has ended, or runs on another one. */
export class NotRunningError extends publicError(
  'DB_BACKUPS_NOT_RUNNING',
  'nothing with the id "%s" runs on this server: it has ended, or runs on another one',
  404
) {}

/** An operation that must come to its end. */
export class NotCancellableError extends publicError(
  'DB_BACKUPS_NOT_CANCELLABLE',
  '"%s" cannot be cancelled: a %s that has begun is brought to its end',
  409
) {}

export class ClosingError extends publicError('DB_BACKUPS_CLOSING', 'the server is closing', 503) {}

/** More documents of a database changed while it was read than there is memory to tell their versions apart. */
export class TooManyRepeatedError extends publicError(
  'DB_BACKUPS_TOO_MANY_REPEATED',
  'more than %s documents came more than once, which is more than there is memory for',
  500
) {}

/** The host's `authorize` failed without a status of its own, or did not answer. */
export class AuthorizationFailedError extends publicError(
  'DB_BACKUPS_AUTHORIZATION_FAILED',
  'the request could not be authorized',
  500
) {}

/** The host's `authorize` gave `false`. */
export class ForbiddenError extends publicError('DB_BACKUPS_FORBIDDEN', 'not allowed', 403) {}

/** A page of another site has made a browser send the request. */
export class CrossSiteError extends publicError(
  'DB_BACKUPS_CROSS_SITE',
  'cross-site requests are refused; clients that are no browsers send the header x-requested-with',
  403
) {}

/** A body is coded in a way that is not supported. The reply's `Accept-Encoding` names those that are. */
export class EncodingError extends publicError(
  'DB_BACKUPS_ENCODING',
  'a content encoding is not supported: %s',
  415
) {}

/** The client broke off: nobody gets this reply, only the log does. */
export class ClientLeftError extends publicError('DB_BACKUPS_CLIENT_LEFT', 'the client broke off', 499) {}

/** A hook of the host has coded the rest of a backup, which a client joins to what it has. */
export class CodedPartError extends publicError(
  'DB_BACKUPS_CODED_PART',
  'a hook of the host has coded a part of a backup: it must leave replies with cache-control: no-transform as they are',
  500
) {}

/** A webhook store of this package has no transaction of this id. */
export class TransactionNotFoundError extends publicError(
  'DB_BACKUPS_NO_TRANSACTION',
  'there is no transaction "%s"',
  404
) {}

/** This package's webhook store in memory has a transaction of this id already. */
export class TransactionExistsError extends publicError(
  'DB_BACKUPS_TRANSACTION_EXISTS',
  'transaction "%s" exists',
  409
) {}

/** The backup that a restore makes first has failed: nothing was restored. */
export class SafetyBackupError extends publicError(
  'DB_BACKUPS_SAFETY_BACKUP_FAILED',
  'nothing was restored: the backup that is made first has failed: %s. Mend that, or restore with safety: false',
  500
) {}

export class OperationInProgressError extends Error {
  override readonly name = 'OperationInProgressError'
  readonly code = 'DB_BACKUPS_IN_PROGRESS'
  readonly statusCode = 400
  readonly operation: OperationKind
  readonly id: string

  constructor(asked: OperationKind, running: { operation: OperationKind; id: string }) {
    super(asked === running.operation ? 'already_in_progress' : `${running.operation}_in_progress`)
    this.operation = running.operation
    this.id = running.id
  }
}

/** This instance ran an operation, lost the lease, and must not write any more. */
export class LeaseLostError extends Error {
  override readonly name = 'LeaseLostError'
  readonly code = 'DB_BACKUPS_LEASE_LOST'
  readonly statusCode = 503
}

/** A part of a stored backup is missing, or is not what was stored. */
export class DamagedBackupError extends Error {
  override readonly name = 'DamagedBackupError'
  readonly code = 'DB_BACKUPS_DAMAGED'
  readonly statusCode = 500
  readonly part: 'header' | 'manifest' | 'chunk'
  /** Id of its document. */
  readonly id: string

  constructor(part: DamagedBackupError['part'], id: string, reason: string) {
    super(`backup ${part} "${id}" ${reason}`)
    this.part = part
    this.id = id
  }
}

/** A verification did not come to its end. `cause` tells why: a fault of the database, an abort, or the server closes. */
export class VerifyInterruptedError extends Error {
  override readonly name = 'VerifyInterruptedError'
  readonly code = 'DB_BACKUPS_VERIFY_INTERRUPTED'
  readonly statusCode = 503
  /** Id of the backup. */
  readonly id: string
  /** The position from which `verify(id, { from })` goes on. */
  readonly position: string

  constructor(id: string, position: string, cause: unknown) {
    super(`the verification of backup "${id}" was interrupted: ${cutText(messageOf(cause), MOST.reason)}`, {
      cause
    })
    this.id = id
    this.position = position
  }
}

/** A restore wrote what it could, but not everything. */
export class IncompleteRestoreError extends Error {
  override readonly name = 'IncompleteRestoreError'
  readonly code = 'DB_BACKUPS_RESTORE_INCOMPLETE'
  readonly statusCode = 500
  readonly outcome: RestoreOutcome

  constructor(message: string, outcome: RestoreOutcome, cause?: Error) {
    super(message, { cause })
    this.outcome = outcome
  }
}

/** CouchDB refused a request or gave no usable answer. Texts are cut, and never hold the server's URL. */
export class CouchError extends Error {
  override readonly name = 'CouchError'
  readonly code = 'DB_BACKUPS_DATABASE_ERROR'
  readonly statusCode = 502
  /** HTTP status of CouchDB, or 0 when there was no usable answer. */
  readonly status: number
  /** CouchDB's `error`, or a code of ours, such as `unreachable`, `cut_off`, `stalled`, `truncated` or `bad_answer`. */
  readonly error: string
  readonly reason: string
  /** Whether the same request may succeed later. */
  readonly retryable: boolean
  /** Milliseconds to wait, if the server said so. */
  readonly retryAfter: number | undefined
  /** Whether a proxy or a gateway before CouchDB answered. */
  readonly gateway: boolean
  /** Bytes of the request's body, if it may have failed by its length. */
  readonly sent: number | undefined
  #server: CouchServer | undefined

  /** @param what the request, or the document or answer that failed */
  constructor(
    what: string,
    details: Pick<CouchError, 'error' | 'reason'> &
      Partial<Pick<CouchError, 'status' | 'retryable' | 'retryAfter' | 'gateway' | 'sent' | 'cause'>>
  ) {
    const error = cutText(details.error, MOST.name)
    const reason = cutText(details.reason, MOST.reason)
    super(`${cutText(what, MOST.reason)}: ${error}, ${reason}`, { cause: details.cause })
    this.status = details.status ?? 0
    this.error = error
    this.reason = reason
    this.retryable = details.retryable ?? false
    this.retryAfter = details.retryAfter
    this.gateway = details.gateway ?? false
    this.sent = details.sent
  }

  /** The server that failed, where the backups have one of their own. */
  get server(): CouchServer | undefined {
    return this.#server
  }

  /** Notes, and says in the message, which of two servers failed. */
  cameFrom(server: CouchServer): void {
    if (this.#server) return
    this.#server = server
    this.message = `${nameOfServer(server)}: ${this.message}`
  }
}
