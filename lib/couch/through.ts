import { type Duplex, pipeline, Readable } from 'node:stream'

/** What a transform makes of some bytes. Whoever stops reading it early, or sees it fail, ends their source as well. */
export function through(bytes: AsyncIterable<Uint8Array>, transform: Duplex): AsyncIterable<Buffer> {
  // A failure of the source is one of the transform then, and thrown to its reader.
  pipeline(Readable.from(bytes, { objectMode: false }), transform, () => undefined)
  return transform
}

/**
 * Puts what a transform makes of some bytes into memory that is given.
 * @returns how many bytes that is
 * @throws RangeError when `output` has no room for all, and what the transform throws
 */
export async function throughInto(bytes: Buffer, transform: Duplex, output: Buffer): Promise<number> {
  transform.end(bytes)
  let length = 0
  for await (const piece of transform as AsyncIterable<Buffer>) {
    if (length + piece.length > output.length) throw new RangeError('the output is longer than it can be')
    length += piece.copy(output, length)
  }
  return length
}
