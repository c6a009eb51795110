import type { Http2ServerRequest } from 'node:http2'
import type { Readable } from 'node:stream'
import { within } from '../waits/within.js'

/** Bytes, and milliseconds, of a refused body that are read for its sender's sake. */
const DRAIN_BYTES = 64 * 1024 * 1024
const DRAIN_MS = 3000

/** Drops the rest of an answer, and cuts its connection; undici's body then emits an error. */
export function discard(body: Readable): void {
  body.on('error', () => undefined).destroy()
}

/** Reads on for a moment: a client that still sends would not see the reply. */
export async function drain(body: Readable): Promise<void> {
  if (body.readableEnded || body.destroyed) return
  let left = DRAIN_BYTES
  const ended = new Promise<void>((resolve) => {
    body.once('close', resolve).once('end', resolve).once('error', resolve)
    body.on('data', (piece: Buffer) => {
      left -= piece.length
      if (left < 0) resolve()
    })
  })
  await within(
    DRAIN_MS,
    () => new Error('the body does not end'),
    () => ended
  ).catch(() => undefined)
  body.pause()
}

/** Reads a body on for a moment, so that its sender sees the reply sent by others, then destroys it. */
export function abandon(body: Readable): void {
  if (body.readableEnded || body.destroyed) return
  const timer = setTimeout(() => close(body), DRAIN_MS)
  body
    .on('error', () => undefined)
    .once('end', () => clearTimeout(timer))
    .once('close', () => clearTimeout(timer))
  void drain(body)
}

/** Destroys a body. An HTTP/2 request does not end its stream by itself. */
function close(body: Readable): void {
  if ('stream' in body) (body as Http2ServerRequest).stream.destroy()
  body.destroy()
}
