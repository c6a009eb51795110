import type { LogicalDatabase } from '../../types/databases.js'
import type { CouchDatabase } from '../couch/database.js'
import { DamagedBackupError } from '../errors.js'
import { type Fingerprinter, fingerprinter, newFingerprintKey } from '../ids/fingerprint.js'
import type { LastVersions } from '../ids/version-index.js'
import { documentId, isDesign } from '../json/document.js'
import type { SealingKey } from '../seal/sealing-key.js'
import { inTurns } from '../waits/steps.js'
import type { BaseDocuments } from './base.js'
import { chunkContents, lineGroups } from './chunk-contents.js'
import { ChunkList } from './chunk-list.js'
import { ChunkPlaces } from './chunk-places.js'
import { ChunkReader } from './chunk-reader.js'
import { ChunkWriter, type LineFacts, type RefusedLine } from './chunk-writer.js'
import { IndexWriter, readIndex } from './document-index.js'
import {
  type ChunkEntry,
  keysOf,
  liveBytes,
  liveDocuments,
  nameOf,
  type SourceIdentity,
  type Store,
  type StoredDatabase,
  sum
} from './layout.js'
import { checkLines, conflictLinesOf, deadLinesOf, liveConflicts } from './line-set.js'
import { moveToManifests } from './manifests.js'

/** An index is written anew where less of a chunk counts. */
const LIVE_SHARE = 0.5
/** Small chunks of an index that may be listed, and the bytes of a small one. */
const MOST_SMALL = 8
const SMALL_INDEX = 256 * 1024

export interface DatabaseWriterOptions {
  store: Store
  /** Seals what is stored. Absent where nothing is sealed. */
  key?: SealingKey
  /** Id of the backup. */
  backup: string
  database: LogicalDatabase
  /** Number of the first chunk. */
  first: number
  /** Absent for a full backup. */
  base: BaseDocuments | undefined
  /** Share of a database's bytes that may be waste before chunks are written anew. */
  waste: number
  /** Called for a document too large to be stored. A line with only its id takes its place. */
  onRefused(line: RefusedLine): void
}

/** The counts of one database in a backup: documents, and the bytes that it took to store them. */
interface StoredCounts {
  documents: number
  conflicts: number
  rawBytes: number
  /** Bytes of lines that do not count. */
  wastedBytes: number
  storedBytes: number
  newChunks: number
  reusedChunks: number
  addedBytes: number
}

/** Stores the documents of one database in a backup, beside those of the backup that it is based on. */
export class DatabaseWriter {
  /** Makes the fingerprints by which {@link finish} knows documents. */
  readonly print: Fingerprinter
  readonly #options: DatabaseWriterOptions
  readonly #key: string
  readonly #db: CouchDatabase
  readonly #places: ChunkPlaces
  readonly #documents: ChunkWriter
  readonly #index: IndexWriter
  readonly #reader: ChunkReader
  readonly #list: ChunkList
  /** Number of the first line of each chunk that was stored. */
  readonly #firstLines = new Map<string, number>()
  readonly #new = new Map<string, ChunkEntry>()
  /** Ids of the chunks that each line of a chunk of the index is of, as far as it was read. */
  readonly #indexed = new Map<ChunkEntry, string[]>()
  readonly #onStored: (stored: StoredDatabase) => void
  #isRewriting = false

  /** @param onStored is given what the backup's header is to list */
  constructor(options: DatabaseWriterOptions, onStored: (stored: StoredDatabase) => void) {
    const { store, key, backup, database, first, base, onRefused } = options
    const { db, codec, chunkBytes } = store
    this.#options = options
    this.#db = db
    this.#key = base?.key ?? newFingerprintKey()
    this.print = fingerprinter(this.#key)
    this.#places = new ChunkPlaces({ db, backup, database, first })
    const shared = { db, codec, chunkBytes, places: this.#places, ...(key && { seal: { key, database } }) }
    this.#index = new IndexWriter(shared)
    this.#documents = new ChunkWriter({
      ...shared,
      onRefused: (line) => this.#refused(line, onRefused),
      onStored: (entry, ordinal, marks) => {
        this.#firstLines.set(entry.id, ordinal)
        return this.#index.add(entry, marks)
      }
    })
    const keys = new Map([...(base?.keys ?? []), ...(key ? [[key.id, key] as const] : [])])
    this.#reader = new ChunkReader(db, codec, { database, keys })
    this.#list = new ChunkList(base?.chunks)
    this.#onStored = onStored
  }

  /** Number of the next chunk. */
  get next(): number {
    return this.#places.next
  }

  /** Adds a document. @returns a promise when too many chunks are being stored, to be waited for */
  add(line: Uint8Array, facts: LineFacts): Promise<void> | undefined {
    return this.#documents.add(line, facts)
  }

  /** Adds a document too large for memory as its own chunk; `open` restarts its bytes for each attempt. */
  addLarge(id: string, facts: LineFacts, open: () => AsyncIterable<Uint8Array>): Promise<void> {
    return this.#documents.addLarge(id, facts, open)
  }

  /** Stores what is left of the documents: no more are added. */
  async endDocuments(): Promise<void> {
    this.#listNew(await this.#documents.flush())
  }

  /** Waits until nothing is in flight, whatever became of it. */
  async settle(): Promise<void> {
    await this.#documents.settle()
    await this.#index.settle()
  }

