import { createHash } from 'node:crypto'
import { createGzip } from 'node:zlib'
import type { LogicalDatabase } from '../../types/databases.js'
import { BufferPool } from '../buffer-pool.js'
import type { CouchDatabase } from '../couch/database.js'
import { CouchError, isConflict } from '../couch/errors.js'
import { DamagedBackupError, verifyChunk } from './chunk-reader.js'
import {
  CHUNK_ATTACHMENT,
  CHUNK_BYTES,
  CHUNK_CONTENT_TYPE,
  type ChunkDocument,
  type ChunkEntry
} from './layout.js'
import { CHUNK_TYPE, chunkId } from './names.js'
import { through, throughInto } from './through.js'

/** Chunks being compressed or stored while the next is filled. */
const IN_FLIGHT = 2
/** Fast levels: the reader of the feed and the database share the machine with this. */
const GZIP_LEVEL = 3
/** Bytes of a piece of compressed output: few pieces, little to spare. */
const GZIP_OUTPUT = 256 * 1024
const NEWLINE = 0x0a

/**
 * Packs lines into chunk documents and stores them, several at a time. Nothing is ever written twice: a chunk whose
 * storing failed for good fails the backup.
 */
export class ChunkWriter {
  readonly #db: CouchDatabase
  readonly #backup: string
  readonly #database: LogicalDatabase
  /** Number of the next chunk. */
  #index = 0
  #buffer: Buffer = Buffer.alloc(0)
  readonly #buffers = new BufferPool(CHUNK_BYTES, IN_FLIGHT + 1)
  /** Compressed chunks live as long as their requests, long enough to become garbage that is collected late. */
  readonly #outputs = new BufferPool(compressedBound(CHUNK_BYTES), IN_FLIGHT)
  #used = 0
  #docs = 0
  #design = 0
  readonly #entries: (ChunkEntry | Promise<ChunkEntry>)[] = []
  readonly #storing = new Set<Promise<void>>()
  #failure: { error: unknown } | undefined

  /** @param first number of the first chunk */
  constructor(db: CouchDatabase, backup: string, database: LogicalDatabase, first = 0) {
    this.#db = db
    this.#backup = backup
    this.#database = database
    this.#index = first
  }

  /** Number of the next chunk. */
  get next(): number {
    return this.#index
  }

  /**
   * Adds a line.
   * @returns a promise when the caller has to wait, because too many chunks are being stored
   */
  add(line: Uint8Array, options: { design?: boolean } = {}): Promise<void> | undefined {
    if (this.#used > 0 && this.#used + line.length + 1 > CHUNK_BYTES) {
      return this.#store().then(() => this.#append(line, options))
    }
    this.#append(line, options)
    return undefined
  }

  #append(line: Uint8Array, { design }: { design?: boolean }): void {
    if (this.#used === 0) this.#buffer = this.#buffers.take(Math.max(line.length + 1, CHUNK_BYTES))
    this.#buffer.set(line, this.#used)
    this.#used += line.length
    this.#buffer[this.#used++] = NEWLINE
    this.#docs++
    if (design) this.#design++
  }

  /**
   * Adds a document that is too large to be held in memory, in a chunk of its own.
   * @param open starts the stream of its bytes, anew for every attempt
   */
  async addLarge(
    document: { id: string; design: boolean },
    open: () => AsyncIterable<Uint8Array>
  ): Promise<void> {
    // Lines are numbered in the order of chunks: what came before goes first.
    await this.#store()
    const entry = await this.#db.client.retry(() => this.#storeStream(document, open))
    this.#entries.push(entry)
  }

