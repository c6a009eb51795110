import type { Readable } from 'node:stream'

/** Drops what is left of an answer, and cuts its connection. undici's bodies emit an error then: nobody waits for it. */
export function discard(body: Readable): void {
  body.on('error', () => undefined).destroy()
}