  /**
   * Drops the versions that do not count, writes wasteful chunks anew, and enters what was stored in the backup.
   * @param versions the last versions of documents that came more than once, or that the base may hold
   */
  async finish(versions: LastVersions, source: SourceIdentity | undefined): Promise<StoredCounts> {
    const { base, backup, database } = this.#options
    let index = [...(base?.index ?? []), ...this.#noteNew(await this.#index.flush())]
    if (versions.size > 0) {
      await this.#drop(versions, index)
      await inTurns(this.#list.settle())
      await this.#rewrite()
      index = await this.#compact([...index, ...this.#noteNew(await this.#index.flush())])
    }
    const { entries } = this.#list
    const of = { backup, database }
    const { lists, bytes } = await moveToManifests(this.#db, of, entries, base?.manifests)
    this.#onStored({
      ...lists,
      superseded: [],
      index,
      key: this.#key,
      ...keysOf([...entries, ...index]),
      ...(source && { source })
    })
    const counts = this.#counts(entries, index)
    return { ...counts, addedBytes: counts.addedBytes + bytes }
  }

  /** Finds the versions of documents by the index, and drops all but the last of each. */
  async #drop(versions: LastVersions, index: readonly ChunkEntry[]): Promise<void> {
    for await (const { entry, lines } of readIndex(this.#reader, index)) {
      const chunks: string[] = []
      this.#indexed.set(entry, chunks)
      for await (const { chunk, first, marks } of lines) {
        chunks.push(chunk)
        if (!this.#list.has(chunk)) continue
        const firstLine = this.#firstLines.get(chunk)
        for (let i = 0; i < marks.count; i++) {
          const print = marks.print(i)
          // A version that an earlier backup has stored counts unless this backup has read a later one.
          const isLast =
            firstLine === undefined ? !versions.has(print) : versions.isLast(print, firstLine + first + i)
          if (!isLast) this.#list.drop(chunk, first + i, marks.length(i))
        }
      }
    }
  }

  /** Writes chunks anew that are small or have too many dead lines. */
  async #rewrite(): Promise<void> {
    const { store, waste } = this.#options
    const chosen = this.#list.toRewrite(waste, store.chunkBytes)
    this.#isRewriting = true
    for await (const { entry, lines } of chunkContents(this.#reader, chosen, { ahead: 0 })) {
      await this.#addAgain(entry, lines as Buffer)
      this.#list.remove(nameOf(entry))
      this.#new.delete(entry.id)
    }
    this.#listNew(await this.#documents.flush())
  }

  #refused(line: RefusedLine, onRefused: DatabaseWriterOptions['onRefused']): void {
    // A rewritten line was stored before: a full backup finds out what has become of it.
    if (this.#isRewriting)
      throw new DamagedBackupError('chunk', line.id, `cannot be written again: ${line.error.message}`)
    onRefused(line)
  }

  async #addAgain(entry: ChunkEntry, lines: Buffer): Promise<void> {
    const dead = deadLinesOf(entry)
    const conflicts = conflictLinesOf(entry)
    let at = 0
    for await (const group of lineGroups(lines)) {
      for (const line of group) {
        const i = at++
        if (dead.has(i)) continue
        const id = documentId(line)
        const facts = { print: this.print(id), design: isDesign(id), conflicted: conflicts.has(i) }
        const pending = this.#documents.add(line, facts)
        if (pending) await pending
      }
    }
    checkLines(entry, at)
  }

  /** Writes chunks of the index anew of which too much is of chunks that are not listed, or many small ones. */
  async #compact(index: readonly ChunkEntry[]): Promise<ChunkEntry[]> {
    const stale = (entry: ChunkEntry) => {
      const chunks = this.#indexed.get(entry) ?? []
      return chunks.filter((chunk) => this.#list.has(chunk)).length < chunks.length * LIVE_SHARE
    }
    const small = index.filter(({ raw }) => raw < SMALL_INDEX)
    const isMany = small.length > MOST_SMALL
    const chosen = new Set(index.filter((entry) => stale(entry) || (isMany && entry.raw < SMALL_INDEX)))
    for await (const { entry, lines } of readIndex(this.#reader, [...chosen])) {
      for await (const { chunk, bytes } of lines) if (this.#list.has(chunk)) await this.#index.addLine(bytes)
      this.#new.delete(entry.id)
    }
    const added = this.#noteNew(await this.#index.flush())
    return [...index.filter((entry) => !chosen.has(entry)), ...added]
  }

  #listNew(entries: readonly ChunkEntry[]): void {
    this.#list.add(this.#noteNew(entries))
  }

  #noteNew(entries: readonly ChunkEntry[]): readonly ChunkEntry[] {
    for (const entry of entries) this.#new.set(entry.id, entry)
    return entries
  }

  #counts(chunks: readonly ChunkEntry[], index: readonly ChunkEntry[]): StoredCounts {
    const all = [...chunks, ...index]
    const newChunks = chunks.filter(({ id }) => this.#new.has(id)).length
    return {
      documents: sum(chunks, liveDocuments),
      conflicts: sum(chunks, liveConflicts),
      rawBytes: sum(chunks, liveBytes),
      wastedBytes: sum(chunks, (chunk) => chunk.raw - liveBytes(chunk)),
      storedBytes: sum(all, ({ stored }) => stored),
      newChunks,
      reusedChunks: chunks.length - newChunks,
      addedBytes: sum(all, ({ id, stored }) => (this.#new.has(id) ? stored : 0))
    }
  }
}
