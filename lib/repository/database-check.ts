import type { LogicalDatabase } from '../../types/databases.js'
import { apiKey } from '../databases.js'
import { DamagedBackupError } from '../errors.js'
import { type Fingerprint, fingerprint } from '../ids/fingerprint.js'
import { FingerprintTable } from '../ids/fingerprint-table.js'
import { documentId } from '../json/document.js'
import { idText } from '../json/document-line.js'
import { sharedTurn } from '../waits/steps.js'
import { type CheckedLines, ChunkCheck, type Counts } from './chunk-check.js'
import { type ChunkContent, chunkContents, lineGroups } from './chunk-contents.js'
import type { ChunkReader } from './chunk-reader.js'
import { readIndex } from './document-index.js'
import { type Finding, findingOf, NAMED_DOCUMENTS, type OnFinding } from './findings.js'
import { isEntry } from './header-storage.js'
import { makerOf } from './ids.js'
import {
  type ChunkEntry,
  liveBytes,
  liveDocuments,
  nameOf,
  type StoredDatabase,
  type StoredHeader,
  sum
} from './layout.js'
import { ChunkMarks, type LineMarks } from './line-marks.js'
import { conflictLinesOf, deadLinesOf, liveConflicts } from './line-set.js'
import { readManifest } from './manifests.js'
import { Parts } from './parts.js'
import { SupersededVersions } from './superseded-versions.js'

/** Lines whose marks are held at a time, 12 bytes each: the index is read once for so many. */
const MARKED = 1_000_000
/** Documents whose fingerprints are held at a time, in up to 32 bytes each: the index is read once for so many. */
const PRINTED = 500_000
/** Chunks read ahead of the one whose lines are checked, which lets replies wait for their turn. */
const AHEAD = 2
/** Marks, or entries, looked at in one step. */
const STEP = 500
/** Words of an entry of the table of fingerprints. */
const WORDS = 3

/** A chunk that was checked. */
interface CheckedChunk extends CheckedLines {
  /** How many chunks of the database were checked, this one included. */
  chunks: number
}

/** Fingerprints of lines of one chunk that follow each other. */
interface PrintGroup {
  chunk: string
  /** Number of the first line. */
  first: number
  count: number
  /** Whether a line counts, by its number in the group. */
  counts(line: number): boolean
  print(line: number): Fingerprint
}

/**
 * Checks what a backup holds of one database, part by part, and tells all that is wrong instead of ending at the
 * first. Holds tables of at most 1,000,000 lines, whatever the number of documents. Methods throw CouchError.
 */
export class DatabaseCheck {
  readonly #reader: ChunkReader
  readonly #header: StoredHeader
  readonly #database: LogicalDatabase
  readonly #stored: StoredDatabase
  readonly #onFinding: OnFinding
  readonly #lines: ChunkCheck
  #chunks: ChunkEntry[] = []
  /** Whether all entries could be read. */
  #isListed = true
  /** Whether all chunks of the index, and all chunks of documents, could be read so far. */
  #isIndexed = true
  #isRead = true
  /** The marks of all lines, where they are held at once and the index fits its chunks. */
  #allMarks: ChunkMarks | undefined
  readonly #superseded = new SupersededVersions()

