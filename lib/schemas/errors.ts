import { STATUS_CODES } from 'node:http'
import { type Static, Type } from '@sinclair/typebox'
import { BodyAlreadyReadError, CodedPartError, ForbiddenError } from '../errors.js'
import { EXAMPLE_BACKUP, EXAMPLE_TX } from './common.js'
import { type Examples, type ReplySchema, reply } from './reply.js'

/** A refusal: Fastify's shape, and the members that athena's clients know. */
export const ErrorReply = Type.Object(
  {
    statusCode: Type.Integer({ description: 'HTTP status' }),
    code: Type.Optional(Type.String({ description: 'Code for programs' })),
    error: Type.Optional(Type.String()),
    message: Type.Optional(Type.String({ description: 'What is wrong, naming the field' })),
    reason: Type.Optional(Type.String()),
    id: Type.Optional(
      Type.String({ description: 'Id of the backup, or transaction of the restore, that runs' })
    )
  },
  { $id: 'DbBackupsError', title: 'DbBackupsError' }
)

type ErrorExample = Examples<Static<typeof ErrorReply>>[string]

const refusal = (statusCode: number, code: string | undefined, message: string) => ({
  statusCode,
  ...(code && { code }),
  error: STATUS_CODES[statusCode],
  message
})

/** Examples of refusals, as they are sent. */
const ERRORS = {
  backupRuns: {
    summary: 'A backup runs',
    value: { statusCode: 400, message: 'already_in_progress', id: EXAMPLE_BACKUP }
  },
  restoreRunsInstead: {
    summary: 'A restore runs',
    value: { statusCode: 400, message: 'restore_in_progress', id: EXAMPLE_TX }
  },
  restoreRuns: {
    summary: 'A restore runs',
    value: { statusCode: 400, message: 'already_in_progress', id: EXAMPLE_TX }
  },
  backupRunsInstead: {
    summary: 'A backup runs',
    value: { statusCode: 400, message: 'backup_in_progress', id: EXAMPLE_BACKUP }
  },
  unknownQueryKey: {
    summary: 'A query parameter that the route does not have',
    value: refusal(400, 'FST_ERR_VALIDATION', 'querystring/limit Unexpected property')
  },
  invalidBackupId: {
    summary: 'Not the id of a backup',
    value: refusal(
      400,
      'FST_ERR_VALIDATION',
      "params/backup_id Expected string to match '^03_ibp_db_backup_[0-9]{1,20}$'"
    )
  },
  unexpectedBody: {
    summary: 'A body where none is expected',
    value: refusal(400, 'DB_BACKUPS_INVALID_PARAMETER', 'body/databases Unexpected property')
  },
  invalidJson: {
    summary: 'A body that is not JSON',
    value: refusal(
      400,
      'FST_ERR_CTP_INVALID_JSON_BODY',
      "Body is not valid JSON but content-type is set to 'application/json'"
    )
  },
  invalidAttachment: {
    summary: 'No attachment in the body',
    value: refusal(400, 'FST_ERR_VALIDATION', 'body/attachment Expected string')
  },
  invalidAttachmentName: {
    summary: 'A name that CouchDB does not take',
    value: refusal(400, 'DB_BACKUPS_INVALID_PARAMETER', 'att_name must not begin with an underscore')
  },
  invalidSkipList: {
    summary: 'Not a list of document ids',
    value: refusal(
      400,
      'DB_BACKUPS_INVALID_PARAMETER',
      'querystring/skip_system must be document ids: a JSON array such as ["abcd"], or ids with commas between them'
    )
  },
  invalidWebhook: {
    summary: 'A webhook that must not be called',
    value: refusal(400, 'DB_BACKUPS_INVALID_PARAMETER', 'client_webhook_url is not an http(s) URL')
  },
  nothingToRestore: {
    summary: 'No such backup',
    value: { statusCode: 400, message: 'cannot restore, could not load backup doc.' }
  },
  notRestorable: {
    summary: 'A backup that has failed',
    value: refusal(
      400,
      'DB_BACKUPS_NOT_RESTORABLE',
      'cannot restore, the backup has failed: interrupted: the server was shut down'
    )
  },
  invalidBackup: {
    summary: 'Not a backup',
    value: refusal(400, 'DB_BACKUPS_INVALID', 'dbs.athena_system.docs[1]: a document has no "_id"')
  },
  truncatedBackup: {
    summary: 'A body that ends too early',
    value: refusal(
      400,
      'DB_BACKUPS_INVALID',
      'the body is truncated: unexpected end of JSON at byte 104857600'
    )
  },
  unknownLayout: {
    summary: 'A backup that a later version has stored',
    value: refusal(
      400,
      'DB_BACKUPS_UNKNOWN_LAYOUT',
      `the backup "${EXAMPLE_BACKUP}" was made by a later version`
    )
  },
  unauthorized: {
    summary: 'No identity; the host words it',
    value: refusal(401, undefined, 'unauthorized')
  },
  forbidden: {
    summary: 'Without the action blockchain.optools.settings; the host words it',
    value: refusal(403, undefined, 'forbidden')
  },
  notAllowed: {
    summary: "The host's hook gives `false`",
    value: refusal(403, 'DB_BACKUPS_FORBIDDEN', new ForbiddenError().message)
  },
  unknownBackup: {
    summary: 'No such backup',
    value: { statusCode: 404, error: 'not_found', reason: 'missing' }
  },
  nothingToAppendTo: {
    summary: 'No such backup',
    value: refusal(404, 'DB_BACKUPS_NOT_FOUND', `there is no backup "${EXAMPLE_BACKUP}"`)
  },
  reservedId: {
    summary: 'A document of the console has the id that tells what runs',
    value: refusal(
      409,
      'DB_BACKUPS_RESERVED_ID',
      'document "athena_backup_lease" of database "athena_system" does not belong to the backups, but they need its id: give the document another id'
    )
  },
  missingDatabase: {
    summary: 'The system database does not exist',
    value: refusal(
      409,
      'DB_BACKUPS_MISSING_DATABASE',
      'database "athena_system" does not exist: check option "databases.system", create it, or restore a backup of it'
    )
  },
  uploadStalled: {
    summary: 'Nothing, or next to nothing, came for a minute',
    value: refusal(408, 'DB_BACKUPS_UPLOAD_TIMEOUT', 'the body stopped arriving')
  },
  bodyTooLarge: {
    summary: 'A body that is too large',
    value: refusal(413, 'FST_ERR_CTP_BODY_TOO_LARGE', 'Request body is too large')
  },
  attachmentTooLarge: {
    summary: 'An attachment that is too large',
    value: refusal(413, 'DB_BACKUPS_TOO_LARGE', 'body/attachment is larger than 33554432 bytes')
  },
  tooManyAttachments: {
    summary: 'The backup has as many attachments as it may',
    value: refusal(
      413,
      'DB_BACKUPS_TOO_LARGE',
      `backup "${EXAMPLE_BACKUP}" has 1000 attachments: limits.attachments allows 1000`
    )
  },
  attachmentNotTaken: {
    summary: 'An attachment that CouchDB, or a proxy before it, does not take',
    value: refusal(
      413,
      'DB_BACKUPS_TOO_LARGE',
      'body/attachment of 2000000 bytes is too large for the database: a proxy or gateway before CouchDB answered 413; raise the limit of bodies of the proxy before CouchDB (nginx: client_max_body_size), or append less: limits.requestBytes does not divide an attachment'
    )
  },
  uploadTooLarge: {
    summary: 'A body that turns out too large while it arrives',
    value: refusal(413, 'DB_BACKUPS_TOO_LARGE', 'the body is larger than 1073741824 bytes')
  },
  mediaType: {
    summary: 'Another content type than JSON',
    value: refusal(415, 'FST_ERR_CTP_INVALID_MEDIA_TYPE', 'Unsupported Media Type')
  },
  compressedBody: {
    summary: 'A body that is compressed in another way than gzip',
    value: refusal(415, 'DB_BACKUPS_ENCODING', 'a content encoding is not supported: br')
  },
  rangeAfterEnd: {
    summary: 'A range that begins after the end',
    value: refusal(416, 'DB_BACKUPS_RANGE', 'headers/range begins after the end of the 20449 bytes')
  },
  damaged: {
    summary: 'A stored part is missing or damaged: found before the first byte is sent',
    value: refusal(
      500,
      'DB_BACKUPS_DAMAGED',
      'backup chunk "backup_chunk_1592924104038_components_000000" is missing'
    )
  },
  codedPart: {
    summary: 'Something else in the server has coded a part of the backup',
    value: refusal(500, 'DB_BACKUPS_CODED_PART', new CodedPartError().message)
  },
  authorizationFailed: {
    summary: 'The host could not authorize the request',
    value: refusal(500, 'DB_BACKUPS_AUTHORIZATION_FAILED', 'the request could not be authorized')
  },
  databaseError: {
    summary: 'CouchDB refused',
    value: refusal(
      502,
      'DB_BACKUPS_DATABASE_ERROR',
      'GET /athena_system/_all_docs: forbidden, You are not allowed to access this db.'
    )
  },
  databaseUnavailable: {
    summary: 'CouchDB does not answer',
    value: refusal(
      503,
      'DB_BACKUPS_DATABASE_UNAVAILABLE',
      'the database is not available: unreachable, the connection failed (ECONNREFUSED)'
    )
  },
  versionsLate: {
    summary: "The host's versions do not come",
    value: refusal(503, 'DB_BACKUPS_HOST_TIMEOUT', 'versions did not answer within 10000 ms')
  },
  versionsTooLong: {
    summary: "The host's versions are too long to be kept",
    value: refusal(500, 'DB_BACKUPS_HOST_VALUE', 'versions gave 100000 bytes, at most 65536')
  },
  bodyAlreadyRead: {
    summary: 'Something else in the server has read the body',
    value: refusal(500, 'DB_BACKUPS_BODY_ALREADY_READ', new BodyAlreadyReadError().message)
  },
  transactionsLate: {
    summary: "The host's store of transactions does not answer",
    value: refusal(503, 'DB_BACKUPS_HOST_TIMEOUT', 'webhooks.create did not answer within 120000 ms')
  },
  tooManyRequests: {
    summary: 'Too many starts and restores are to be answered',
    value: refusal(
      503,
      'DB_BACKUPS_TOO_MANY_REQUESTS',
      'too many requests at a time, others are answered first: try again'
    )
  },
  tooManyDownloads: {
    summary: 'As many backups as are allowed at a time are being downloaded',
    value: refusal(
      503,
      'DB_BACKUPS_TOO_MANY_DOWNLOADS',
      '4 backups are being downloaded, and no more at a time are allowed: try again later'
    )
  },
  tooManyUploads: {
    summary: 'As many backups as are allowed at a time are being uploaded',
    value: refusal(
      503,
      'DB_BACKUPS_TOO_MANY_UPLOADS',
      '4 backups are being uploaded, and no more at a time are allowed: try again later'
    )
  },
  closing: {
    summary: 'The server is closing',
    value: refusal(503, 'DB_BACKUPS_CLOSING', 'the server is closing')
  },
  appendBusy: {
    summary: 'Many append to the backup, and the wait was too long',
    value: refusal(
      503,
      'DB_BACKUPS_APPEND_BUSY',
      `backup "${EXAMPLE_BACKUP}" was not free for this append in time, or limits.appends arrive already: try again`
    )
  },
  noRoom: {
    summary: 'No room to keep what arrives',
    value: refusal(
      507,
      'DB_BACKUPS_INSUFFICIENT_STORAGE',
      'uploads would take more than the 2147483648 bytes of limits.spoolBytes, which all that run at a time share'
    )
  }
} satisfies Record<string, ErrorExample>

