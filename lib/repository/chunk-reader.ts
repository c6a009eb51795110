import { BufferPool } from '../bytes/buffer-pool.js'
import type { CouchDatabase } from '../couch/database.js'
import { CouchError, isNotFound } from '../couch/errors.js'
import { DamagedBackupError } from '../errors.js'
import { NotSealedError } from '../seal/sealing-key.js'
import { attachmentOf, type ChunkSeal, type ChunkSealing, contextOf, openLarge } from './chunk-seal.js'
import { type Codec, NotDecodableError, newHash, sha256Of } from './codec.js'
import { CHUNK_BYTES, type ChunkEntry, type StoredHeader } from './layout.js'

/** Memory for the stored bytes of the current chunk and the next, until they are decoded. */
const buffers = new BufferPool({ size: CHUNK_BYTES, keep: 2 })

/** Reads chunks, and checks them against their entries. Methods throw DamagedBackupError and CouchError. */
export class ChunkReader {
  readonly db: CouchDatabase
  readonly #codec: Codec
  readonly #sealing: ChunkSealing | undefined

  /** @param sealing of a sealed backup: all its chunks have to be sealed with one of the keys */
  constructor(db: CouchDatabase, codec: Codec, sealing?: ChunkSealing) {
    this.db = db
    this.#codec = codec
    this.#sealing = sealing
  }

  /** Returns the key (see `largeKey`) of the document of a large chunk. @throws DamagedBackupError */
  largeKey(entry: ChunkEntry): string {
    const { large = '' } = entry
    const seal = this.#sealOf(entry)
    return seal ? unsealed(entry, () => openLarge(seal.key, entry, seal.database)) : large
  }

  /** Returns the lines of a chunk, in `memory` if they fit. */
  async lines(entry: ChunkEntry, memory?: Buffer): Promise<Buffer> {
    // Room for one byte more: zlib asks for further memory when its output is full.
    const fits = memory !== undefined && entry.raw < memory.length
    const room = fits ? memory : Buffer.allocUnsafeSlow(entry.raw + 1)
    await againIfDamaged(() => this.#readInto(room, entry))
    return room.subarray(0, entry.raw)
  }

  async #readInto(room: Buffer, entry: ChunkEntry): Promise<void> {
    const buffer = buffers.take(entry.stored)
    try {
      const stored = await this.#fetch(entry, buffer)
      if (stored === null || sha256Of(stored) !== entry.sha256) throw otherDigest(entry)
      const seal = this.#sealOf(entry)
      const encoded = seal
        ? unsealed(entry, () => seal.key.open(stored, contextOf(entry.id, seal.database)))
        : stored
      if ((await this.#codec.decode(encoded, room)) !== entry.raw) throw notDecodable(entry)
    } finally {
      buffers.give(buffer)
    }
  }

  /** Reads a chunk's attachment into `buffer`; `null` when it has another length than was stored. */
  async #fetch(entry: ChunkEntry, buffer: Buffer): Promise<Buffer | null> {
    let length = 0
    for await (const piece of this.#sent(entry)) {
      if (length + piece.length > entry.stored) return null
      length += piece.copy(buffer, length)
    }
    return length === entry.stored ? buffer.subarray(0, length) : null
  }

  /** Checks that a chunk is there and is what was stored, without keeping it. */
  async verify(entry: ChunkEntry): Promise<void> {
    await againIfDamaged(async () => {
      for await (const _piece of this.stored(entry));
    })
  }

  /** Streams a large chunk's document without its line end. Its digest is checked only at the end. */
  async *document(entry: ChunkEntry): AsyncGenerator<Buffer> {
    let raw = 0
    try {
      for await (const piece of this.#codec.decodeStream(this.encoded(entry))) {
        raw += piece.length
        if (raw > entry.raw)
          throw new DamagedBackupError('chunk', entry.id, 'is damaged: it is longer than what was stored')
        const document = raw === entry.raw ? piece.subarray(0, -1) : piece
        if (document.length > 0) yield document
      }
    } catch (error) {
      if (error instanceof NotSealedError) throw brokenSeal(entry)
      throw error instanceof NotDecodableError ? notDecodable(entry) : error
    }
    if (raw !== entry.raw) throw otherDigest(entry)
  }

  /** Has `read` read all of a large chunk's document: again after faults, once more if it is damaged. */
  readDocument<T>(entry: ChunkEntry, read: (pieces: AsyncIterable<Buffer>) => Promise<T>): Promise<T> {
    return againIfDamaged(() => this.db.client.retry(() => read(this.document(entry))))
  }

  /** Streams what the codec made of a chunk's lines. Its digest, and its seal, are checked only at the end. */
  encoded(entry: ChunkEntry): AsyncIterable<Buffer> {
    const seal = this.#sealOf(entry)
    const stored = this.stored(entry)
    return seal ? seal.key.openStream(stored, contextOf(entry.id, seal.database)) : stored
  }

  /** @throws DamagedBackupError for a chunk that is sealed in another way than its backup */
  #sealOf({ id, sealed }: ChunkEntry): ChunkSeal | undefined {
    const sealing = this.#sealing?.keys.size ? this.#sealing : undefined
    if (sealed === undefined && !sealing) return undefined
    const key = sealed === undefined ? undefined : sealing?.keys.get(sealed)
    if (!sealing || !key) throw new DamagedBackupError('chunk', id, 'is not sealed as its backup is')
    return { key, database: sealing.database }
  }

