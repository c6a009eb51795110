import type { LogicalDatabase } from '../../types/databases.js'
import type { AboutDatabase } from '../format/about-database.js'
import { idOfKey } from '../ids/large-key.js'
import { InvalidDocumentError, isDesign, readDocument } from '../json/document.js'
import type { BackupStore } from '../repository/backup-store.js'
import {
  againIfDamaged,
  DamagedBackupError,
  readLargeChunk,
  verifyChunk
} from '../repository/chunk-reader.js'
import type { ChunkEntry, StoredHeader } from '../repository/layout.js'
import { apiKey, LOGICAL_DATABASES } from '../repository/names.js'
import {
  chunkContents,
  countingLines,
  documentCount,
  type StoredDocuments,
  storedDocuments
} from '../repository/stored-documents.js'
import type { Spool } from '../spool/spool.js'
import { type FileRange, headMemory, indexLargeDocument, type LargeDocument } from './large-document.js'
import { Grouping, type RestoreSource, type SourceDocument } from './source.js'

/** Chunks being checked at a time. */
const CHECKS_IN_FLIGHT = 3

/** A backup of this package in the database. */
export class StoredSource implements RestoreSource {
  readonly proof = 'revision'
  readonly #store: BackupStore
  readonly #header: StoredHeader
  readonly #makeSpool: () => Spool
  readonly #databases = new Map<LogicalDatabase, StoredDocuments>()
  #spool: Spool | undefined
  readonly #headMemory = headMemory()

  /** @param makeSpool where large documents are put while they are restored */
  private constructor(store: BackupStore, header: StoredHeader, makeSpool: () => Spool) {
    this.#store = store
    this.#header = header
    this.#makeSpool = makeSpool
  }

  /**
   * Checks that every chunk is there and is what was stored.
   * @throws DamagedBackupError
   */
  static async open(store: BackupStore, header: StoredHeader, makeSpool: () => Spool): Promise<StoredSource> {
    const source = new StoredSource(store, header, makeSpool)
    for (const database of LOGICAL_DATABASES) {
      if (!header.storage.databases[database]) continue
      const documents = await storedDocuments(store, header, database)
      source.#databases.set(database, documents)
      source.#checkCount(database, await verifiedCount(store, documents))
    }
    return source
  }

  get databases(): readonly LogicalDatabase[] {
    return [...this.#databases.keys()]
  }

  about(database: LogicalDatabase): AboutDatabase {
    return this.#header.dbs[apiKey(database)] ?? {}
  }

  count(database: LogicalDatabase): number {
    return documentCount(this.#header, database)
  }

  async *documents(database: LogicalDatabase, design: boolean): AsyncGenerator<SourceDocument[]> {
    const documents = this.#databases.get(database)
    if (!documents) return
    const { chunks, repeated } = documents
    const wanted = (entry: ChunkEntry) => (design ? entry.design > 0 : entry.docs > entry.design)
    for await (const content of chunkContents(this.#store, chunks, { ahead: false, wanted })) {
      const { entry, lines, ordinal } = content
      if (lines === null) {
        if (repeated.isLast(entry.large ?? '', ordinal)) yield* this.#large(entry)
        continue
      }
      const grouping = new Grouping()
      for await (const counting of countingLines(content, lines, repeated)) {
        for (const line of counting) {
          const document = readDocument(line)
          const group = isDesign(document.id) === design ? grouping.add(document) : undefined
          if (group) yield group
        }
      }
      yield grouping.rest()
    }
  }

  async close(): Promise<void> {
    await this.#spool?.remove()
  }

  async *#large(entry: ChunkEntry): AsyncGenerator<SourceDocument[]> {
    this.#spool ??= this.#makeSpool()
    const spool = this.#spool
    const read = async () => {
      const attempt = await spool.largeFile()
      try {
        for await (const piece of readLargeChunk(this.#store.db, entry)) await attempt.write(piece)
        return attempt
      } catch (error) {
        await attempt.close()
        throw error
      }
    }
    const file = await againIfDamaged(() => this.#store.db.client.retry(read))
    try {
      yield [await this.#index(entry, { file: file.handle, from: 0, to: file.size })]
    } finally {
      await file.close()
    }
  }

  /** One that takes more memory than a document may keeps no other from being restored. */
  async #index(entry: ChunkEntry, range: FileRange): Promise<LargeDocument> {
    try {
      return await indexLargeDocument(range, this.#headMemory)
    } catch (problem) {
      if (!(problem instanceof InvalidDocumentError)) throw problem
      const id = idOfKey(entry.large ?? '')
      if (!id) throw problem
      return { head: readDocument(Buffer.from(JSON.stringify({ _id: id }))), parts: [], problem }
    }
  }

  #checkCount(database: LogicalDatabase, held: number): void {
    if (held === this.count(database)) return
    throw new DamagedBackupError(
      this.#header._id,
      `says ${this.count(database)} documents for ${database}, its chunks hold ${held}`
    )
  }
}

/**
 * Checks all chunks.
 * @returns how many documents they hold
 * @throws DamagedBackupError
 */
async function verifiedCount(store: BackupStore, { chunks, repeated }: StoredDocuments): Promise<number> {
  if (repeated.size > 0) return countLines(store, { chunks, repeated })
  const queue = [...chunks]
  const work = async () => {
    try {
      for (let entry = queue.shift(); entry; entry = queue.shift()) await verifyChunk(store.db, entry)
    } finally {
      // One that is damaged ends it: nobody waits for the others any more.
      queue.length = 0
    }
  }
  await Promise.all(Array.from({ length: CHECKS_IN_FLIGHT }, work))
  return chunks.reduce((sum, { docs }) => sum + docs, 0)
}

/** Which lines count, only the lines tell, where documents changed while they were backed up. */
async function countLines(store: BackupStore, { chunks, repeated }: StoredDocuments): Promise<number> {
  let count = 0
  for await (const content of chunkContents(store, chunks, { ahead: true })) {
    const { entry, lines, ordinal } = content
    if (lines !== null) {
      for await (const group of countingLines(content, lines, repeated)) count += group.length
    } else {
      await verifyChunk(store.db, entry)
      if (repeated.isLast(entry.large ?? '', ordinal)) count++
    }
  }
  return count
}
