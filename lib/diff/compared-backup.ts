import type { LogicalDatabase } from '../../types/databases.js'
import { apiKey } from '../databases.js'
import type { AboutDatabase } from '../format/about-database.js'
import type { ReadBackupOptions } from '../format/read-backup.js'
import type { LoadedBackup } from '../repository/loaded-backup.js'
import type { StoredDocuments } from '../repository/stored-documents.js'
import type { RestoreSource } from '../restore/source.js'
import { SpooledSource } from '../restore/spooled-source.js'
import type { Spool } from '../spool/spool.js'
import { EMPTY_SIDE, type Side, spooledSide, storedSide } from './side.js'

/** A backup that is compared with another. */
export class ComparedBackup {
  readonly id: string
  readonly #loaded: LoadedBackup
  readonly #makeSpool: () => Spool
  #spool: Spool | undefined
  #legacy: RestoreSource | undefined
  readonly #documents = new Map<LogicalDatabase, StoredDocuments>()

  private constructor(loaded: LoadedBackup, makeSpool: () => Spool) {
    this.id = loaded.id
    this.#loaded = loaded
    this.#makeSpool = makeSpool
  }

  /** Opens a backup. Spools one that athena made. @throws DamagedBackupError, and what spooling throws */
  static async open(
    loaded: LoadedBackup,
    databases: readonly LogicalDatabase[],
    makeSpool: () => Spool,
    form: ReadBackupOptions
  ): Promise<ComparedBackup> {
    const backup = new ComparedBackup(loaded, makeSpool)
    if (loaded.isLegacy) backup.#legacy = await SpooledSource.ofLegacy(loaded, makeSpool, form)
    for (const database of databases) {
      const documents = await loaded.documents(database)
      documents?.checkEntries()
      if (documents) backup.#documents.set(database, documents)
    }
    return backup
  }

  about(database: LogicalDatabase): AboutDatabase {
    return this.#legacy?.about(database) ?? this.#loaded.header.dbs[apiKey(database)] ?? {}
  }

  /** Returns whether the backup says what a database held, or that there was none. */
  covers(database: LogicalDatabase): boolean {
    const { missing } = this.about(database)
    return missing === true || this.#documents.has(database) || !!this.#legacy?.databases.includes(database)
  }

  /** Returns the documents that the backup does not share with another. */
  side(database: LogicalDatabase, other: ComparedBackup): Side {
    if (this.#legacy) return spooledSide(this.#legacy, database)
    const documents = this.#documents.get(database)
    if (!documents) return EMPTY_SIDE
    return storedSide(documents.unshared(other.#documents.get(database)), () => this.#ownSpool)
  }

  get #ownSpool(): Spool {
    this.#spool ??= this.#makeSpool()
    return this.#spool
  }

  async close(): Promise<void> {
    await this.#spool?.remove()
    await this.#legacy?.close()
  }
}
