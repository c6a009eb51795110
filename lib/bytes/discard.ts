import type { Http2ServerRequest } from 'node:http2'
import type { Readable } from 'node:stream'
import { within } from '../waits/within.js'

/** What is read of a refused body, at most, for the sake of its sender. */
const DRAIN_BYTES = 64 * 1024 * 1024
const DRAIN_MS = 3000

/** Drops what is left of an answer, and cuts its connection. undici's bodies emit an error then: nobody waits for it. */
export function discard(body: Readable): void {
  body.on('error', () => undefined).destroy()
}

/** Reads on, for a moment: a client that is still sending would not see the reply. */
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

/**
 * Drops what is left of a body whose sender waits for a reply that others give: reads on for a moment, so that the
 * sender sees the reply, and destroys what has not ended then. A request loses its connection, a file is closed.
 */
export function abandon(body: Readable): void {
  if (body.readableEnded || body.destroyed) return
  const timer = setTimeout(() => close(body), DRAIN_MS)
  body
    .on('error', () => undefined)
    .once('end', () => clearTimeout(timer))
    .once('close', () => clearTimeout(timer))
  void drain(body)
}

/** Destroys a body. That of a request of HTTP/2 does not end its stream by itself. */
function close(body: Readable): void {
  if ('stream' in body) (body as Http2ServerRequest).stream.destroy()
  body.destroy()
}
