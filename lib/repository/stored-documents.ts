import type { LogicalDatabase } from '../../types/databases.js'
import { apiKey } from '../databases.js'
import { DamagedBackupError } from '../errors.js'
import { fingerprint } from '../ids/fingerprint.js'
import { idOfKey } from '../ids/large-key.js'
import { documentId } from '../json/document.js'
import { atATime } from '../waits/at-a-time.js'
import { type ChunkContent, type ChunkSelection, chunkContents, lineGroups } from './chunk-contents.js'
import type { ChunkReader } from './chunk-reader.js'
import { type ChunkEntry, liveBytes, liveDocuments, type StoredHeader, sum } from './layout.js'
import { checkLines, deadLinesOf } from './line-set.js'
import { readEntries } from './manifests.js'
import { SupersededVersions } from './superseded-versions.js'
import { pickedLines, type UnsharedChunk, unsharedChunks } from './unshared.js'

/** Chunks being checked at a time. */
const CHECKS_IN_FLIGHT = 3

export interface StoredBytes {
  /** Streams the bytes; a fault ends the stream. */
  open(): AsyncIterable<Buffer>
  /** Has `read` read all bytes, again from the start after a fault. */
  readAll<T>(read: (bytes: AsyncIterable<Buffer>) => Promise<T>): Promise<T>
}

/** Documents that lie together: their lines, or one that is too large to be held in memory. */
type StoredGroup = StoredLines | LargeDocumentBytes

export interface StoredLines {
  kind: 'lines'
  /** Lines with their ends, also lines that do not count. Valid until the next group is asked for. */
  bytes: Buffer
  /** Yields the lines that count, without line ends. @throws DamagedBackupError when lines are missing */
  counting(): AsyncGenerator<Buffer[]>
}

export interface LargeDocumentBytes extends StoredBytes {
  kind: 'large'
  /** Its id, or a digest of one that is long (see `largeKey`). */
  key: string
  /** Its id, unless that is long. */
  id: string | undefined
}

/** Documents of one chunk, which has a number in {@link UnsharedDocuments}. */
type UnsharedGroup = { chunk: number } & (Pick<StoredLines, 'kind' | 'counting'> | LargeDocumentBytes)

/** The documents of a database that a backup does not hold as the same lines of chunks as another does. */
export class UnsharedDocuments {
  /** Most documents that there can be. */
  readonly documents: number
  /** Most bytes of lines that there can be. */
  readonly bytes: number
  /** Yields the groups of the chunks that are wanted by their numbers, each valid until the next is asked for. */
  readonly groups: (wanted: (chunk: number) => boolean) => AsyncGenerator<UnsharedGroup>

  constructor(chunks: readonly UnsharedChunk[], groups: UnsharedDocuments['groups']) {
    this.documents = sum(chunks, ({ documents }) => documents)
    this.bytes = sum(chunks, ({ bytes }) => bytes)
    this.groups = groups
  }
}

/** Reads what a backup holds of one database. Methods throw DamagedBackupError and CouchError. */
export class StoredDocuments {
  readonly #header: StoredHeader
  readonly #database: LogicalDatabase
  readonly #reader: ChunkReader
  #chunks: readonly ChunkEntry[] = []
  readonly #superseded = new SupersededVersions()

  private constructor(reader: ChunkReader, header: StoredHeader, database: LogicalDatabase) {
    this.#header = header
    this.#database = database
    this.#reader = reader
  }

  /** @returns `null` when the backup holds nothing of the database */
  static async open(
    reader: ChunkReader,
    header: StoredHeader,
    database: LogicalDatabase
  ): Promise<StoredDocuments | null> {
    const stored = header.storage.databases[database]
    if (!stored) return null
    const documents = new StoredDocuments(reader, header, database)
    documents.#chunks = await readEntries(reader.db, stored)
    for (const chunk of stored.superseded) await documents.#superseded.read(reader, chunk)
    return documents
  }

  get count(): number {
    return this.#header.dbs[apiKey(this.#database)]?.doc_count ?? 0
  }

  /** Yields the groups that hold design documents, or those that hold others; some hold both. */
  groups(design: boolean): AsyncGenerator<StoredGroup> {
    const wanted = (chunk: ChunkEntry) => (design ? chunk.design > 0 : chunk.docs > chunk.design)
    return this.#groups({ ahead: 0, wanted })
  }

