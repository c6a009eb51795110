import { Readable } from 'node:stream'
import createError from '@fastify/error'
import type { FastifyRequest, preParsingAsyncHookHandler } from 'fastify'
import { TooLargeError } from '../errors.js'
import { within } from '../within.js'

const EncodingError = createError('DB_BACKUPS_ENCODING', 'a content encoding is not supported: %s', 415)
export const SilentError = createError('DB_BACKUPS_UPLOAD_TIMEOUT', 'the body stopped arriving', 408)

/** Fewer bytes than these within the idle time-out count as silence. */
const DRIP = 1024
/** What is read of a refused upload, at most, before the reply. */
const DRAIN_BYTES = 64 * 1024 * 1024
const DRAIN_MS = 3000

export const tooLarge = (limit: number) => new TooLargeError(`the body is larger than ${limit} bytes`)

/**
 * Bounds a body in size, and how long its sender may be silent or send next to nothing. Leaves the connection open for
 * the reply.
 */
export async function* bounded(body: Readable, limit: number, idle: number): AsyncGenerator<Buffer> {
  const pieces = body.iterator({ destroyOnReturn: false })
  let size = 0
  let waited = 0
  let progress = 0
  try {
    for (;;) {
      const from = performance.now()
      const next = await within(
        idle - waited,
        () => new SilentError(),
        () => pieces.next()
      )
      if (next.done) return
      waited += performance.now() - from
      size += next.value.length
      progress += next.value.length
      if (size > limit) throw tooLarge(limit)
      if (progress >= DRIP) {
        waited = 0
        progress = 0
      }
      yield next.value
    }
  } finally {
    // Nothing more would come of the body while an iterator listens to it. Not awaited: a silent one does not return.
    void pieces.return?.()
  }
}

/** Nothing is inflated: what would come of a body has no bound that its sender respects. */
export function checkEncoding({ headers }: FastifyRequest): void {
  const encoding = headers['content-encoding']
  if (encoding && encoding !== 'identity') throw new EncodingError(encoding)
}

/** A hook for routes whose body Fastify parses: what {@link bounded} and {@link checkEncoding} refuse is refused there too. */
export function refuseHostileBody(idle: number): preParsingAsyncHookHandler {
  return async (request, _reply, payload) => {
    checkEncoding(request)
    const body = Readable.from(bounded(payload as Readable, Number.POSITIVE_INFINITY, idle), {
      objectMode: false
    })
    // Fastify stops listening to a body that is too large.
    return body.on('error', () => undefined)
  }
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
    () => new SilentError(),
    () => ended
  ).catch(() => undefined)
  body.pause()
}
