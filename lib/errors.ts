import createError from '@fastify/error'
import type { RestoreOutcome } from '../types/backups.js'
import type { OperationKind } from '../types/events.js'

// Errors that reach a caller of `fastify.dbBackups`, an event, the log or a reply: each has `code`,
// `statusCode` and a row in docs/hosts.md.

export const DatabaseUnavailableError = createError(
  'DB_BACKUPS_DATABASE_UNAVAILABLE',
  'the database is not available: %s',
  503
)

export const BackupNotFoundError = createError('DB_BACKUPS_NOT_FOUND', 'there is no backup "%s"', 404)

export const BackupDeletedError = createError(
  'DB_BACKUPS_DELETED',
  'the header of backup "%s" was deleted or replaced while the backup was being made',
  500
)

export const ReservedIdError = createError(
  'DB_BACKUPS_RESERVED_ID',
  'document "%s" of database "%s" does not belong to the backups, but they need its id: give the document another id',
  409
)

/** A needed database is missing, or one of which a backup holds documents. The message names the option. */
export const MissingDatabaseError = createError('DB_BACKUPS_MISSING_DATABASE', '%s', 409)

/** A later version of this package stored the backup in an unknown layout. */
export const UnknownLayoutError = createError(
  'DB_BACKUPS_UNKNOWN_LAYOUT',
  'the backup "%s" was made by a later version',
  400
)

export const BackupNotRestorableError = createError('DB_BACKUPS_NOT_RESTORABLE', 'cannot restore, %s', 400)

/** What was uploaded is not a backup. The message names the field. */
export const InvalidBackupError = createError('DB_BACKUPS_INVALID', '%s', 400)

/** A parameter is not what it should be. The message names it. */
export const InvalidParameterError = createError('DB_BACKUPS_INVALID_PARAMETER', '%s', 400)

/** A body, an attachment, or inflated data is larger than allowed. The message names the limit. */
export const TooLargeError = createError('DB_BACKUPS_TOO_LARGE', '%s', 413)

export const BodyAlreadyReadError = createError(
  'DB_BACKUPS_BODY_ALREADY_READ',
  'the host has read the body before the backups could: keep what reads bodies (hooks, middleware, parsers in front of Fastify) away from the paths of backups',
  500
)

export const UploadTimeoutError = createError('DB_BACKUPS_UPLOAD_TIMEOUT', 'the body stopped arriving', 408)

/** No room to spool an upload, or what is to be appended. */
export const InsufficientStorageError = createError('DB_BACKUPS_INSUFFICIENT_STORAGE', '%s', 507)

export const AppendBusyError = createError(
  'DB_BACKUPS_APPEND_BUSY',
  'backup "%s" was not free for this append in time, or limits.appends arrive already: try again',
  503
)

export const RangeAfterEndError = createError(
  'DB_BACKUPS_RANGE',
  'headers/range begins after the end of the %s bytes',
  416
)

/** Code of the host, a hook or its webhook store, does not answer. The message names it. */
export const HostTimeoutError = createError('DB_BACKUPS_HOST_TIMEOUT', '%s did not answer within %s ms', 503)

/** Code of the host gave something that cannot be used. The message names the option. */
export const HostValueError = createError('DB_BACKUPS_HOST_VALUE', '%s gave %s', 500)

export const TooManyRequestsError = createError(
  'DB_BACKUPS_TOO_MANY_REQUESTS',
  'too many requests at a time, %s',
  503
)

export const TooManyDownloadsError = createError(
  'DB_BACKUPS_TOO_MANY_DOWNLOADS',
  '%s backups are being downloaded, and no more at a time are allowed: try again later',
  503
)

export const TooManyUploadsError = createError(
  'DB_BACKUPS_TOO_MANY_UPLOADS',
  '%s backups are being uploaded, and no more at a time are allowed: try again later',
  503
)

export const StalledDownloadError = createError(
  'DB_BACKUPS_DOWNLOAD_STALLED',
  'the download was ended: too little of it was read for %s ms',
  408
)

export const ClosingError = createError('DB_BACKUPS_CLOSING', 'the server is closing', 503)

export const TooManyRepeatedError = createError(
  'DB_BACKUPS_TOO_MANY_REPEATED',
  'more than %s documents came more than once, which is more than there is memory for',
  500
)

/** The host's `authorize` failed without a status, or did not answer. */
export const AuthorizationFailedError = createError(
  'DB_BACKUPS_AUTHORIZATION_FAILED',
  'the request could not be authorized',
  500
)

export const ForbiddenError = createError('DB_BACKUPS_FORBIDDEN', 'not allowed', 403)

/** The reply's `Accept-Encoding` names the supported encodings. */
export const EncodingError = createError(
  'DB_BACKUPS_ENCODING',
  'a content encoding is not supported: %s',
  415
)

/** Only the log gets this reply. */
export const ClientLeftError = createError('DB_BACKUPS_CLIENT_LEFT', 'the client broke off', 499)

/** A hook of the host coded the rest of a backup, which the client would join to what it has. */
export const CodedPartError = createError(
  'DB_BACKUPS_CODED_PART',
  'a hook of the host has coded a part of a backup: it must leave replies with cache-control: no-transform as they are',
  500
)

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

/** CouchDB refused a request, or gave no usable answer. Never holds the server's URL with its credentials. */
export class CouchError extends Error {
  override readonly name = 'CouchError'
  readonly code = 'DB_BACKUPS_DATABASE_ERROR'
  readonly statusCode = 502
  /** HTTP status of CouchDB, or 0 when there was no usable answer. */
  readonly status: number
  /** CouchDB's `error`, or a code of ours: `unreachable`, `cut_off`, `stalled`, `truncated`, `bad_answer`. */
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

  /** @param what the request, or the document or answer that failed */
  constructor(
    what: string,
    details: Pick<CouchError, 'error' | 'reason'> &
      Partial<Pick<CouchError, 'status' | 'retryable' | 'retryAfter' | 'gateway' | 'sent' | 'cause'>>
  ) {
    super(`${what}: ${details.error}, ${details.reason}`, { cause: details.cause })
    this.status = details.status ?? 0
    this.error = details.error
    this.reason = details.reason
    this.retryable = details.retryable ?? false
    this.retryAfter = details.retryAfter
    this.gateway = details.gateway ?? false
    this.sent = details.sent
  }
}
