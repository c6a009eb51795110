import { IncomingMessage } from 'node:http'
import { Http2ServerRequest } from 'node:http2'
import { Readable } from 'node:stream'
import { BodyAlreadyReadError, TooLargeError, UploadTimeoutError } from '../errors.js'
import { LEAST_BYTES, SlowBytes } from '../waits/slow-bytes.js'
import { within } from '../waits/within.js'
import { joinPiecesOfRequest } from './small-pieces.js'

/** Bytes per second, over the idle time-out, below which a sender counts as silent, unless the time-out is short. */
const LEAST_RATE = 4096

export interface Bounds {
  /** Milliseconds of silence. */
  idle: number
  /** Called with the bytes so far; throws when they are too many. */
  onSize: (bytes: number) => void
}

export const bodyTooLarge = (limit: number) => new TooLargeError(`the body is larger than ${limit} bytes`)

/**
 * Streams a body in bounds. A body that is not read to its end stays open: its sender may wait for a reply.
 * @returns a stream that fails with BodyAlreadyReadError, TooLargeError or UploadTimeoutError
 */
export function boundedBody(body: Readable, { limit, idle }: { limit: number; idle: number }): Readable {
  if (body instanceof IncomingMessage || body instanceof Http2ServerRequest) joinPiecesOfRequest(body)
  const onSize = (bytes: number) => {
    if (bytes > limit) throw bodyTooLarge(limit)
  }
  return Readable.from(bounded(bytesOf(body), { idle, onSize }), { objectMode: false })
}

/** Reads a body, and leaves it open. Some streams give text: those with an encoding, and `Readable.from`. */
export async function* bytesOf(body: Readable): AsyncGenerator<Buffer> {
  if (body.readableEnded || (body.destroyed && !body.errored)) throw new BodyAlreadyReadError()
  for await (const piece of body.iterator({ destroyOnReturn: false }))
    yield typeof piece === 'string' ? Buffer.from(piece) : piece
}

/** Bounds the size of pieces, and the silence of their sender. */
export async function* bounded(
  pieces: AsyncIterator<Buffer>,
  { idle, onSize }: Bounds
): AsyncGenerator<Buffer> {
  let size = 0
  const slow = new SlowBytes(Math.max(LEAST_BYTES, (LEAST_RATE * idle) / 1000))
  try {
    for (;;) {
      const from = performance.now()
      const next = await within(
        idle - slow.waited,
        () => new UploadTimeoutError(),
        () => pieces.next()
      )
      if (next.done) return
      size += next.value.length
      slow.add(next.value.length, performance.now() - from)
      onSize(size)
      yield next.value
    }
  } finally {
    // An iterator that listens keeps the body from being read. Not awaited: a silent one does not return.
    pieces.return?.().catch(() => undefined)
  }
}