  private constructor(
    reader: ChunkReader,
    header: StoredHeader,
    database: LogicalDatabase,
    stored: StoredDatabase,
    onFinding: OnFinding
  ) {
    this.#reader = reader
    this.#header = header
    this.#database = database
    this.#stored = stored
    this.#onFinding = onFinding
    this.#lines = new ChunkCheck(stored.key ?? '0'.repeat(32), onFinding, ({ id }, reason) =>
      this.#wrongHeader(`lists chunk "${id}" ${reason}`)
    )
  }

  /** Reads what is listed of a database; `null` where nothing is. */
  static async open(
    reader: ChunkReader,
    header: StoredHeader,
    database: LogicalDatabase,
    onFinding: OnFinding
  ): Promise<DatabaseCheck | null> {
    const stored = header.storage.databases?.[database]
    if (!stored) return null
    const check = new DatabaseCheck(reader, header, database, stored, onFinding)
    await check.#readEntries()
    return check
  }

  get chunks(): number {
    return this.#chunks.length
  }

  /** The documents and bytes that count, as the entries tell. */
  get told(): CheckedLines {
    return { documents: sum(this.#chunks, liveDocuments), bytes: sum(this.#chunks, liveBytes) }
  }

  async #readEntries(): Promise<void> {
    const { manifests, chunks } = this.#stored
    const lists: ChunkEntry[][] = []
    for (const manifest of manifests) {
      try {
        const entries = await readManifest(this.#reader.db, manifest)
        if (entries.length !== manifest.chunks)
          this.#wrongHeader(`tells ${manifest.chunks} entries of manifest "${manifest.id}"`)
        lists.push(entries)
      } catch (error) {
        this.#isListed = false
        this.#tell(error)
      }
    }
    const all = [...lists, chunks].flat()
    this.#chunks = all.filter(isEntry)
    if (this.#chunks.length === all.length) return
    this.#isListed = false
    this.#wrongHeader(`lists ${all.length - this.#chunks.length} chunks of ${this.#database} that are none`)
  }

  /** Checks that all that is listed is there, once, and adds up to what the header tells. Reads no chunk. */
  async structure(): Promise<void> {
    const { index = [], superseded } = this.#stored
    const kinds = new Map<string, Finding['part']>()
    for (const [i, { id }] of [...this.#chunks, ...superseded].entries()) {
      if (i % STEP === 0) await sharedTurn()
      if (kinds.has(id)) this.#wrongHeader(`lists chunk "${id}" twice`)
      if (makerOf(id) === undefined) this.#wrongHeader(`lists "${id}", which is the id of no chunk`)
      kinds.set(id, 'chunk')
    }
    for (const { id } of index) kinds.set(id, 'index')
    const parts = new Parts(this.#reader.db)
    for await (const id of parts.missing([...this.#chunks, ...superseded, ...index]))
      this.#onFinding({
        part: kinds.get(id) ?? 'chunk',
        id,
        reason: 'is missing, or was changed since it was stored'
      })
    await this.#checkSets()
    if (this.#isListed) this.#checkCounts()
  }

  /** Checks the sets of lines in the entries. */
  async #checkSets(): Promise<void> {
    for (const [i, entry] of this.#chunks.entries()) {
      if (i % STEP === 0) await sharedTurn()
      if (entry.sealed !== undefined && !this.#header.storage.seal) {
        this.#isListed = false
        this.#wrongHeader(`lists chunk "${entry.id}", which is sealed, and has no seal`)
      }
      const wrong = problemOfSets(entry)
      if (wrong === undefined) continue
      this.#isListed = false
      this.#wrongHeader(`lists chunk "${entry.id}" ${wrong}`)
    }
  }

  #checkCounts(): void {
    const told = this.#header.dbs[apiKey(this.#database)]
    if (!told) {
      this.#wrongHeader(`lists chunks of ${this.#database}, of which it tells nothing`)
      return
    }
    const { superseded, index } = this.#stored
    const all = [...this.#chunks, ...(index ?? [])]
    const held: [name: string, told: number | undefined, held: number][] =
      superseded.length > 0
        ? []
        : [
            ['documents', told.doc_count, sum(this.#chunks, liveDocuments)],
            ['bytes', told.raw_bytes, sum(this.#chunks, liveBytes)]
          ]
    // Layout 2 counted these in another way, which cannot be repeated.
    if (index)
      held.push(
        ['documents with conflicts', told.conflict_count, sum(this.#chunks, liveConflicts)],
        ['stored bytes', told.stored_bytes, sum(all, ({ stored }) => stored)]
      )
    for (const [name, says, has] of held)
      if (says !== has)
        this.#wrongHeader(`says ${says} ${name} for ${this.#database}, its chunks hold ${has}`)
  }

  /**
   * Reads the chunks from one on, and checks every line. Yields after each chunk that could be read, and at the
   * end. @param from how many chunks were checked before
   */
  async *data(from: number): AsyncGenerator<CheckedChunk> {
    for (const chunk of this.#stored.superseded)
      await this.#superseded.read(this.#reader, chunk).catch((error) => this.#unread(error))
    for (let at = from; at < this.#chunks.length; ) {
      const to = this.#endOfGroup(at)
      yield* this.#group(at, to)
      at = to
      yield { chunks: at, documents: 0, bytes: 0 }
    }
  }

  /** Returns how far a group of chunks reaches whose marks may be held together. */
  #endOfGroup(from: number): number {
    let lines = 0
    for (let to = from; to < this.#chunks.length; to++) {
      lines += this.#chunks[to].docs
      if (lines > MARKED && to > from) return to
    }
    return this.#chunks.length
  }

  async *#group(from: number, to: number): AsyncGenerator<CheckedChunk> {
    const group = this.#chunks.slice(from, to)
    const marks = this.#stored.index && (await this.#marksOf(group))
    const wanted = new Map(group.map((entry, i) => [entry, from + i + 1]))
    const contents = chunkContents(this.#reader, this.#chunks, {
      ahead: AHEAD,
      wanted: (entry) => wanted.has(entry),
      onDamaged: (_entry, error) => this.#unread(error)
    })
    for await (const content of contents) {
      const { entry } = content
      const checked = await this.#checkChunk(content, marks)
      if (marks?.isMisfit(entry)) this.#wrongIndex(entry, 'marks lines of it twice, or none of it')
      yield { chunks: wanted.get(entry) ?? to, ...checked }
    }
    if (group.length === this.#chunks.length && !marks?.hasMisfits) this.#allMarks = marks
  }

  async #checkChunk(content: ChunkContent, marks: ChunkMarks | undefined): Promise<CheckedLines> {
    const { entry, lines } = content
    const known = marks?.of(entry)
    const own = known && this.#wholeMarks(entry, known)
    try {
      if (lines) return await this.#lines.check(entry, lines, own, this.#counts(content))
      const key = this.#reader.largeKey(entry)
      const checked = await this.#reader.readDocument(entry, (pieces) =>
        this.#lines.checkLarge(entry, key, pieces, own)
      )
      return this.#superseded.isLastLarge(content) ? checked : { documents: 0, bytes: 0 }
    } catch (error) {
      this.#unread(error)
      return { documents: 0, bytes: 0 }
    }
  }

  /** Returns marks if the lines that count all have one, and tells where the index lacks some. */
  #wholeMarks(entry: ChunkEntry, marks: LineMarks): LineMarks | undefined {
    let missing = 0
    for (let line = 0; line < entry.docs; line++) if (marks.length(line) === 0) missing++
    if (missing === 0) return marks
    // A damaged chunk of the index has no marks at all.
    if (this.#isIndexed) this.#wrongIndex(entry, `has no marks of ${missing} of its lines`)
    return undefined
  }

  #wrongIndex({ id }: ChunkEntry, reason: string): void {
    this.#onFinding({ part: 'index', id, reason: `is not what its index tells: it ${reason}` })
  }

  async #marksOf(group: readonly ChunkEntry[]): Promise<ChunkMarks> {
    const marks = new ChunkMarks(group)
    for await (const line of this.#indexLines()) marks.add(line)
    return marks
  }

  /** Yields the lines of the index, and tells of chunks of it that are damaged. */
  async *#indexLines() {
    const onDamaged = (_entry: ChunkEntry, error: DamagedBackupError) => this.#unindexed(error)
    for await (const { lines } of readIndex(this.#reader, this.#stored.index ?? [], { onDamaged })) {
      try {
        for await (const line of lines) {
          await sharedTurn()
          yield line
        }
      } catch (error) {
        this.#unindexed(error)
      }
    }
  }

  /** Checks that no document is there twice. Call it when all chunks were checked. */
  async once(): Promise<void> {
    // Findings already name what cannot be read.
    if (!this.#isIndexed || !this.#isRead || !this.#isListed) return
    try {
      await this.#findTwice()
    } catch (error) {
      this.#unread(error)
    }
  }

  async #findTwice(): Promise<void> {
    const documents = sum(this.#chunks, ({ docs }) => docs)
    const partitions = Math.max(1, Math.ceil(documents / PRINTED))
    const twice: { chunk: string; line: number }[] = []
    for (let partition = 0; partition < partitions; partition++) {
      const seen = new FingerprintTable(WORDS, Math.ceil(documents / partitions))
      for await (const { chunk, first, count, counts, print } of this.#prints()) {
        await sharedTurn()
        for (let i = 0; i < count; i++) {
          const own = print(i)
          if ((own.h >>> 0) % partitions !== partition || !counts(i)) continue
          const place = seen.place(own)
          if (!seen.isUsed(place)) seen.setWord(place, WORDS - 1, 1)
          else if (twice.length < NAMED_DOCUMENTS) twice.push({ chunk, line: first + i })
        }
      }
    }
    for (const { chunk, line } of twice) {
      const id = await this.#idAt(chunk, line)
      this.#onFinding({
        part: 'chunk',
        id: chunk,
        reason: `holds in line ${line} a document that another line holds as well`,
        ...(id !== undefined && { documents: [id] })
      })
    }
  }

  /** Yields the fingerprints of all documents, from the index where there is one. */
  #prints(): AsyncGenerator<PrintGroup> {
    if (this.#allMarks) return this.#heldPrints(this.#allMarks)
    return this.#stored.index ? this.#indexedPrints() : this.#readPrints()
  }

  async *#heldPrints(all: ChunkMarks): AsyncGenerator<PrintGroup> {
    for (const entry of this.#chunks) {
      const marks = all.of(entry)
      if (marks) yield printsOf(entry, 0, marks)
    }
  }

  async *#indexedPrints(): AsyncGenerator<PrintGroup> {
    const entries = new Map(this.#chunks.map((entry) => [nameOf(entry), entry]))
    for await (const { chunk, first, marks } of this.#indexLines()) {
      const entry = entries.get(chunk)
      if (entry) yield printsOf(entry, first, marks)
    }
  }

  async *#readPrints(): AsyncGenerator<PrintGroup> {
    for await (const { entry, lines, ordinal } of chunkContents(this.#reader, this.#chunks, {
      ahead: 1
    })) {
      const keys = lines ? keysOf(lines) : [[this.#reader.largeKey(entry)]]
      let first = 0
      for await (const group of keys) {
        const print = (i: number) => fingerprint(group[i])
        const at = ordinal + first
        const counts = (i: number) => this.#superseded.isLast(print(i), at + i)
        yield { chunk: entry.id, first, count: group.length, counts, print }
        first += group.length
      }
    }
  }

  async #idAt(chunk: string, line: number): Promise<string | undefined> {
    const entry = this.#chunks.find(({ id }) => id === chunk)
    if (!entry) return undefined
    if (entry.large !== undefined) return this.#reader.largeKey(entry)
    let at = 0
    for await (const group of lineGroups(await this.#reader.lines(entry))) {
      if (line < at + group.length) return documentId(group[line - at])
      at += group.length
    }
    return undefined
  }

  /**
   * Compares what counted of a backup of layout 2, of which only the lines tell, with what its header says.
   * @param documents as {@link data} has counted them, from the first chunk on
   */
  checkCounted(documents: number): void {
    if (this.#stored.superseded.length === 0 || !this.#isRead || !this.#isListed) return
    const told = this.#header.dbs[apiKey(this.#database)]?.doc_count
    if (told !== documents)
      this.#wrongHeader(`says ${told} documents for ${this.#database}, its chunks hold ${documents}`)
  }

  #counts({ ordinal }: ChunkContent): Counts | undefined {
    const superseded = this.#superseded
    if (superseded.size === 0) return undefined
    return (line, document) => superseded.isLast(fingerprint(idText(document)), ordinal + line)
  }

  #unread(error: unknown): void {
    this.#isRead = false
    this.#tell(error)
  }

  #unindexed(error: unknown): void {
    this.#isIndexed = false
    this.#tell(error, true)
  }

  /** Tells of a damaged part. @throws `error` when it is another */
  #tell(error: unknown, isIndex = false): void {
    if (!(error instanceof DamagedBackupError)) throw error
    this.#onFinding(findingOf(error, isIndex))
  }

  #wrongHeader(reason: string): void {
    this.#onFinding({ part: 'header', id: this.#header._id, reason })
  }
}

/** Returns the fingerprints of lines of a chunk that the index marks. */
function printsOf(entry: ChunkEntry, first: number, marks: LineMarks): PrintGroup {
  const dead = deadLinesOf(entry)
  return {
    chunk: entry.id,
    first,
    count: marks.count,
    counts: (i) => marks.length(i) > 0 && !dead.has(first + i),
    print: (i) => marks.print(i)
  }
}

async function* keysOf(lines: Buffer): AsyncGenerator<string[]> {
  for await (const group of lineGroups(lines)) yield group.map((line) => documentId(line))
}

/** Returns what is wrong with the lines that an entry names: they are of the backup that lists it alone. */
function problemOfSets(entry: ChunkEntry): string | undefined {
  try {
    const dead = deadLinesOf(entry)
    conflictLinesOf(entry)
    if (!entry.dead || (dead.size === entry.dead.docs && entry.dead.raw <= entry.raw)) return undefined
    return `with ${entry.dead.docs} lines that do not count, and names ${dead.size}`
  } catch (error) {
    if (!(error instanceof DamagedBackupError)) throw error
    return 'with lines beyond its last'
  }
}
