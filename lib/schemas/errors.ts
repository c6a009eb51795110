import { STATUS_CODES } from 'node:http'
import { type Static, Type } from '@sinclair/typebox'
import { errorCodes } from 'fastify'
import type { OperationKind } from '../../types/events.js'
import * as errors from '../errors.js'
import { BACKUP_ID } from '../own-documents.js'
import { EXAMPLE_BACKUP, EXAMPLE_TX, type Examples, type ReplySchema, reply } from './common.js'

/** Describes a refusal: Fastify's shape, and the members that athena's clients know. */
export const ErrorReply = Type.Object(
  {
    statusCode: Type.Integer({ description: 'HTTP status' }),
    code: Type.Optional(Type.String({ description: 'Code for programs' })),
    error: Type.Optional(Type.String()),
    message: Type.Optional(Type.String({ description: 'What is wrong, naming the field' })),
    reason: Type.Optional(Type.String()),
    id: Type.Optional(
      Type.String({
        description: 'Id of what is running: a backup, the transaction of a restore, or another operation'
      })
    )
  },
  { $id: 'DbBackupsError', title: 'DbBackupsError' }
)

type ErrorExample = Examples<Static<typeof ErrorReply>>[string]

const refusal = (
  summary: string,
  statusCode: number,
  code: string | undefined,
  message: string
): ErrorExample => ({
  summary,
  value: { statusCode, ...(code && { code }), error: STATUS_CODES[statusCode], message }
})

const invalid = (summary: string, message: string) => refusal(summary, 400, 'FST_ERR_VALIDATION', message)

/** Makes an example of an error as it is sent. */
const thrown = (summary: string, error: { statusCode?: number; code: string; message: string }) =>
  refusal(summary, error.statusCode ?? 500, error.code, error.message)

/** Makes an example of an operation that is refused while another one runs. */
function running(asked: OperationKind, operation: OperationKind): ErrorExample {
  const id = operation === 'backup' ? EXAMPLE_BACKUP : EXAMPLE_TX
  const { statusCode, message } = new errors.OperationInProgressError(asked, { operation, id })
  return { summary: `A ${operation} runs`, value: { statusCode, message, id } }
}

