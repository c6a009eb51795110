import createError from '@fastify/error'
import type { OperationKind } from '../types/events.js'

/** The database is not reachable, or not able to answer now. */
export const DatabaseUnavailableError = createError(
  'DB_BACKUPS_DATABASE_UNAVAILABLE',
  'the database is not available: %s',
  503
)

export const BackupNotFoundError = createError('DB_BACKUPS_NOT_FOUND', 'there is no backup "%s"', 404)

/** The header of a backup was deleted, or replaced by another document, while the backup was made. */
export const BackupDeletedError = createError(
  'DB_BACKUPS_DELETED',
  'the header of backup "%s" was deleted or replaced while the backup was being made',
  500
)

/** A document of the console has the id of the lease, in the database that keeps backups. */
export const ReservedIdError = createError(
  'DB_BACKUPS_RESERVED_ID',
  'document "%s" of database "%s" does not belong to the backups, but they need its id: give the document another id',
  409
)

/** A database does not exist that is needed, or that an earlier backup holds documents of. The message names the option. */
export const MissingDatabaseError = createError('DB_BACKUPS_MISSING_DATABASE', '%s', 409)

/** A backup that a later version of this package has stored in a way that this one does not know. */
export const UnknownLayoutError = createError(
  'DB_BACKUPS_UNKNOWN_LAYOUT',
  'the backup "%s" was made by a later version',
  400
)

/** A backup that is still being made, or has failed. */
export const BackupNotRestorableError = createError('DB_BACKUPS_NOT_RESTORABLE', 'cannot restore, %s', 400)

/** What was uploaded is not a backup. The message names the field. */
export const InvalidBackupError = createError('DB_BACKUPS_INVALID', '%s', 400)

/** A parameter is not what it should be. The message names it. */
export const InvalidParameterError = createError('DB_BACKUPS_INVALID_PARAMETER', '%s', 400)

export const TooLargeError = createError('DB_BACKUPS_TOO_LARGE', '%s', 413)

/** Code of the host has read a body that was to be read here. */
export const BodyAlreadyReadError = createError(
  'DB_BACKUPS_BODY_ALREADY_READ',
  'the host has read the body before the backups could: keep what reads bodies (hooks, middleware, parsers in front of Fastify) away from the paths of backups',
  500
)

/** Nothing came of a body for too long. */
export const UploadTimeoutError = createError('DB_BACKUPS_UPLOAD_TIMEOUT', 'the body stopped arriving', 408)

/** No room to spool an upload, or what is to be appended. */
export const InsufficientStorageError = createError('DB_BACKUPS_INSUFFICIENT_STORAGE', '%s', 507)

/** Others append, and the wait for a place or a turn was too long. */
export const AppendBusyError = createError(
  'DB_BACKUPS_APPEND_BUSY',
  'backup "%s" was not free for this append in time, or limits.appends arrive already: try again',
  503
)

/** A range of a backup begins after its end. */
export const RangeAfterEndError = createError(
  'DB_BACKUPS_RANGE',
  'headers/range begins after the end of the %s bytes',
  416
)

/** Code of the host, a hook or its webhook store, does not answer. The message names it. */
export const HostTimeoutError = createError('DB_BACKUPS_HOST_TIMEOUT', '%s did not answer within %s ms', 503)

/** Code of the host gives something that cannot be stored. The message names it. */
export const HostValueError = createError('DB_BACKUPS_HOST_VALUE', '%s gave %s', 500)

/** As many downloads as are allowed at a time are being read. */
export const TooManyDownloadsError = createError(
  'DB_BACKUPS_TOO_MANY_DOWNLOADS',
  '%s backups are being downloaded, and no more at a time are allowed: try again later',
  503
)

/** As many uploads as are allowed at a time are being read. */
export const TooManyUploadsError = createError(
  'DB_BACKUPS_TOO_MANY_UPLOADS',
  '%s backups are being uploaded, and no more at a time are allowed: try again later',
  503
)

/** Nobody reads a download on: its stream fails with this. */
export const StalledDownloadError = createError(
  'DB_BACKUPS_DOWNLOAD_STALLED',
  'the download was ended: too little of it was read for %s ms',
  408
)

/** The server is closing. */
export const ClosingError = createError('DB_BACKUPS_CLOSING', 'the server is closing', 503)

/** A backup or a restore runs already, on this server instance or another. */
export class OperationInProgressError extends Error {
  override readonly name = 'OperationInProgressError'
  readonly code = 'DB_BACKUPS_IN_PROGRESS'
  readonly statusCode = 400
  /** What runs. */
  readonly operation: OperationKind
  /** Id of the backup, or of the restore's transaction. */
  readonly id: string

  /** @param asked what was to be started */
  constructor(asked: OperationKind, running: { operation: OperationKind; id: string }) {
    super(asked === running.operation ? 'already_in_progress' : `${running.operation}_in_progress`)
    this.operation = running.operation
    this.id = running.id
  }
}

/** A part of a stored backup is missing, or is not what was stored. */
export class DamagedBackupError extends Error {
  override readonly name = 'DamagedBackupError'
  readonly code = 'DB_BACKUPS_DAMAGED'
  readonly statusCode = 500
  /** What is missing or damaged. */
  readonly part: 'header' | 'manifest' | 'chunk'
  /** Id of its document. */
  readonly id: string

  constructor(part: DamagedBackupError['part'], id: string, reason: string) {
    super(`backup ${part} "${id}" ${reason}`)
    this.part = part
    this.id = id
  }
}