const ALWAYS: ErrorName[] = [
  'unknownQueryKey',
  'unauthorized',
  'forbidden',
  'notAllowed',
  'authorizationFailed',
  'databaseError',
  'databaseUnavailable'
]

const DESCRIPTIONS = {
  400: 'Refused',
  401: 'Not authenticated',
  403: 'Not allowed',
  404: 'Not found',
  408: 'The body stopped arriving',
  409: 'An id that is needed is taken, or a database that is needed is missing',
  413: 'Too large',
  415: 'Not supported',
  416: 'Range not satisfiable',
  500: 'Failed',
  502: 'The database refused',
  503: 'Not available now',
  507: 'No room'
} as const

const HEADERS: Record<string, Record<string, object>> = {
  415: { 'Accept-Encoding': { type: 'string', description: 'What is supported, when an encoding is not' } },
  503: {
    'Retry-After': { type: 'integer', description: 'Seconds to wait, when another try may succeed' }
  }
}

export type ErrorName = keyof typeof ERRORS

/** Describes the errors that every route may reply with, and those named. */
export function errorReplies(
  ...names: ErrorName[]
): Record<keyof typeof DESCRIPTIONS, ReplySchema<typeof ErrorReply>> {
  const errors = [...names, ...ALWAYS].map((name) => [name, ERRORS[name]] as const)
  const replies = Object.entries(DESCRIPTIONS).flatMap(([status, description]) => {
    const examples = errors.filter(([, { value }]) => value.statusCode === Number(status))
    if (examples.length === 0) return []
    return [[status, reply(description, ErrorReply, Object.fromEntries(examples), HEADERS[status])]]
  })
  return Object.fromEntries(replies)
}
