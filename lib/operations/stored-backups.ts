import { Readable } from 'node:stream'
import type { BackupContent, BackupSummary } from '../../types/backups.js'
import { BackupNotFoundError, InvalidParameterError, UnknownLayoutError } from '../errors.js'
import { backupContent, summaryOf } from '../format/content.js'
import { type Append, Appender } from '../repository/appender.js'
import type { LoadedBackup } from '../repository/backup-store.js'
import { LAYOUT } from '../repository/layout.js'
import { isBackupId } from '../repository/names.js'
import type { Databases } from './databases.js'
import type { Instance } from './instance.js'

const MAX_BACKUP_ID = 64

/** The backups that there are: read, listed and appended to, whatever operation is in progress. */
export class StoredBackups {
  readonly #instance: Instance
  readonly #databases: Databases
  readonly #appender: Appender

  constructor(instance: Instance, databases: Databases) {
    const { limits, timeouts } = instance.options
    this.#instance = instance
    this.#databases = databases
    this.#appender = new Appender(databases.store, (id) => this.load(id), limits, timeouts.control)
  }

  /** @throws InvalidParameterError, BackupNotFoundError, UnknownLayoutError */
  async load(id: string): Promise<LoadedBackup> {
    if (typeof id !== 'string' || id.length > MAX_BACKUP_ID || !isBackupId(id)) {
      throw new InvalidParameterError('backup_id is not the id of a backup')
    }
    const loaded = await this.#databases.store.load(id)
    if (!loaded) throw new BackupNotFoundError(id)
    if (loaded.kind === 'chunks' && !(loaded.header.storage.layout <= LAYOUT))
      throw new UnknownLayoutError(id)
    return loaded
  }

  async get(id: string): Promise<BackupContent> {
    const loaded = await this.load(id)
    const { names, store } = this.#databases
    const { downloads, options } = this.#instance
    return backupContent(loaded, {
      names,
      inflatedBytes: options.limits.inflatedBytes,
      stream: isShort(loaded)
        ? (read) => Readable.from(read(store), { objectMode: false })
        : (read) => downloads.stream((client) => read(store.on(client)))
    })
  }

  async summary(id: string): Promise<BackupSummary> {
    return summaryOf(await this.load(id))
  }

  async list(): Promise<{ ids: string[] }> {
    return { ids: await this.#databases.store.list() }
  }

  append(append: Append): Promise<void> {
    return this.#appender.append(append)
  }
}

/** Returns whether what is sent of a backup is its header alone: clients that follow a running one need no place for it. */
const isShort = ({ header }: LoadedBackup) =>
  header.in_progress === true && Object.keys(header._attachments ?? {}).length === 0
