import { BufferPool } from '../bytes/buffer-pool.js'
import type { CouchDatabase } from '../couch/database.js'
import { type CouchError, isTooLarge } from '../couch/errors.js'
import type { StreamedBody } from '../couch/requests.js'
import type { Fingerprint } from '../ids/fingerprint.js'
import { largeKey } from '../ids/large-key.js'
import { OrdinalSet } from '../ids/ordinal-set.js'
import { documentId } from '../json/document.js'
import { SEAL_BYTES } from '../seal/sealing-key.js'
import { putChunk, type StoredChunk } from './chunk-attempt.js'
import type { ChunkPlaces } from './chunk-places.js'
import { type ChunkSeal, sealLarge } from './chunk-seal.js'
import type { Codec } from './codec.js'
import { type ChunkEntry, isSmall } from './layout.js'
import { LineMarks } from './line-marks.js'
import { encodeLines } from './line-set.js'

/** Chunks that are compressed or stored while the next is filled. */
const IN_FLIGHT = 2
/** Bytes of the longest line whose memory is used again: CouchDB takes documents of 8 MB. */
const LARGE_LINE = 8 * 1024 * 1024 + 64 * 1024
/** Share of the largest request that chunks take where lines compress badly: not all compress alike. */
const FILLED = 0.9
const NEWLINE = 0x0a
const SPACE = 0x20
const OPEN_BRACE = 0x7b

interface Lines {
  bytes: Buffer
  /** The first line's number among all lines. */
  ordinal: number
  count: number
  /** Indexes, among these, of design documents. */
  designs: readonly number[]
  /** Indexes, among these, of documents that had conflicting revisions. */
  conflicts: readonly number[]
  marks: LineMarks
  /** Whether a chunk of more would not be taken. */
  whole: boolean
}

/** Facts about a document beside its line. */
export interface LineFacts {
  print: Fingerprint
  design: boolean
  conflicted: boolean
}

/** A document that the database would not store. */
export interface RefusedLine {
  id: string
  /** Its line's number among all lines. */
  ordinal: number
  error: CouchError
}

export interface ChunkWriterOptions {
  db: CouchDatabase
  codec: Codec
  /** Makes the documents of chunks. */
  places: ChunkPlaces
  /** Seals chunks. Absent where they are not sealed. */
  seal?: ChunkSeal
  /** Bytes of lines in a chunk, unless one line has more. */
  chunkBytes: number
  /** Called when a chunk is stored, with the number of its first line and the marks of lines with facts. */
  onStored?(entry: ChunkEntry, ordinal: number, marks: LineMarks): Promise<void> | undefined
  /** Called for a document too large to be stored. A line with only its id takes its place. */
  onRefused(line: RefusedLine): void
}

/** Packs lines into chunks and stores several at a time. A chunk that cannot be stored is an error. */
export class ChunkWriter {
  readonly #options: ChunkWriterOptions
  readonly #codec: Codec
  #buffer: Buffer = Buffer.alloc(0)
  readonly #buffers: BufferPool
  /** Memory for stored bytes, which live as long as their requests: garbage would be collected late. */
  readonly #outputs: BufferPool
  #used = 0
  /** Bytes of lines that make a chunk no larger than the largest request. */
  #fill: number
  /** Number of the first line that is not stored yet. */
  #ordinal = 0
  #count = 0
  #designs: number[] = []
  #conflicts: number[] = []
  #marks = LineMarks.empty()
  readonly #entries: (ChunkEntry[] | Promise<ChunkEntry[]>)[] = []
  readonly #storing = new Set<Promise<void>>()
  #failure: { error: unknown } | undefined

