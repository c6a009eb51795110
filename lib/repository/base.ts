import type { LogicalDatabase } from '../../types/databases.js'
import type { CouchDatabase } from '../couch/database.js'
import { apiKey } from '../databases.js'
import type { ChunkEntry, SourceIdentity, StoredDatabase, StoredHeader } from './layout.js'
import { readEntries } from './manifests.js'
import { Parts } from './parts.js'

const KEY = /^[0-9a-f]{32}$/

/** What a backup holds of one database, for the next backup to be based on. */
export class BaseDocuments {
  /** The database that was read; `undefined` where the server did not tell enough. */
  readonly source: SourceIdentity | undefined
  /** The update sequence whose state the backup holds. */
  readonly since: string
  readonly excludedTypes: readonly string[]
  readonly documents: number
  /** Documents that could not be read. */
  readonly unreadable: number
  readonly key: string
  readonly manifests: StoredDatabase['manifests']
  readonly index: readonly ChunkEntry[]
  readonly #db: CouchDatabase
  readonly #stored: StoredDatabase
  #chunks: readonly ChunkEntry[] = []

  private constructor(
    db: CouchDatabase,
    stored: StoredDatabase & { index: ChunkEntry[]; key: string },
    told: Told
  ) {
    this.source = stored.source
    this.since = told.last_sequence
    this.excludedTypes = told.excluded_types ?? []
    this.documents = told.doc_count
    this.unreadable = told.unreadable_count ?? 0
    this.key = stored.key
    this.manifests = stored.manifests
    this.index = stored.index
    this.#db = db
    this.#stored = stored
  }

  /** @returns `undefined` for a backup of an earlier layout, and where nothing was stored */
  static of(db: CouchDatabase, header: StoredHeader, database: LogicalDatabase): BaseDocuments | undefined {
    const stored = header.storage.databases?.[database]
    const told = header.dbs[apiKey(database)]
    if (!stored || !Array.isArray(stored.index) || !KEY.test(stored.key ?? '')) return undefined
    if (!Array.isArray(stored.chunks) || !Array.isArray(stored.manifests)) return undefined
    if (typeof told?.last_sequence !== 'string') return undefined
    return new BaseDocuments(db, { ...stored, index: stored.index, key: stored.key as string }, told)
  }

  /** The chunks, in order, once {@link load} has read their entries. */
  get chunks(): readonly ChunkEntry[] {
    return this.#chunks
  }

  /** Reads the entries of all chunks, and checks that the chunks are there. @throws DamagedBackupError */
  async load(): Promise<void> {
    const chunks = await readEntries(this.#db, this.#stored)
    await new Parts(this.#db).checkThere([...chunks, ...this.index])
    this.#chunks = chunks
  }
}

type Told = StoredHeader['dbs'][string]
