import type { DatabaseSummary, Requester } from '../../types/backups.js'
import type { LogicalDatabase } from '../../types/databases.js'
import { isConflict } from '../couch/errors.js'
import { BackupDeletedError } from '../errors.js'
import { BACKUP_TYPE } from '../own-documents.js'
import type { SealingKey } from '../seal/sealing-key.js'
import { DatabaseWriter, type DatabaseWriterOptions } from './database-writer.js'
import { sealHeader, withoutTexts } from './header-seal.js'
import {
  contentDigest,
  type Head,
  type HeaderDocument,
  PLAIN_LAYOUT,
  type Store,
  type StoredHeader
} from './layout.js'
import { LoadedBackup } from './loaded-backup.js'
import type { Origin } from './owner.js'
import { Parts } from './parts.js'

/** Version of the format in which the API sends a backup. */
const BACKUP_VERSION = '1.0.0'

/** The facts that a backup tells from its start on. */
interface BackupOrigin {
  /** The server instance that makes it. */
  instance: string
  console: Origin
  versions: Record<string, unknown>
  requester?: Requester
  note?: string
  protect?: boolean
  /** The transaction of the restore before which it is made. */
  beforeRestore?: string
}

type Databases = HeaderDocument['storage']['databases']
type Summaries = HeaderDocument['dbs']

/** Makes a backup: begins its header, takes documents, shows progress, and ends it, complete or failed. */
export class RunningBackup {
  readonly id: string
  readonly #store: Store
  readonly #parts: Parts
  readonly #databases: Databases = {}
  /** Keys that chunks of its base are sealed with. */
  readonly #baseKeys = new Map<string, SealingKey>()
  /** The key for what it writes, once {@link ready} has it. */
  #key: SealingKey | undefined
  readonly #beganAt = performance.now()

  constructor(id: string, store: Store) {
    this.id = id
    this.#store = store
    this.#parts = new Parts(store.db)
  }

  /** Gets the key to seal with, if any: nothing can be stored before. @throws KeyUnavailableError */
  async ready(): Promise<void> {
    const { keyring } = this.#store
    this.#key ??= keyring && (await keyring.get(keyring.current))
  }

  /** Returns the time of day, in milliseconds since the epoch, by the clock that the dates of headers go by. */
  now(): number {
    return this.#store.now()
  }

  /** @returns whether the id was free @throws KeyUnavailableError, CouchError */
  async begin(origin: BackupOrigin): Promise<boolean> {
    const { instance, console, versions, requester, note, protect, beforeRestore } = origin
    await this.ready()
    const { db, now } = this.#store
    const header: HeaderDocument = {
      type: BACKUP_TYPE,
      backup_version: BACKUP_VERSION,
      ibp_versions: versions,
      ...(requester && { requester }),
      ...(note !== undefined && { note }),
      ...(protect && { protected: true as const }),
      doc_count: 0,
      dbs: {},
      in_progress: true,
      start_timestamp: now(),
      storage: {
        layout: PLAIN_LAYOUT,
        instance,
        ...console,
        ...(beforeRestore !== undefined && { before_restore: beforeRestore }),
        databases: {}
      }
    }
    try {
      await db.put({ ...this.#sealed(header), _id: this.id })
      return true
    } catch (error) {
      if (!isConflict(error)) throw error
      // A conflict with ourselves: the reply to the write was lost.
      const existing = await db.get<HeaderDocument>(this.id)
      return existing?.storage?.instance === instance
    }
  }

  /** Takes the documents of one database. */
  writer(options: Omit<DatabaseWriterOptions, 'store' | 'backup'>): DatabaseWriter {
    for (const [id, key] of options.base?.keys ?? []) this.#baseKeys.set(id, key)
    return new DatabaseWriter(
      { ...options, store: this.#store, key: this.#key, backup: this.id },
      (stored) => {
        this.#databases[options.database] = stored
      }
    )
  }

  /** Deletes what was stored of one database, which is to be read again. */
  async discard(database: LogicalDatabase): Promise<void> {
    delete this.#databases[database]
    await this.#parts.remove(this.id, database)
  }

  /** Shows progress. @param inCurrent documents of the current database so far @throws BackupDeletedError */
  async progress(dbs: Summaries, inCurrent: number): Promise<void> {
    const shown = this.#key ? withoutTexts(dbs) : dbs
    await this.#changeRunning((header) => ({
      ...header,
      doc_count: documentsIn(dbs) + inCurrent,
      dbs: shown
    }))
  }

