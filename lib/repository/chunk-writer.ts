import type { LogicalDatabase } from '../../types/databases.js'
import { BufferPool } from '../bytes/buffer-pool.js'
import type { CouchDatabase } from '../couch/database.js'
import { type CouchError, isTooLarge } from '../couch/errors.js'
import { largeKey } from '../ids/large-key.js'
import { idOf } from '../json/document.js'
import { ChunkAttempt, type ChunkBody, type StoredChunk } from './chunk-attempt.js'
import { ChunkPlaces } from './chunk-places.js'
import type { Codec } from './codec.js'
import { CHUNK_BYTES, type ChunkEntry } from './layout.js'

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
  /** Id of the backup. */
  backup: string
  database: LogicalDatabase
  /** Number of the first chunk. */
  first: number
  /** Called for a document too large to be stored. A line with only its id takes its place. */
  onRefused(line: RefusedLine): void
}

/** Packs lines into chunks and stores several at a time. A chunk that cannot be stored fails the backup. */
export class ChunkWriter {
  protected readonly options: ChunkWriterOptions
  readonly #codec: Codec
  readonly #places: ChunkPlaces
  #buffer: Buffer = Buffer.alloc(0)
  readonly #buffers = new BufferPool(
    { size: CHUNK_BYTES, keep: IN_FLIGHT + 1 },
    { size: LARGE_LINE, keep: 1 }
  )
  /** Memory for stored bytes, which live as long as their requests: garbage would be collected late. */
  readonly #outputs: BufferPool
  #used = 0
  /** Bytes of lines that make a chunk no larger than the largest request. */
  #fill = CHUNK_BYTES
  /** Number of the first line that is not stored yet. */
  #ordinal = 0
  #count = 0
  #designs: number[] = []
  readonly #entries: (ChunkEntry[] | Promise<ChunkEntry[]>)[] = []
  readonly #storing = new Set<Promise<void>>()
  #failure: { error: unknown } | undefined

  constructor(options: ChunkWriterOptions) {
    this.options = options
    this.#codec = options.codec
    this.#outputs = new BufferPool(
      { size: this.#codec.bound(CHUNK_BYTES), keep: IN_FLIGHT },
      { size: this.#codec.bound(LARGE_LINE), keep: 1 }
    )
    this.#places = new ChunkPlaces(options)
  }

  get next(): number {
    return this.#places.next
  }

  /** Adds a line. @returns a promise when too many chunks are being stored, to be waited for */
  add(line: Uint8Array, design = false): Promise<void> | undefined {
    if (this.#used > 0 && this.#used + line.length + 1 > this.#fill) {
      return this.#store().then(() => this.#append(line, design))
    }
    this.#append(line, design)
    return undefined
  }

  #append(line: Uint8Array, design: boolean): void {
    if (this.#used === 0) this.#buffer = this.#buffers.take(Math.max(line.length + 1, CHUNK_BYTES))
    this.#buffer.set(line, this.#used)
    // A line feed inside a document is white space, and would end the line; no CouchDB sends any.
    const written = this.#buffer.subarray(this.#used, this.#used + line.length)
    for (let at = written.indexOf(NEWLINE); at >= 0; at = written.indexOf(NEWLINE, at)) written[at] = SPACE
    this.#used += line.length
    this.#buffer[this.#used++] = NEWLINE
    if (design) this.#designs.push(this.#count)
    this.#count++
  }

  /** Adds a document too large for memory as its own chunk; `open` restarts its bytes for each attempt. */
  async addLarge(
    document: { id: string; design: boolean },
    open: () => AsyncIterable<Uint8Array>
  ): Promise<void> {
    // Lines are numbered in the order of chunks: what came before goes first.
    await this.#store()
    this.#entries.push([await this.#storeLarge(document, open)])
    this.#ordinal++
  }

  /** Stores what is left. Returns the entries of all chunks since the last flush, in order. */
  async flush(): Promise<ChunkEntry[]> {
    await this.#store()
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

  async #store(): Promise<void> {
    this.#check()
    if (this.#used === 0) return
    // A chunk of one long document is stored by itself: it may take several times as much as others.
    const inFlight = this.#used > CHUNK_BYTES ? 1 : IN_FLIGHT
    while (this.#storing.size >= inFlight) await Promise.race(this.#storing)
    this.#check()
    const buffer = this.#buffer
    const stored = this.#storeLines({
      bytes: buffer.subarray(0, this.#used),
      ordinal: this.#ordinal,
      count: this.#count,
      designs: this.#designs
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
  }

  /** Stores lines in one chunk, or in several where one would exceed the largest request. */
  async #storeLines(lines: Lines): Promise<ChunkEntry[]> {
    try {
      const entry = await this.#storeChunk(lines)
      if (entry) return [entry]
    } catch (error) {
      if (!isTooLarge(error)) throw error
      if (lines.count === 1) return this.#storeLines(this.#refuse(lines, error))
    }
    const [first, second] = halves(lines)
    return [...(await this.#storeLines(first)), ...(await this.#storeLines(second))]
  }

  /** Returns a line in place of a document that cannot be stored, so that the others keep their numbers. */
  #refuse({ bytes, ...line }: Lines, error: CouchError): Lines {
    if (bytes[0] !== OPEN_BRACE) throw error
    const id = idOf(bytes)
    const place = Buffer.from(`${JSON.stringify({ _id: id })}\n`)
    if (place.length >= bytes.length) throw error
    this.options.onRefused({ id, ordinal: line.ordinal, error })
    return { ...line, bytes: place }
  }

  /** Stores one chunk. @returns `null` when its lines have to be divided, being larger than a request */
  async #storeChunk({ bytes, count, designs }: Lines): Promise<ChunkEntry | null> {
    const output = this.#outputs.take(this.#codec.bound(bytes.length))
    const encoded = await this.#codec.encode(bytes, output)
    const most = this.options.db.client.size.bytes
    if (count > 1 && encoded.length > most) {
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
    return { ...stored, docs: count, design: designs.length, raw: bytes.length }
  }

  async #storeLarge(
    { id, design }: { id: string; design: boolean },
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
    return { ...stored, docs: 1, design: design ? 1 : 0, raw, large: largeKey(id) }
  }

  /** Stores a chunk. Each attempt has its own document, so that a late one changes no other. */
  async #put(body: ChunkBody): Promise<StoredChunk> {
    const retrier = this.options.db.client.retrier()
    for (;;) {
      const attempt = new ChunkAttempt(this.options.db, this.#codec, await this.#places.take(), body)
      const stored = await attempt.store(retrier)
      if (stored) return stored
    }
  }
}

function halves({ bytes, ordinal, count, designs }: Lines): [Lines, Lines] {
  const half = count >> 1
  let end = 0
  for (let i = 0; i < half; i++) end = bytes.indexOf(NEWLINE, end) + 1
  return [
    { bytes: bytes.subarray(0, end), ordinal, count: half, designs: designs.filter((line) => line < half) },
    {
      bytes: bytes.subarray(end),
      ordinal: ordinal + half,
      count: count - half,
      designs: designs.filter((line) => line >= half).map((line) => line - half)
    }
  ]
}

const LINE_END = Buffer.from('\n')
