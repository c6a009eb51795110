import { randomBytes } from 'node:crypto'
import type { FastifyBaseLogger } from 'fastify'
import type { LogicalDatabase } from '../../types/databases.js'
import type { BackupEvent } from '../../types/events.js'
import { CouchClient, FOREGROUND } from '../couch/client.js'
import { connectionOf } from '../couch/connection.js'
import { CouchDatabase } from '../couch/database.js'
import { BackupNotFoundError, InvalidParameterError } from '../errors.js'
import type { ResolvedOptions } from '../options.js'
import type { ReadBackupOptions } from '../restore/read-backup.js'
import { Spool } from '../restore/spool.js'

import { BackupStore, type LoadedBackup } from '../store/backup-store.js'
import { EXCLUDED_TYPES, isBackupId } from '../store/names.js'
import { BackgroundJobs } from './background-jobs.js'

const MAX_BACKUP_ID = 64

/** What the operations of one registration share: options, databases, jobs, events. */
export class Environment {
  readonly options: ResolvedOptions
  readonly log: FastifyBaseLogger
  /** Names this server instance. */
  readonly instance = randomBytes(8).toString('hex')
  /** For calls that somebody waits for. */
  readonly client: CouchClient
  /** On {@link client}. */
  readonly store: BackupStore
  readonly jobs = new BackgroundJobs()
  /** Types of documents that backups leave out. */
  readonly excludeTypes: ReadonlySet<string>

  constructor(options: ResolvedOptions, log: FastifyBaseLogger) {
    const { couch, timeouts } = options
    this.options = options
    this.log = log
    this.client = new CouchClient({
      connect: () => connectionOf(typeof couch === 'function' ? couch() : couch),
      retry: FOREGROUND,
      control: timeouts.control,
      idle: timeouts.idle
    })
    this.store = this.storeOn(this.client)
    this.excludeTypes = new Set([...EXCLUDED_TYPES, ...options.excludeTypes])
  }

  /** @throws InvalidParameterError, BackupNotFoundError */
  async load(id: string): Promise<LoadedBackup> {
    if (id.length > MAX_BACKUP_ID || !isBackupId(id)) {
      throw new InvalidParameterError('backup_id is not the id of a backup')
    }
    const loaded = await this.store.load(id)
    if (!loaded) throw new BackupNotFoundError(id)
    return loaded
  }

  databasesOn(client: CouchClient): Record<LogicalDatabase, CouchDatabase> {
    const on = (database: LogicalDatabase) => new CouchDatabase(client, this.options.databases[database])
    return { components: on('components'), sessions: on('sessions'), system: on('system') }
  }

  storeOn(client: CouchClient): BackupStore {
    return new BackupStore(new CouchDatabase(client, this.options.databases.backups))
  }

  makeSpool(): Promise<Spool> {
    return Spool.create(this.options.spoolDirectory, this.options.limits.spoolBytes)
  }

  /** How a backup that is one JSON document is to be read. */
  readOptions(): ReadBackupOptions {
    const { databases: names, limits } = this.options
    return { names, maxDepth: limits.nesting, inflatedBytes: limits.inflatedBytes }
  }

  emit(event: BackupEvent): void {
    const { onEvent } = this.options
    if (!onEvent) return
    // What the host does with an event is not part of the operation.
    void (async () => onEvent(event))().catch((error: unknown) => {
      this.log.error({ err: error, event: event.type }, 'onEvent failed')
    })
  }
}
