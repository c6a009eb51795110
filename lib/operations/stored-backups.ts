import { Readable } from 'node:stream'
import type { BackupContent, BackupSummary } from '../../types/backups.js'
import { backupContent, summaryOf } from '../format/content.js'
import type { Append, Appender } from '../repository/appender.js'
import type { LoadedBackup } from '../repository/loaded-backup.js'
import type { Databases } from './databases.js'
import type { Downloads } from './downloads.js'
import type { Instance } from './instance.js'

/** Reads, lists and appends to backups, whatever operation is in progress. */
export class StoredBackups {
  readonly #downloads: Downloads
  readonly #databases: Databases
  readonly #appender: Appender

  constructor({ downloads, options }: Pick<Instance, 'downloads' | 'options'>, databases: Databases) {
    const { limits, timeouts } = options
    this.#downloads = downloads
    this.#databases = databases
    this.#appender = databases.repository.appender(limits, timeouts.control)
  }

  async get(id: string): Promise<BackupContent> {
    const { repository, form } = this.#databases
    const loaded = await repository.get(id)
    return backupContent(loaded, {
      ...form,
      stream: isShort(loaded)
        ? (read) => Readable.from(read(loaded), { objectMode: false })
        : (read) =>
            this.#downloads.stream((client) =>
              repository.on(client).reading([loaded], read(loaded.on(client)))
            )
    })
  }

  async summary(id: string): Promise<BackupSummary> {
    return summaryOf(await this.#databases.repository.get(id))
  }

  /** @throws InvalidParameterError, BackupNotFoundError */
  async find(id: string): Promise<void> {
    await this.#databases.repository.find(id)
  }

  list(): Promise<readonly string[]> {
    return this.#databases.repository.list()
  }

  append(append: Append): Promise<void> {
    return this.#appender.append(append)
  }
}

/** Returns whether only a header is sent: clients that follow a running backup need no place. */
const isShort = ({ state, attachments }: LoadedBackup) => state === 'running' && attachments.size === 0
