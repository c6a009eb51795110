import { createHash, type Hash } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { createGunzip, createGzip, type ZlibOptions } from 'node:zlib'
import { through } from '../bytes/through.js'

/** Encodes the lines of a chunk as the bytes that are stored, and decodes them. */
export interface Codec {
  /** How the attachment that holds the bytes is named, and its content type. */
  readonly attachment: { name: string; contentType: string }
  /** Returns the most bytes that so many bytes of lines are stored as. */
  bound(bytes: number): number
  /** Puts the stored form of `lines` into `output`, of {@link bound} bytes. Returns the part it fills. */
  encode(lines: Buffer, output: Buffer): Promise<Buffer>
  encodeStream(lines: AsyncIterable<Uint8Array>): AsyncIterable<Buffer>
  /** Puts the lines into `room` and returns their bytes; `null` if `stored` is malformed, or holds more. */
  decode(stored: Buffer, room: Buffer): Promise<number | null>
  /** Stopping early destroys the source. @throws NotDecodableError where the bytes are malformed */
  decodeStream(stored: AsyncIterable<Uint8Array>): AsyncIterable<Buffer>
}

/** Thrown for bytes that are no stored form of lines. */
export class NotDecodableError extends Error {
  override readonly name = 'NotDecodableError'
}

/** A fast level: the reader of the feed and the database share the machine with this. */
const LEVEL = 3

const isZlibError = (error: unknown) => /^Z_/.test(String((error as NodeJS.ErrnoException).code))

export const gzip: Codec = {
  attachment: { name: 'documents.ndjson.gz', contentType: 'application/gzip' },
  // Incompressible bytes are stored in blocks with a head.
  bound: (bytes) => bytes + (bytes >> 10) + 1024,
  async encode(lines, output) {
    const zip = (options: ZlibOptions) => createGzip({ level: LEVEL, ...options })
    return output.subarray(0, await throughInto(lines, zip, output))
  },
  encodeStream: (lines) => through(lines, createGzip({ level: LEVEL })),
  async decode(stored, room) {
    try {
      return await throughInto(stored, createGunzip, room)
    } catch {
      return null
    }
  },
  async *decodeStream(stored) {
    try {
      yield* through(stored, createGunzip())
    } catch (error) {
      throw isZlibError(error) ? new NotDecodableError('not gzip', { cause: error }) : error
    }
  }
}

/** Makes the hash by which headers and manifests identify stored bytes, in hex. */
export const newHash = (): Hash => createHash('sha256')

export const sha256Of = (bytes: Uint8Array | string): string => newHash().update(bytes).digest('hex')

/** The buffer into which a zlib stream of Node.js writes its output, and the position in it; no option sets it. */
interface ZlibOutput {
  _outBuffer: Buffer
  _outOffset: number
  _chunkSize: number
}

/** The least that a zlib stream takes as `chunkSize`: it allocates as much when it is made. */
const LEAST_OUTPUT = 64

/**
 * Puts the output of the stream that `make` makes into `output`, and returns its bytes. zlib's own pieces of
 * output pile up to 32 MiB in V8; without them, restores of 200 MB by id peaked at 37 MiB above idle, not 70,
 * dry runs at 29, not 50 (one run each, CouchDB 3.5.0, Node.js 20). @throws RangeError when it is full
 */
export async function throughInto(
  bytes: Buffer,
  make: (options: { chunkSize: number }) => Duplex,
  output: Buffer
): Promise<number> {
  const transform = make({ chunkSize: LEAST_OUTPUT })
  const zlib: ZlibOutput = { _outBuffer: output, _outOffset: 0, _chunkSize: output.length }
  Object.assign(transform, zlib)
  transform.end(bytes)
  let length = 0
  for await (const piece of transform as AsyncIterable<Buffer>) {
    if (length + piece.length > output.length) throw new RangeError('the output is longer than it can be')
    const isThere = piece.buffer === output.buffer && piece.byteOffset === output.byteOffset + length
    if (!isThere) piece.copy(output, length)
    length += piece.length
  }
  return length
}
