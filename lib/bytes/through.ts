import { type Duplex, pipeline, Readable } from 'node:stream'

/** Pipes bytes through a transform. Stopping early, or its failure, destroys the source. */
export function through(bytes: AsyncIterable<Uint8Array>, transform: Duplex): AsyncIterable<Buffer> {
  // The transform fails with its source, and throws to its reader.
  pipeline(Readable.from(bytes, { objectMode: false }), transform, () => undefined)
  return transform
}