  /**
   * Checks what was stored, and completes the backup.
   * @param base the backup whose chunks it shares, if any @throws DamagedBackupError, BackupDeletedError
   */
  async finish(dbs: Summaries, base?: LoadedBackup): Promise<LoadedBackup> {
    await this.#parts.check(this.id, Object.values(this.#databases))
    const took = Math.round(performance.now() - this.#beganAt)
    const ended = (header: HeaderDocument): HeaderDocument => ({
      ...listing(header, dbs, this.#databases),
      doc_count: documentsIn(dbs),
      in_progress: false,
      // The clock may have been set meanwhile.
      end_timestamp: header.start_timestamp + took,
      elapsed: elapsed(took),
      ...(base && { base: base.id }),
      chain_length: base ? base.chainLength + 1 : 0,
      added_bytes: Object.values(dbs).reduce((sum, { added_bytes: bytes = 0 }) => sum + bytes, 0)
    })
    const header = await this.#changeRunning((header) => this.#sealed(ended(header)))
    const head = header as unknown as Head
    const keys = new Map([...this.#baseKeys, ...(this.#key ? [[this.#key.id, this.#key] as const] : [])])
    return new LoadedBackup(this.#store, head, { keys, dbs: dbs as unknown as Head['dbs'] })
  }

  /** Seals a header, if what it writes is sealed. */
  #sealed(header: HeaderDocument): HeaderDocument {
    const key = this.#key
    if (!key) return header
    const used = Object.values(header.storage.databases).flatMap((stored) => stored?.sealed ?? [])
    const keys = [...this.#baseKeys.values()].filter(({ id }) => used.includes(id) && id !== key.id)
    return sealHeader(header, { id: this.id, key, keys })
  }

  /** Fails an incomplete backup and deletes its parts, also without a header. @param took milliseconds */
  async fail(reason: string, took?: number): Promise<void> {
    // A backup that failed since there is no key has to be marked without one.
    const unsealed = await this.ready().then(
      () => undefined,
      (error: Error) => error
    )
    let complete = false
    try {
      await this.#change((header) => {
        complete = !header.in_progress && header.error === undefined
        if (!header.in_progress) return null
        return unsealed
          ? this.#failed(
              header,
              `the backup failed, and its reason cannot be sealed: ${unsealed.message}`,
              took
            )
          : this.#sealed(this.#failed(header, reason, took))
      })
    } catch (error) {
      if (!(error instanceof BackupDeletedError)) throw error
    }
    if (!complete) await this.#parts.remove(this.id)
  }

  #failed(header: HeaderDocument, reason: string, took?: number): HeaderDocument {
    const start = header.start_timestamp
    // Another instance began it, whose clock may be ahead, unless the time is known that it took.
    const end = took === undefined ? Math.max(this.#store.now(), start) : start + Math.round(took)
    return {
      ...listing(header, {}, {}),
      doc_count: 0,
      in_progress: false,
      error: reason,
      end_timestamp: end,
      elapsed: elapsed(end - start)
    }
  }

  /** Changes the header of a backup that still runs. */
  #changeRunning(change: (header: HeaderDocument) => HeaderDocument): Promise<StoredHeader> {
    return this.#change((header) => {
      // Not the one that this backup began with.
      if (!header.in_progress) throw new BackupDeletedError(this.id)
      return change(header)
    })
  }

  /** Changes the header, keeping attachments; `null` leaves it. @throws BackupDeletedError if it has gone */
  #change(change: (header: HeaderDocument) => HeaderDocument | null): Promise<StoredHeader> {
    const modify = async () => {
      const changed = await this.#store.db.modify<HeaderDocument>(this.id, (current) => {
        if (current?.type !== BACKUP_TYPE) throw new BackupDeletedError(this.id)
        return change(current)
      })
      return changed as StoredHeader
    }
    return this.#store.headerMutex.run(this.id, modify)
  }
}

/** Returns a header that tells and lists what is stored of these databases, and nothing else. */
const listing = (header: HeaderDocument, dbs: Summaries, databases: Databases): HeaderDocument => ({
  ...header,
  dbs,
  storage: { ...header.storage, databases, sha256: contentDigest(dbs, databases) }
})

const documentsIn = (dbs: Readonly<Record<string, DatabaseSummary>>): number =>
  Object.values(dbs).reduce((sum, { doc_count }) => sum + doc_count, 0)

const UNITS: readonly [name: string, ms: number][] = [
  ['days', 86_400_000],
  ['hours', 3_600_000],
  ['mins', 60_000],
  ['secs', 1000]
]

/** Returns a duration for people: `"23.8 secs"`. */
function elapsed(ms: number): string {
  const unit = UNITS.find(([, size]) => ms >= size)
  return unit ? `${(ms / unit[1]).toFixed(1)} ${unit[0]}` : `${Math.round(ms)} ms`
}
