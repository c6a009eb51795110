import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import type { DbBackupsOptions } from '../types/index.js'
import { Operations } from './operations/operations.js'
import { resolveOptions } from './options.js'
import { registerRoutes } from './routes/index.js'

const NAME = 'fastify-couchdb-backups'

/**
 * Backs up and restores the CouchDB databases of an application: six routes under `/api/v[123]/backups` and
 * `/ak/api/v[123]/backups`, and the same operations as `fastify.dbBackups`.
 *
 * @throws TypeError at registration, naming the option that is missing or wrong
 */
export const dbBackups = fp<DbBackupsOptions>(
  async (fastify: FastifyInstance, options: DbBackupsOptions) => {
    const resolved = resolveOptions(options)
    const operations = new Operations(resolved, fastify.log.child({ plugin: NAME }))
    fastify.decorate('dbBackups', operations)
    fastify.addHook('onReady', async () => operations.watch())
    // Before the requests under way have ended: a slow download must not hold up what has to be written down.
    fastify.addHook('preClose', async () => operations.stop())
    fastify.addHook('onClose', async () => operations.close())
    registerRoutes(fastify, operations, resolved)
  },
  { fastify: '5.x', name: NAME, dependencies: [] }
)

export default dbBackups
export type * from '../types/index.js'
export {
  AppendBusyError,
  AuthorizationFailedError,
  BackupDeletedError,
  BackupNotFoundError,
  BackupNotRestorableError,
  BodyAlreadyReadError,
  ClientLeftError,
  ClosingError,
  CodedPartError,
  CouchError,
  DamagedBackupError,
  DatabaseUnavailableError,
  EncodingError,
  ForbiddenError,
  HostTimeoutError,
  HostValueError,
  IncompleteRestoreError,
  InsufficientStorageError,
  InvalidBackupError,
  InvalidParameterError,
  LeaseLostError,
  MissingDatabaseError,
  OperationInProgressError,
  RangeAfterEndError,
  ReservedIdError,
  StalledDownloadError,
  TooLargeError,
  TooManyDownloadsError,
  TooManyRepeatedError,
  TooManyUploadsError,
  UnknownLayoutError,
  UploadTimeoutError
} from './errors.js'
export { type CouchWebhookStoreOptions, createCouchWebhookStore } from './webhooks/couch-store.js'
export { createMemoryWebhookStore } from './webhooks/memory-store.js'