const ERRORS = {
  backupRuns: running('backup', 'backup'),
  restoreRunsInstead: running('backup', 'restore'),
  restoreRuns: running('restore', 'restore'),
  backupRunsInstead: running('restore', 'backup'),
  unknownQueryKey: invalid(
    'A query parameter that the route does not have',
    'querystring/limit Unexpected property'
  ),
  invalidBackupId: invalid(
    'Not the id of a backup',
    `params/backup_id Expected string to match '${BACKUP_ID.source}'`
  ),
  unexpectedBody: thrown(
    'A body where none is expected',
    new errors.InvalidParameterError('body/databases Unexpected property')
  ),
  invalidJson: thrown('A body that is not JSON', new errorCodes.FST_ERR_CTP_INVALID_JSON_BODY()),
  invalidAttachment: invalid('No attachment in the body', 'body/attachment Expected string'),
  invalidAttachmentName: thrown(
    'A name that CouchDB does not take',
    new errors.InvalidParameterError('att_name must not begin with an underscore')
  ),
  invalidSkipList: thrown(
    'Not a list of document ids',
    new errors.InvalidParameterError(
      'querystring/skip_system must be document ids: a JSON array such as ["abcd"], or ids with commas between them'
    )
  ),
  invalidWebhook: thrown(
    'A webhook that must not be called',
    new errors.InvalidParameterError('client_webhook_url is not an http(s) URL')
  ),
  nothingToRestore: {
    summary: 'No such backup',
    value: { statusCode: 400, message: 'cannot restore, could not load backup doc.' }
  },
  notRestorable: thrown(
    'A backup that has failed',
    new errors.BackupNotRestorableError('the backup has failed: interrupted: the server was shut down')
  ),
  invalidBackup: thrown(
    'Not a backup',
    new errors.InvalidBackupError('dbs.athena_system.docs[1]: a document has no "_id"')
  ),
  truncatedBackup: thrown(
    'A body that ends too early',
    new errors.InvalidBackupError('the body is truncated: unexpected end of JSON at byte 104857600')
  ),
  unknownLayout: thrown(
    'A backup that a later version has stored',
    new errors.UnknownLayoutError(EXAMPLE_BACKUP)
  ),
  unauthorized: refusal('No identity; the host words it', 401, undefined, 'unauthorized'),
  forbidden: refusal(
    'Without the action blockchain.optools.settings; the host words it',
    403,
    undefined,
    'forbidden'
  ),
  notAllowed: thrown("The host's hook gives `false`", new errors.ForbiddenError()),
  unknownBackup: {
    summary: 'No such backup',
    value: { statusCode: 404, error: 'not_found', reason: 'missing' }
  },
  nothingToAppendTo: thrown('No such backup', new errors.BackupNotFoundError(EXAMPLE_BACKUP)),
  reservedId: thrown(
    'A document of the console has the id of the lease',
    new errors.ReservedIdError('athena_backup_lease', 'athena_system')
  ),
  missingDatabase: thrown(
    'The system database does not exist',
    new errors.MissingDatabaseError(
      'database "athena_system" does not exist: check option "databases.system", create it, or restore a backup of it'
    )
  ),
  uploadStalled: thrown('Nothing, or almost nothing, arrived for a minute', new errors.UploadTimeoutError()),
  bodyTooLarge: thrown('A body that is too large', new errorCodes.FST_ERR_CTP_BODY_TOO_LARGE()),
  attachmentTooLarge: thrown(
    'An attachment that is too large',
    new errors.TooLargeError('body/attachment is larger than 33554432 bytes')
  ),
  tooManyAttachments: thrown(
    'The backup has as many attachments as it may',
    new errors.TooLargeError(
      `backup "${EXAMPLE_BACKUP}" has 1000 attachments: limits.attachments allows 1000`
    )
  ),
  attachmentNotTaken: thrown(
    'An attachment that CouchDB, or a proxy before it, does not take',
    new errors.TooLargeError(
      'body/attachment of 2000000 bytes is too large for the database: a proxy or gateway before CouchDB answered 413; raise the limit of bodies of the proxy before CouchDB (nginx: client_max_body_size), or append less: limits.requestBytes does not divide an attachment'
    )
  ),
  uploadTooLarge: thrown(
    'A body that turns out to be too large while it arrives',
    new errors.TooLargeError('the body is larger than 1073741824 bytes')
  ),
  mediaType: refusal(
    'Another content type than JSON',
    415,
    'FST_ERR_CTP_INVALID_MEDIA_TYPE',
    'Unsupported Media Type'
  ),
  compressedBody: thrown(
    'A body that is compressed in another way than gzip',
    new errors.EncodingError('br')
  ),
  rangeAfterEnd: thrown('A range that begins after the end', new errors.RangeAfterEndError('20449')),
  damaged: thrown(
    'A stored part is missing or damaged: found before the first byte is sent',
    new errors.DamagedBackupError('chunk', 'backup_chunk_1592924104038_components_000000', 'is missing')
  ),
  keyUnavailable: thrown(
    'The key to seal or open the backup with is not available',
    new errors.KeyUnavailableError('2026-01', 'encryption.key gave no 32 bytes')
  ),
  wrongKey: thrown(
    'The host gives another key than the one it was sealed with',
    new errors.WrongKeyError('2026-01')
  ),
  notSealed: thrown(
    'A backup that is not sealed, which the host refuses',
    new errors.NotSealedBackupError(EXAMPLE_BACKUP)
  ),
  codedPart: thrown(
    'Another hook of the server has encoded a range of the backup',
    new errors.CodedPartError()
  ),
  authorizationFailed: thrown(
    'The host could not authorize the request',
    new errors.AuthorizationFailedError()
  ),
  databaseError: thrown(
    'CouchDB refused',
    new errors.CouchError('GET /athena_system/_all_docs', {
      error: 'forbidden',
      reason: 'You are not allowed to access this db.'
    })
  ),
  databaseUnavailable: thrown(
    'CouchDB does not answer',
    new errors.DatabaseUnavailableError('unreachable, the connection failed (ECONNREFUSED)')
  ),
  versionsLate: thrown(
    'The host does not return its versions in time',
    new errors.HostTimeoutError('versions', 10_000)
  ),
  versionsTooLong: thrown(
    "The host's versions are too long to be stored",
    new errors.HostValueError('versions', '100000 bytes, at most 65536')
  ),
  bodyAlreadyRead: thrown(
    'Something else in the server has read the body',
    new errors.BodyAlreadyReadError()
  ),
  transactionsLate: thrown(
    "The host's store of transactions does not answer in time",
    new errors.HostTimeoutError('webhooks.create', 120_000)
  ),
  tooManyRequests: thrown(
    'Too many requests for backups and restores are waiting',
    new errors.TooManyRequestsError('others are answered first: try again')
  ),
  tooManyDownloads: thrown(
    'The limit of simultaneous downloads is reached',
    new errors.TooManyDownloadsError(4)
  ),
  tooManyUploads: thrown('The limit of simultaneous uploads is reached', new errors.TooManyUploadsError(4)),
  closing: thrown('The server is closing', new errors.ClosingError()),
  appendBusy: thrown(
    'Too many clients append to the backup: the wait was too long',
    new errors.AppendBusyError(EXAMPLE_BACKUP)
  ),
  noRoom: thrown(
    'No room to spool the body',
    new errors.InsufficientStorageError(
      'what is spooled would take more than the 2147483648 bytes of limits.spoolBytes, which all that run at a time share'
    )
  )
} satisfies Record<string, ErrorExample>