  constructor(options: ChunkWriterOptions) {
    const { codec, chunkBytes } = options
    this.#options = options
    this.#codec = codec
    this.#fill = chunkBytes
    this.#buffers = new BufferPool({ size: chunkBytes, keep: IN_FLIGHT + 1 }, { size: LARGE_LINE, keep: 1 })
    this.#outputs = new BufferPool(
      { size: codec.bound(chunkBytes), keep: IN_FLIGHT },
      { size: codec.bound(LARGE_LINE), keep: 1 }
    )
  }

  /** Adds a line. @returns a promise when too many chunks are being stored, to be waited for */
  add(line: Uint8Array, facts?: LineFacts): Promise<void> | undefined {
    if (this.#used > 0 && this.#used + line.length + 1 > this.#fill) {
      return this.#store(true).then(() => this.#append(line, facts))
    }
    this.#append(line, facts)
    return undefined
  }

  #append(line: Uint8Array, facts: LineFacts | undefined): void {
    const { chunkBytes } = this.#options
    if (this.#used === 0) this.#buffer = this.#buffers.take(Math.max(line.length + 1, chunkBytes))
    this.#buffer.set(line, this.#used)
    // A line feed inside a document is white space, and would end the line; no CouchDB sends any.
    const written = this.#buffer.subarray(this.#used, this.#used + line.length)
    for (let at = written.indexOf(NEWLINE); at >= 0; at = written.indexOf(NEWLINE, at)) written[at] = SPACE
    this.#used += line.length
    this.#buffer[this.#used++] = NEWLINE
    if (facts) {
      this.#marks.add(facts.print, line.length + 1)
      if (facts.design) this.#designs.push(this.#count)
      if (facts.conflicted) this.#conflicts.push(this.#count)
    }
    this.#count++
  }

  /** Adds a document too large for memory as its own chunk; `open` restarts its bytes for each attempt. */
  async addLarge(id: string, facts: LineFacts, open: () => AsyncIterable<Uint8Array>): Promise<void> {
    // Lines are numbered in the order of chunks: what came before goes first.
    await this.#store(false)
    const entry = await this.#storeLarge(id, facts, open)
    const marks = LineMarks.empty()
    marks.add(facts.print, LineMarks.LARGE)
    await this.#options.onStored?.(entry, this.#ordinal, marks)
    this.#entries.push([entry])
    this.#ordinal++
  }

  /** Stores what is left. Returns the entries of all chunks since the last flush, in order. */
  async flush(): Promise<ChunkEntry[]> {
    await this.#store(false)
    await Promise.all(this.#storing)
    this.#check()
    return (await Promise.all(this.#entries.splice(0))).flat()
  }

  /** Waits until nothing is in flight, whatever became of it. */
  async settle(): Promise<void> {
    await Promise.all(this.#storing)
  }

  #check(): void {
    if (this.#failure) throw this.#failure.error
  }

  /** @param whole whether there is more to store, which had no room */
  async #store(whole: boolean): Promise<void> {
    this.#check()
    if (this.#used === 0) return
    // A chunk of one long document is stored by itself: it may take several times as much as others.
    const inFlight = this.#used > this.#options.chunkBytes ? 1 : IN_FLIGHT
    while (this.#storing.size >= inFlight) await Promise.race(this.#storing)
    this.#check()
    const buffer = this.#buffer
    const stored = this.#storeLines({
      bytes: buffer.subarray(0, this.#used),
      ordinal: this.#ordinal,
      count: this.#count,
      designs: this.#designs,
      conflicts: this.#conflicts,
      marks: this.#marks,
      whole
    })
    this.#entries.push(stored)
    const settled = stored
      .then(() => this.#buffers.give(buffer))
      .catch((error: unknown) => {
        this.#failure ??= { error }
      })
      .finally(() => this.#storing.delete(settled))
    this.#storing.add(settled)
    this.#buffer = Buffer.alloc(0)
    this.#used = 0
    this.#ordinal += this.#count
    this.#count = 0
    this.#designs = []
    this.#conflicts = []
    this.#marks = LineMarks.empty()
  }

  /** Stores lines in one chunk, or in several where one would exceed the largest request. */
  async #storeLines(lines: Lines): Promise<ChunkEntry[]> {
    let entry: ChunkEntry | null = null
    try {
      entry = await this.#storeChunk(lines)
    } catch (error) {
      if (!isTooLarge(error)) throw error
      if (lines.count === 1) return this.#storeLines(this.#refuse(lines, error))
    }
    if (entry) {
      await this.#options.onStored?.(entry, lines.ordinal, lines.marks)
      return [entry]
    }
    const [first, second] = halves(lines)
    return [...(await this.#storeLines(first)), ...(await this.#storeLines(second))]
  }

  /** Returns a line in place of a document that cannot be stored, so that the others keep their numbers. */
  #refuse({ bytes, ...line }: Lines, error: CouchError): Lines {
    if (bytes[0] !== OPEN_BRACE) throw error
    const id = documentId(bytes)
    const place = Buffer.from(`${JSON.stringify({ _id: id })}\n`)
    if (place.length >= bytes.length) throw error
    this.#options.onRefused({ id, ordinal: line.ordinal, error })
    return { ...line, bytes: place, marks: line.marks.withLength(place.length) }
  }

  /** Stores one chunk. @returns `null` when its lines have to be divided, being larger than a request */
  async #storeChunk({ bytes, count, designs, conflicts, whole }: Lines): Promise<ChunkEntry | null> {
    const output = this.#outputs.take(this.#codec.bound(bytes.length))
    const encoded = await this.#codec.encode(bytes, output)
    const most = this.#options.db.client.size.bytes
    const length = encoded.length + (this.#options.seal ? SEAL_BYTES : 0)
    if (count > 1 && length > most) {
      this.#outputs.give(output)
      this.#fill = Math.floor((bytes.length * most * FILLED) / encoded.length)
      return null
    }
    const open = async function* () {
      yield encoded
    }
    const stored = await this.#put({ open, length: encoded.length })
    // Only now: a failed request may still be sending from this memory.
    this.#outputs.give(output)
    return {
      ...stored,
      docs: count,
      design: designs.length,
      raw: bytes.length,
      ...(whole && isSmall(bytes.length, this.#options.chunkBytes) && { whole }),
      ...(conflicts.length > 0 && { conflicts: encodeLines(OrdinalSet.of(conflicts), count) })
    }
  }

  async #storeLarge(
    id: string,
    { design, conflicted }: LineFacts,
    open: () => AsyncIterable<Uint8Array>
  ): Promise<ChunkEntry> {
    let raw = 0
    const lines = async function* () {
      raw = 0
      for await (const piece of open()) {
        raw += piece.length
        yield piece
      }
      raw++
      yield LINE_END
    }
    const stored = await this.#put({ open: () => this.#codec.encodeStream(lines()), length: undefined })
    const conflicts = conflicted && { conflicts: encodeLines(OrdinalSet.of([0]), 1) }
    const { seal } = this.#options
    const key = largeKey(id)
    const large = seal ? sealLarge(key, seal.key, stored, seal.database) : key
    return { ...stored, docs: 1, design: design ? 1 : 0, raw, large, ...conflicts }
  }

  /** Stores a chunk. Each attempt has its own document, so that a late one changes no other. */
  #put(body: StreamedBody): Promise<StoredChunk> {
    const { db, places, seal } = this.#options
    return putChunk(body, { db, attachment: this.#codec.attachment, places, seal })
  }
}

function halves({ bytes, ordinal, count, designs, conflicts, marks }: Lines): [Lines, Lines] {
  const half = count >> 1
  let end = 0
  for (let i = 0; i < half; i++) end = bytes.indexOf(NEWLINE, end) + 1
  const before = (lines: readonly number[]) => lines.filter((line) => line < half)
  const after = (lines: readonly number[]) => lines.filter((line) => line >= half).map((line) => line - half)
  return [
    {
      bytes: bytes.subarray(0, end),
      ordinal,
      count: half,
      designs: before(designs),
      conflicts: before(conflicts),
      marks: marks.slice(0, half),
      whole: true
    },
    {
      bytes: bytes.subarray(end),
      ordinal: ordinal + half,
      count: count - half,
      designs: after(designs),
      conflicts: after(conflicts),
      marks: marks.slice(half, count),
      whole: true
    }
  ]
}

const LINE_END = Buffer.from('\n')