  /** Stores what is left, and returns the entries of all chunks since the last flush, in order. */
  async flush(): Promise<ChunkEntry[]> {
    await this.#store()
    await Promise.all(this.#storing)
    this.#check()
    return Promise.all(this.#entries.splice(0))
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
    while (this.#storing.size >= IN_FLIGHT) await Promise.race(this.#storing)
    this.#check()
    const buffer = this.#buffer
    const lines = buffer.subarray(0, this.#used)
    const stored = this.#storeLines(lines, { docs: this.#docs, design: this.#design })
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
    this.#docs = 0
    this.#design = 0
  }

  async #storeLines(lines: Buffer, { docs, design }: { docs: number; design: number }): Promise<ChunkEntry> {
    const index = this.#index++
    const id = chunkId(this.#backup, this.#database, index)
    const output = this.#outputs.take(compressedBound(lines.length))
    const stored = await compress(lines, output)
    const sha256 = createHash('sha256').update(stored).digest('hex')
    const document = {
      ...this.#document(index, docs),
      _attachments: {
        [CHUNK_ATTACHMENT]: { content_type: CHUNK_CONTENT_TYPE, length: stored.length, follows: true }
      }
    }
    const part = {
      name: CHUNK_ATTACHMENT,
      contentType: CHUNK_CONTENT_TYPE,
      length: stored.length,
      async *open() {
        yield stored
      }
    }
    const entry = { id, docs, design, raw: lines.length, stored: stored.length, sha256 }
    try {
      const rev = await this.#db.putWithAttachments(id, Buffer.from(JSON.stringify(document)), [part])
      // Only now: what a failed request was sent from may still be on its way.
      this.#outputs.give(output)
      return { ...entry, rev: rev as string }
    } catch (error) {
      if (!isConflict(error)) throw error
      const rev = await this.#revisionOfSame(entry)
      // Another document has the id: the chunk takes the next.
      return rev === null ? this.#storeLines(lines, { docs, design }) : { ...entry, rev }
    }
  }

  /** A chunk that is there already is ours when a reply was lost; `null`: it is not. */
  async #revisionOfSame(entry: Omit<ChunkEntry, 'rev'>): Promise<string | null> {
    const rev = await this.#db.revision(entry.id)
    try {
      if (rev !== null) {
        await verifyChunk(this.#db, { ...entry, rev })
        return rev
      }
    } catch (error) {
      if (!(error instanceof DamagedBackupError)) throw error
    }
    return null
  }

  async #storeStream(
    { id: large, design }: { id: string; design: boolean },
    open: () => AsyncIterable<Uint8Array>
  ): Promise<ChunkEntry> {
    const hash = createHash('sha256')
    let raw = 0
    let stored = 0
    const { id, rev } = await this.#createLarge()
    const lines = async function* () {
      for await (const piece of open()) {
        raw += piece.length
        yield piece
      }
      raw++
      yield LINE_END
    }
    const body = async function* () {
      for await (const piece of through(lines(), createGzip({ level: GZIP_LEVEL }))) {
        hash.update(piece)
        stored += piece.length
        yield piece
      }
    }
    await this.#db.putAttachmentStream(id, CHUNK_ATTACHMENT, rev, CHUNK_CONTENT_TYPE, body)
    const written = await this.#db.get<ChunkDocument & { _attachments?: Record<string, { length: number }> }>(
      id
    )
    if (written?._attachments?.[CHUNK_ATTACHMENT]?.length !== stored) {
      throw new CouchError(id, {
        error: 'truncated',
        reason: 'the chunk was not stored whole',
        retryable: true
      })
    }
    return {
      id,
      rev: written._rev,
      docs: 1,
      design: design ? 1 : 0,
      raw,
      stored,
      sha256: hash.digest('hex'),
      large
    }
  }

  /** Every attempt has an id of its own: what a failed one left behind is collected as an orphan. */
  async #createLarge(): Promise<{ id: string; rev: string }> {
    for (;;) {
      const index = this.#index++
      const id = chunkId(this.#backup, this.#database, index)
      try {
        return { id, rev: await this.#db.put({ ...this.#document(index, 1), _id: id }) }
      } catch (error) {
        // Another document has the id, or a reply was lost.
        if (!isConflict(error)) throw error
      }
    }
  }

  #document(index: number, documents: number): ChunkDocument {
    return { type: CHUNK_TYPE, backup_id: this.#backup, database: this.#database, index, documents }
  }
}

/** Bytes that gzip makes of so many at most: what cannot be compressed is stored, in blocks with a head. */
function compressedBound(bytes: number): number {
  return bytes + (bytes >> 10) + 1024
}

/** @returns the part of `output` that was filled; it must have room for all (see {@link compressedBound}) */
async function compress(lines: Buffer, output: Buffer): Promise<Buffer> {
  const zip = createGzip({ level: GZIP_LEVEL, chunkSize: GZIP_OUTPUT })
  return output.subarray(0, await throughInto(lines, zip, output))
}

const LINE_END = Buffer.from('\n')
