import type { LogicalDatabase } from '../../types/databases.js'
import { attachmentBase64, stubOf } from '../couch/attachments.js'
import type { CouchClient } from '../couch/client.js'
import type { CouchDatabase, Revision } from '../couch/database.js'
import { isConflict } from '../couch/errors.js'
import {
  BackupDeletedError,
  BackupNotFoundError,
  InvalidParameterError,
  UnknownLayoutError
} from '../errors.js'
import { BACKUP_TYPE, isBackupId } from '../own-documents.js'
import { inTurns, type Steps, sharedTurn } from '../waits/steps.js'
import { Turns } from '../waits/turns.js'
import { Appender, type AppendLimits } from './appender.js'
import type { ChunkWriterOptions } from './chunk-writer.js'
import { DatabaseWriter } from './database-writer.js'
import { BACKUP_RANGE, stampIn } from './ids.js'
import { type HeaderDocument, LAYOUT, type StoredHeader } from './layout.js'
import { Parts } from './parts.js'
import { type LegacyHeader, type LoadedBackup, readHeader } from './read-header.js'
import { type StoredBytes, StoredDocuments } from './stored-documents.js'

const MAX_BACKUP_ID = 64
/** Documents whose types are read at the same time. */
const TYPES_AT_A_TIME = 8
/** Documents in the range of headers that are worked on in one step: less than a millisecond. */
const LISTED = 500

interface KnownDocument {
  /** Absent for a document that was not shown. */
  rev: string | undefined
  header: boolean
}

/**
 * Keeps backups in a CouchDB database, perhaps on another server than the source. Only this module knows
 * which documents, paths, digests and compression they are made of.
 */
export class Repository {
  readonly #db: CouchDatabase
  readonly #turns: Turns
  readonly parts: Parts
  /** Documents in the range of headers, as of the last list. */
  #known = new Map<string, KnownDocument>()
  /** Settles with the list that is being read. */
  #lastList: Promise<unknown> = Promise.resolve()
  /** The list that is read after that one. */
  #nextList: Promise<readonly string[]> | undefined

  constructor(db: CouchDatabase, turns = new Turns()) {
    this.#db = db
    this.#turns = turns
    this.parts = new Parts(db)
  }

  get name(): string {
    return this.#db.name
  }

