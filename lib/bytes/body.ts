import { IncomingMessage } from 'node:http'
import { Http2ServerRequest } from 'node:http2'
import { Readable } from 'node:stream'
import { BodyAlreadyReadError, TooLargeError, UploadTimeoutError } from '../errors.js'
import { within } from '../waits/within.js'
import { joinPiecesOfRequest } from './small-pieces.js'

/** Bytes per second of a body, in the idle time-out, below which its sender counts as silent. */
const LEAST_RATE = 4096
/** A request for a small body may have a short time-out. */
const LEAST_BYTES = 1024

export interface Bounds {
  /** Milliseconds of silence. */
  idle: number
  /** Told how many bytes there were so far; throws when that is too much. */
  onSize: (bytes: number) => void
}

export const bodyTooLarge = (limit: number) => new TooLargeError(`the body is larger than ${limit} bytes`)

/**
 * Reads a body in bounds, as a stream of bytes. The body is left open when it is not read to its end: its sender may
 * still wait for a reply.
 * @returns a stream that fails with BodyAlreadyReadError, TooLargeError or UploadTimeoutError
 */
export function boundedBody(body: Readable, { limit, idle }: { limit: number; idle: number }): Readable {
  if (body instanceof IncomingMessage || body instanceof Http2ServerRequest) joinPiecesOfRequest(body)
  const onSize = (bytes: number) => {
    if (bytes > limit) throw bodyTooLarge(limit)
  }
  return Readable.from(bounded(bytesOf(body), { idle, onSize }), { objectMode: false })
}

/** Reads a body, and leaves it open. Streams with an encoding, and those of `Readable.from`, give text. */
export async function* bytesOf(body: Readable): AsyncGenerator<Buffer> {
  if (body.readableEnded || (body.destroyed && !body.errored)) throw new BodyAlreadyReadError()
  for await (const piece of body.iterator({ destroyOnReturn: false }))
    yield typeof piece === 'string' ? Buffer.from(piece) : piece
}

/** Bounds pieces in size, and how long their sender may be silent or send next to nothing. */
export async function* bounded(
  pieces: AsyncIterator<Buffer>,
  { idle, onSize }: Bounds
): AsyncGenerator<Buffer> {
  let size = 0
  let waited = 0
  let progress = 0
  const drip = Math.max(LEAST_BYTES, (LEAST_RATE * idle) / 1000)
  try {
    for (;;) {
      const from = performance.now()
      const next = await within(
        idle - waited,
        () => new UploadTimeoutError(),
        () => pieces.next()
      )
      if (next.done) return
      waited += performance.now() - from
      size += next.value.length
      progress += next.value.length
      onSize(size)
      if (progress >= drip) {
        waited = 0
        progress = 0
      }
      yield next.value
    }
  } finally {
    // Nothing more would come of the body while an iterator listens to it. Not awaited: a silent one does not return.
    pieces.return?.().catch(() => undefined)
  }
}
