import { type Duplex, pipeline, Readable } from 'node:stream'

/** What a transform makes of some bytes. Whoever stops reading it early, or sees it fail, ends their source as well. */
export function through(bytes: AsyncIterable<Uint8Array>, transform: Duplex): AsyncIterable<Buffer> {
  // A failure of the source is one of the transform then, and thrown to its reader.
  pipeline(Readable.from(bytes, { objectMode: false }), transform, () => undefined)
  return transform
}