  /**
   * Skips the groups that end before a byte of the lines; only byte 0 can be found where some do not count.
   * @returns the other groups, read one ahead, and how many documents and bytes were skipped
   */
  groupsFrom(start: number): { groups: AsyncGenerator<StoredGroup>; documents: number; bytes: number } {
    const skipped = new Set<ChunkEntry>()
    let documents = 0
    let bytes = 0
    for (const chunk of this.#chunks) {
      if (bytes + liveBytes(chunk) > start) break
      skipped.add(chunk)
      documents += liveDocuments(chunk)
      bytes += liveBytes(chunk)
    }
    return { groups: this.#groups({ ahead: 1, wanted: (chunk) => !skipped.has(chunk) }), documents, bytes }
  }

  async *#groups(options: ChunkSelection): AsyncGenerator<StoredGroup> {
    for await (const content of chunkContents(this.#reader, this.#chunks, options)) {
      const { entry, lines } = content
      if (lines) yield { kind: 'lines', bytes: lines, counting: () => this.#counting(content, lines) }
      else if (this.#superseded.isLastLarge(content)) yield this.#large(entry)
    }
  }

  async *#counting({ entry, ordinal }: ChunkContent, lines: Buffer): AsyncGenerator<Buffer[]> {
    const isLast = this.#filterOf(entry, ordinal)
    let at = 0
    for await (const group of lineGroups(lines)) {
      const first = at
      at += group.length
      yield isLast ? group.filter((line, i) => isLast(line, first + i)) : group
    }
    checkLines(entry, at)
  }

  /** Returns what tells which lines of a chunk count; `undefined` where all do. */
  #filterOf(entry: ChunkEntry, ordinal: number): ((line: Buffer, index: number) => boolean) | undefined {
    if (entry.dead) {
      const dead = deadLinesOf(entry)
      return (_line, index) => !dead.has(index)
    }
    if (!this.#isOfVersions) return undefined
    return (line, index) => this.#superseded.isLast(fingerprint(documentId(line)), ordinal + index)
  }

  /**
   * Returns the documents that another backup in the same repository does not hold as the same lines. Lines that
   * both list are not read. Returns all documents without `other`.
   */
  unshared(other?: StoredDocuments): UnsharedDocuments {
    // In layout 2, entries do not tell which lines count; such backups share nothing.
    const others = other === undefined || this.#isOfVersions || other.#isOfVersions ? [] : other.#chunks
    const chunks = unsharedChunks(this.#chunks, others)
    return new UnsharedDocuments(chunks, (wanted) => this.#unsharedGroups(chunks, wanted))
  }

  /** Whether it is of layout 2, and lines tell which of them count. */
  get #isOfVersions(): boolean {
    return this.#superseded.size > 0
  }

  async *#unsharedGroups(
    chunks: readonly UnsharedChunk[],
    wanted: (chunk: number) => boolean
  ): AsyncGenerator<UnsharedGroup> {
    const numbers = new Map(chunks.flatMap(({ entry }, i) => (wanted(i) ? [[entry, i]] : [])))
    const options = { ahead: 2, wanted: (entry: ChunkEntry) => numbers.has(entry) }
    for await (const content of chunkContents(this.#reader, this.#chunks, options)) {
      const { entry, lines: bytes } = content
      const chunk = numbers.get(entry) as number
      const { lines } = chunks[chunk]
      if (bytes) {
        const counting = () => (lines ? pickedLines(entry, bytes, lines) : this.#counting(content, bytes))
        yield { chunk, kind: 'lines', counting }
      } else if (this.#superseded.isLastLarge(content)) yield { chunk, ...this.#large(entry) }
    }
  }

  #large(entry: ChunkEntry): LargeDocumentBytes {
    const key = this.#reader.largeKey(entry)
    return {
      kind: 'large',
      key,
      id: idOfKey(key),
      open: () => this.#reader.document(entry),
      readAll: (read) => this.#reader.readDocument(entry, read)
    }
  }

  /** Checks that the header tells what it lists, as far as that shows without reading any chunk. */
  checkEntries(): void {
    if (this.#isOfVersions) return
    this.checkCount(sum(this.#chunks, liveDocuments))
    this.checkLength()
  }

  /** Checks that every chunk is as it was stored, and that they hold as many documents as the header says. */
  async verify(): Promise<void> {
    this.checkCount(this.#isOfVersions ? await this.#countLines() : await this.#verifyChunks())
  }

  checkCount(held: number): void {
    if (held !== this.count)
      throw this.#wrongHeader(`says ${this.count} documents for ${this.#database}, its chunks hold ${held}`)
  }

  /** Checks that the chunks hold as many bytes as {@link storedLength} tells. */
  checkLength(): void {
    const length = storedLength(this.#header, this.#database)
    if (length !== undefined && length !== sum(this.#chunks, liveBytes))
      throw this.#wrongHeader(`says that the documents of ${this.#database} have another length`)
  }

  #wrongHeader(problem: string): DamagedBackupError {
    return new DamagedBackupError('header', this.#header._id, problem)
  }

  /** Checks all chunks. @returns how many documents they hold */
  async #verifyChunks(): Promise<number> {
    await atATime(CHECKS_IN_FLIGHT, this.#chunks, (entry) => this.#reader.verify(entry))
    return sum(this.#chunks, liveDocuments)
  }

  /** In layout 2, documents that changed meanwhile can only be counted by reading every line. */
  async #countLines(): Promise<number> {
    let count = 0
    for await (const content of chunkContents(this.#reader, this.#chunks, { ahead: 1 })) {
      if (content.lines) {
        for await (const group of this.#counting(content, content.lines)) count += group.length
      } else {
        await this.#reader.verify(content.entry)
        if (this.#superseded.isLastLarge(content)) count++
      }
    }
    return count
  }
}

/** Returns the bytes of a database's lines by the header; `undefined` when some lines do not count. */
export function storedLength(header: StoredHeader, database: LogicalDatabase): number | undefined {
  const stored = header.storage.databases[database]
  if (!stored) return 0
  const raw = header.dbs[apiKey(database)]?.raw_bytes
  return stored.superseded.length === 0 && Number.isSafeInteger(raw) ? raw : undefined
}