  on(client: CouchClient): Repository {
    return new Repository(this.#db.on(client), this.#turns)
  }

  ensure(): Promise<void> {
    return this.#db.ensure()
  }

  /** Returns the ids of all backups, oldest first. Those that a replica no longer shows are looked up. */
  list(): Promise<readonly string[]> {
    // While a list is read, all other callers share the next, which shows what was written before they asked.
    this.#nextList ??= this.#lastList.then(() => {
      this.#nextList = undefined
      const list = this.#list()
      this.#lastList = list.catch(() => undefined)
      return list
    })
    return this.#nextList
  }

  async #list(): Promise<string[]> {
    const documents = await inTurns(this.#toLookAt(await headerRevisions(this.#db)))
    const known = new Map<string, KnownDocument>()
    const look = async ([id, rev]: [string, string | undefined]) =>
      known.set(id, { rev, header: await this.#isHeader(id, rev) })
    for (let i = 0; i < documents.length; i += TYPES_AT_A_TIME) {
      await sharedTurn()
      await Promise.all(documents.slice(i, i + TYPES_AT_A_TIME).map(look))
    }
    this.#known = known
    return inTurns(headersByStamp(known))
  }

  /** Returns revisions by id: those shown, and those known before, whose revisions are unknown. */
  *#toLookAt(rows: readonly Revision[]): Steps<[string, string | undefined][]> {
    const found = new Map<string, string | undefined>()
    for (const [i, { id, rev }] of rows.entries()) {
      if (i % LISTED === 0) yield
      found.set(id, rev)
    }
    yield
    for (const [id, { header }] of this.#known) if (header && !found.has(id)) found.set(id, undefined)
    return [...found]
  }

  /** Returns whether a document is a header: a document of the console may have such an id. */
  async #isHeader(id: string, rev?: string): Promise<boolean> {
    const known = this.#known.get(id)
    return known && rev !== undefined && known.rev === rev
      ? known.header
      : (await this.#db.type(id)) === BACKUP_TYPE
  }

  /** Reads a backup's header in bounded memory, even of a legacy backup; `null` when there is none. */
  load(id: string): Promise<LoadedBackup | null> {
    return readHeader(this.#db, id)
  }

  /** Reads a named header. @throws InvalidParameterError, BackupNotFoundError, UnknownLayoutError */
  async get(id: string): Promise<LoadedBackup> {
    if (typeof id !== 'string' || id.length > MAX_BACKUP_ID || !isBackupId(id)) {
      throw new InvalidParameterError('backup_id is not the id of a backup')
    }
    const loaded = await this.load(id)
    if (!loaded) throw new BackupNotFoundError(id)
    if (loaded.kind === 'chunks' && !(loaded.header.storage.layout <= LAYOUT))
      throw new UnknownLayoutError(id)
    return loaded
  }

  /** Writes a new header. @returns whether the id was free */
  async create(id: string, header: HeaderDocument): Promise<boolean> {
    try {
      await this.#db.put({ ...header, _id: id })
      return true
    } catch (error) {
      if (!isConflict(error)) throw error
      // The conflict may be ours, if the reply to the write was lost.
      const existing = await this.#db.get<HeaderDocument>(id)
      return existing?.storage?.instance === header.storage.instance
    }
  }

  /**
   * Changes a header and keeps its attachments, again after each conflict with an append.
   * @param change returns `null` to leave it as it is
   * @throws BackupDeletedError when the header is gone, or another document is in its place
   */
  async update(id: string, change: (header: HeaderDocument) => HeaderDocument | null): Promise<void> {
    const modify = () =>
      this.#db.modify<HeaderDocument>(id, (current) => {
        if (current?.type !== BACKUP_TYPE) throw new BackupDeletedError(id)
        return change(current)
      })
    await this.#turns.take(id, modify)
  }

  writer(options: Omit<ChunkWriterOptions, 'db'>): DatabaseWriter {
    return new DatabaseWriter({ db: this.#db, ...options })
  }

  /** Finds a backup's documents of one database; `null` without it. @throws DamagedBackupError */
  documents(header: StoredHeader, database: LogicalDatabase): Promise<StoredDocuments | null> {
    return StoredDocuments.open(this.#db, header, database)
  }

  /** Finds the JSON of a legacy backup. */
  legacyDocument({ _id: id }: LegacyHeader): StoredBytes {
    const { client, name } = this.#db
    return {
      open: async function* () {
        yield* (await client.stream({ path: [name, id] })).body
      },
      readAll: (read) => this.#db.readStream(id, read)
    }
  }

  /** Streams an appended attachment in base64. */
  attachmentText(
    { _id: id, _rev: rev, _attachments: stubs = {} }: StoredHeader | LegacyHeader,
    name: string
  ): AsyncIterable<Uint8Array> {
    return attachmentBase64(this.#db, { id, rev }, stubOf(name, stubs[name]))
  }

  /** @param wait milliseconds in which an append must get its turn, and a try without a conflict */
  appender(limits: AppendLimits, wait: number): Appender {
    const target = { db: this.#db, turns: this.#turns, load: (id: string) => this.get(id) }
    return new Appender(target, limits, wait)
  }
}

/** Returns a database's documents with ids of backups, whatever they are. */
export const headerRevisions = async (db: CouchDatabase): Promise<Revision[]> =>
  (await db.rows(BACKUP_RANGE)).filter(({ id }) => isBackupId(id))

/** Returns the ids of the headers, oldest first. */
function* headersByStamp(known: ReadonlyMap<string, KnownDocument>): Steps<string[]> {
  const stamped: { id: string; stamp: bigint }[] = []
  let looked = 0
  for (const [id, { header }] of known) {
    if (++looked % LISTED === 0) yield
    if (header) stamped.push({ id, stamp: stampIn(id) })
  }
  yield
  // Nearly sorted already, as listed: about one comparison each.
  stamped.sort((a, b) => (a.stamp < b.stamp ? -1 : 1))
  yield
  return stamped.map(({ id }) => id)
}
