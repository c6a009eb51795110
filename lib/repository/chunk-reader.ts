import { createHash } from 'node:crypto'
import { createGunzip } from 'node:zlib'
import { BufferPool } from '../bytes/buffer-pool.js'
import { through, throughInto } from '../bytes/zlib.js'
import type { CouchDatabase } from '../couch/database.js'
import { CouchError, isNotFound } from '../couch/errors.js'
import { CHUNK_ATTACHMENT, CHUNK_BYTES, type ChunkEntry, type StoredHeader } from './layout.js'

/** Stored bytes of the chunks being read, until they are decompressed: of the current one and the next. */
const buffers = new BufferPool({ size: CHUNK_BYTES, keep: 2 })
const NEWLINE = 0x0a

/** A part of a backup is missing or is not what was stored. */
export class DamagedBackupError extends Error {
  override readonly name = 'DamagedBackupError'
  readonly chunk: string

  constructor(chunk: string, reason: string) {
    super(`backup chunk "${chunk}" ${reason}`)
    this.chunk = chunk
  }
}

/**
 * The lines of a chunk, checked against its entry.
 * @param memory where to put them, if there is room
 * @throws DamagedBackupError
 */
export async function readChunk(db: CouchDatabase, entry: ChunkEntry, memory?: Buffer): Promise<Buffer> {
  // With room for one byte more: zlib asks for further memory when its output is full.
  const fits = memory !== undefined && entry.raw < memory.length
  const room = fits ? memory : Buffer.allocUnsafeSlow(entry.raw + 1)
  await againIfDamaged(() => readChunkOnce(db, entry, room))
  return room.subarray(0, entry.raw)
}

async function readChunkOnce(db: CouchDatabase, entry: ChunkEntry, room: Buffer): Promise<void> {
  const buffer = buffers.take(entry.stored)
  try {
    const stored = await fetchChunk(db, entry, buffer)
    if (stored === null || createHash('sha256').update(stored).digest('hex') !== entry.sha256) {
      throw new DamagedBackupError(entry.id, 'is damaged: its digest differs')
    }
    if ((await decompressed(stored, room)) !== entry.raw) {
      throw new DamagedBackupError(entry.id, 'is damaged: it does not decompress to what was stored')
    }
  } finally {
    buffers.give(buffer)
  }
}

/** @returns how many bytes `stored` decompresses to; -1 when it does not, or when they are more than `room` has */
async function decompressed(stored: Buffer, room: Buffer): Promise<number> {
  try {
    return await throughInto(stored, createGunzip, room)
  } catch {
    return -1
  }
}

/** Reads a chunk's attachment into `buffer`; `null` when it has another length than was stored. */
async function fetchChunk(db: CouchDatabase, entry: ChunkEntry, buffer: Buffer): Promise<Buffer | null> {
  let length = 0
  for await (const piece of storedBytes(db, entry)) {
    if (length + piece.length > entry.stored) return null
    length += piece.copy(buffer, length)
  }
  return length === entry.stored ? buffer.subarray(0, length) : null
}

/**
 * Checks that a chunk is there and is what was stored, without keeping it.
 * @throws DamagedBackupError
 */
export async function verifyChunk(db: CouchDatabase, entry: ChunkEntry): Promise<void> {
  await againIfDamaged(async () => {
    const hash = createHash('sha256')
    for await (const piece of storedBytes(db, entry)) hash.update(piece)
    if (hash.digest('hex') !== entry.sha256) {
      throw new DamagedBackupError(entry.id, 'is damaged: its digest differs')
    }
  })
}

/** Reads once more what differs: a gateway may have answered in the database's place, or the database told of a failure in it. */
export async function againIfDamaged<T>(read: () => Promise<T>): Promise<T> {
  try {
    return await read()
  } catch (error) {
    if (!(error instanceof DamagedBackupError)) throw error
    return read()
  }
}

/**
 * The one document of a large chunk, as a stream without its line end. Checked as it ends: what was read is not to
 * be trusted before.
 * @throws DamagedBackupError
 */
export async function* readLargeChunk(db: CouchDatabase, entry: ChunkEntry): AsyncGenerator<Buffer> {
  const hash = createHash('sha256')
  const hashed = async function* () {
    for await (const piece of storedBytes(db, entry)) {
      hash.update(piece)
      yield piece
    }
  }
  let raw = 0
  try {
    for await (const piece of through(hashed(), createGunzip())) {
      raw += piece.length
      if (raw > entry.raw)
        throw new DamagedBackupError(entry.id, 'is damaged: it is longer than what was stored')
      const document = raw === entry.raw ? piece.subarray(0, -1) : piece
      if (document.length > 0) yield document
    }
  } catch (error) {
    if (!isZlibError(error)) throw error
    throw new DamagedBackupError(entry.id, 'is damaged: it does not decompress to what was stored')
  }
  if (raw !== entry.raw || hash.digest('hex') !== entry.sha256) {
    throw new DamagedBackupError(entry.id, 'is damaged: its digest differs')
  }
}

const isZlibError = (error: unknown) => /^Z_/.test(String((error as NodeJS.ErrnoException).code))

async function* storedBytes(db: CouchDatabase, entry: ChunkEntry): AsyncGenerator<Buffer> {
  const { body } = await db.client.retry(async () => {
    try {
      return await db.attachment(entry.id, CHUNK_ATTACHMENT)
    } catch (error) {
      throw isNotFound(error) ? await notFound(db, entry) : error
    }
  })
  yield* body
}

/**
 * Asks a majority of replicas for a chunk that was not found: a replica may not have it yet, and a 404 may be a
 * gateway's.
 * @returns a retryable error when they have it
 * @throws DamagedBackupError when they do not
 */
async function notFound(db: CouchDatabase, { id }: ChunkEntry): Promise<CouchError> {
  const document = await db.get<Pick<StoredHeader, '_attachments'>>(id)
  if (!document?._attachments?.[CHUNK_ATTACHMENT]) throw new DamagedBackupError(id, 'is missing')
  return new CouchError(id, {
    error: 'bad_answer',
    reason: 'a chunk that is there was not found',
    retryable: true
  })
}

/** The lines of a chunk, without their ends. */
export function* linesOf(lines: Buffer): Generator<Buffer> {
  let start = 0
  while (start < lines.length) {
    const end = lines.indexOf(NEWLINE, start)
    yield lines.subarray(start, end)
    start = end + 1
  }
}