export const BODY_ERRORS = [
  'uploadStalled',
  'bodyAlreadyRead',
  'mediaType',
  'compressedBody'
] as const satisfies ErrorName[]

export const RESTORE_ERRORS = [
  'restoreRuns',
  'backupRunsInstead',
  'invalidSkipList',
  'invalidWebhook',
  'notRestorable',
  'transactionsLate',
  'reservedId',
  'closing'
] as const satisfies ErrorName[]

/** Errors when a sealed backup is opened. */
export const SEAL_ERRORS = ['keyUnavailable', 'wrongKey', 'notSealed'] as const satisfies ErrorName[]

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
  409: 'A needed id is taken, a needed database is missing, or the backup is not sealed',
  413: 'Too large',
  415: 'Not supported',
  416: 'Range not satisfiable',
  500: 'Failed',
  502: 'The database refused',
  503: 'Not available now',
  507: 'No room'
} as const

const HEADERS: Record<string, Record<string, object>> = {
  415: { 'Accept-Encoding': { type: 'string', description: 'The supported encodings, after another one' } },
  503: {
    'Retry-After': { type: 'integer', description: 'Seconds to wait before another try, if one may succeed' }
  }
}

type ErrorName = keyof typeof ERRORS

/** Describes the named errors, and those of every route. */
export function errorReplies(
  ...names: ErrorName[]
): Record<keyof typeof DESCRIPTIONS, ReplySchema<typeof ErrorReply>> {
  const all = [...names, ...ALWAYS].map((name) => [name, ERRORS[name]] as const)
  const replies = Object.entries(DESCRIPTIONS).flatMap(([status, description]) => {
    const examples = all.filter(([, { value }]) => value.statusCode === Number(status))
    if (examples.length === 0) return []
    return [[status, reply(description, ErrorReply, Object.fromEntries(examples), HEADERS[status])]]
  })
  return Object.fromEntries(replies)
}