  #attachmentOf(entry: ChunkEntry): string {
    return attachmentOf(this.#codec.attachment, entry).name
  }

  /** Returns a chunk's bytes as they are stored, in new memory. Needs no keys. */
  storedBytes(entry: ChunkEntry): Promise<Buffer> {
    return againIfDamaged(async () => {
      const stored = await this.#fetch(entry, Buffer.allocUnsafeSlow(entry.stored))
      if (stored === null || sha256Of(stored) !== entry.sha256) throw otherDigest(entry)
      return stored
    })
  }

  /** Streams a chunk's bytes as they are stored. Their digest is checked only at the end. Needs no keys. */
  async *stored(entry: ChunkEntry): AsyncGenerator<Buffer> {
    const hash = newHash()
    for await (const piece of this.#sent(entry)) {
      hash.update(piece)
      yield piece
    }
    if (hash.digest('hex') !== entry.sha256) throw otherDigest(entry)
  }

  /** Streams what the database sends for a chunk. */
  async *#sent(entry: ChunkEntry): AsyncGenerator<Buffer> {
    const { body } = await this.db.client.retry(async () => {
      try {
        return await this.db.attachment(entry.id, this.#attachmentOf(entry))
      } catch (error) {
        throw isNotFound(error) ? await this.#notFound(entry) : error
      }
    })
    yield* body
  }

  /** Asks a majority for a missing chunk: one may lag. @returns a retryable error when they have it */
  async #notFound(entry: ChunkEntry): Promise<CouchError> {
    const { id } = entry
    const document = await this.db.get<Pick<StoredHeader, '_attachments'>>(id)
    if (!document?._attachments?.[this.#attachmentOf(entry)])
      throw new DamagedBackupError('chunk', id, 'is missing')
    return new CouchError(id, {
      error: 'bad_answer',
      reason: 'a chunk that is there was not found',
      retryable: true
    })
  }
}

/** Opens something of a chunk. @throws DamagedBackupError */
function unsealed<T>(entry: ChunkEntry, open: () => T): T {
  try {
    return open()
  } catch (error) {
    throw error instanceof NotSealedError ? brokenSeal(entry) : error
  }
}

const brokenSeal = ({ id }: ChunkEntry) =>
  new DamagedBackupError('chunk', id, 'is damaged: its seal is broken')
const otherDigest = ({ id }: ChunkEntry) =>
  new DamagedBackupError('chunk', id, 'is damaged: its digest differs')
const notDecodable = ({ id }: ChunkEntry) =>
  new DamagedBackupError('chunk', id, 'is damaged: it does not decompress to what was stored')

/** Reads damaged bytes once more: a gateway may have answered, or CouchDB sent an error inside the body. */
async function againIfDamaged<T>(read: () => Promise<T>): Promise<T> {
  try {
    return await read()
  } catch (error) {
    if (!(error instanceof DamagedBackupError)) throw error
    return read()
  }
}
