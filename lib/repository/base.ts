import type { DatabaseSummary } from '../../types/backups.js'
import type { LogicalDatabase } from '../../types/databases.js'
import type { CouchDatabase } from '../couch/database.js'
import { apiKey } from '../databases.js'
import { DamagedBackupError } from '../errors.js'
import type { Keys } from '../seal/keyring.js'
import { ChunkReader } from './chunk-reader.js'
import {
  type ChunkEntry,
  liveDocuments,
  type SourceIdentity,
  type Store,
  type StoredDatabase,
  type StoredHeader,
  sum
} from './layout.js'
import { readEntries } from './manifests.js'
import { Parts } from './parts.js'
import { allUnreadable } from './unreadable.js'

/** Backups in which each chunk is read once: a damaged chunk must not be handed on for ever. */
const TURNS = 30

/** The documents of one database in a backup, as the base of the next backup. */
export class BaseDocuments {
  /** The database that was read; `undefined` where the server did not tell enough. */
  readonly source: SourceIdentity | undefined
  /** The update sequence whose state the backup holds. */
  readonly since: string
  readonly excludedTypes: readonly string[]
  readonly documents: number
  /** Ids of the documents that could not be read; `undefined` where the header does not name all. */
  readonly unreadable: readonly string[] | undefined
  readonly key: string
  readonly manifests: StoredDatabase['manifests']
  readonly index: readonly ChunkEntry[]
  /** Id of the backup. */
  readonly backup: string
  readonly #db: CouchDatabase
  readonly #reader: ChunkReader
  readonly #stored: StoredDatabase
  #chunks: readonly ChunkEntry[] = []

  private constructor(
    { db, codec }: Pick<Store, 'db' | 'codec'>,
    { backup, database }: { backup: string; database: LogicalDatabase },
    stored: StoredDatabase & { index: ChunkEntry[]; key: string },
    told: DatabaseSummary,
    readonly keys: Keys
  ) {
    this.backup = backup
    this.source = stored.source
    this.since = told.last_sequence
    this.excludedTypes = told.excluded_types ?? []
    this.documents = told.doc_count
    this.unreadable = allUnreadable(told)?.map(({ id }) => id)
    this.key = stored.key
    this.manifests = stored.manifests
    this.index = stored.index
    this.#db = db
    this.#reader = new ChunkReader(db, codec, { database, keys })
    this.#stored = stored
  }

  /** @returns `undefined` for a backup of an earlier layout, and where nothing was stored */
  static of(
    store: Store,
    header: StoredHeader,
    database: LogicalDatabase,
    keys: Keys
  ): BaseDocuments | undefined {
    const stored = header.storage.databases?.[database]
    const told = header.dbs[apiKey(database)]
    if (!stored?.index || !stored.key || !told) return undefined
    const of = { backup: header._id, database }
    return new BaseDocuments(store, of, { ...stored, index: stored.index, key: stored.key }, told, keys)
  }

  /** The chunks, in order, once {@link load} has read their entries. */
  get chunks(): readonly ChunkEntry[] {
    return this.#chunks
  }

  /**
   * Reads the entries of all chunks, and checks that the chunks are there, and some of them whole.
   * @param turn which chunks are read whole: all were, once {@link TURNS} numbers in a row were given
   * @throws DamagedBackupError
   */
  async load(turn: number): Promise<void> {
    const chunks = await readEntries(this.#db, this.#stored)
    const { documents, backup } = this
    const held = sum(chunks, liveDocuments)
    if (held !== documents)
      throw new DamagedBackupError('header', backup, `says ${documents} documents, its chunks hold ${held}`)
    await new Parts(this.#db).checkThere([...chunks, ...this.index])
    for (const [i, chunk] of chunks.entries())
      if (i % TURNS === turn % TURNS) await this.#reader.verify(chunk)
    this.#chunks = chunks
  }
}
