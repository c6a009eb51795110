import { Readable } from 'node:stream'
import { createGunzip } from 'node:zlib'
import type { FastifyReply, FastifyRequest, preParsingAsyncHookHandler } from 'fastify'
import { type Bounds, bodyTooLarge, bounded, bytesOf } from '../bytes/body.js'
import { abandon, drain } from '../bytes/discard.js'
import { headOf } from '../bytes/head-of.js'
import { InflateError, Inflater } from '../bytes/inflater.js'
import {
  BodyAlreadyReadError,
  ClientLeftError,
  EncodingError,
  InvalidBackupError,
  TooLargeError,
  UploadTimeoutError
} from '../errors.js'
import { sharedTurn } from '../waits/steps.js'
import type { Fastify } from './context.js'

/** Accepted encodings of bodies, besides none. */
export const ACCEPTED_ENCODINGS = 'gzip'

/** Route configuration that makes fastify-raw-body leave the body alone. */
export const OWN_BODY: object = { rawBody: false }

interface BodyLimits {
  /** Bytes as they arrive. */
  received: number
  /** Bytes once they are inflated. */
  inflated: number
  /** Milliseconds of silence. */
  idle: number
}

/**
 * Reads a body, perhaps replaced by a host's hook, and inflates gzip, both bounded in size and silence.
 * Leaves the connection open for the reply. @throws EncodingError (415); the stream: BodyAlreadyReadError,
 * TooLargeError, UploadTimeoutError, InvalidBackupError
 */
function readBody(request: FastifyRequest, payload: Readable, limits: BodyLimits): Readable {
  const { received: limit, idle } = limits
  const encoding = encodingOf(request)
  const changed = payload !== request.raw
  if (encoding !== 'gzip' && encoding !== undefined && !changed) throw new EncodingError(encoding)
  let size = 0
  const received = firstReading(payload, {
    idle,
    onSize(bytes) {
      size = bytes
      if (bytes > limit) throw bodyTooLarge(limit)
    }
  })
  const body = Readable.from(encoding === 'gzip' ? inflated(received, changed, limits) : received, {
    objectMode: false
  })
  // A hook that inflated the body tells what it received.
  const get = () => (payload as { receivedEncodedLength?: number }).receivedEncodedLength ?? size
  return Object.defineProperty(body, 'receivedEncodedLength', { get })
}

/** Returns a body's encoding by its usual name; `undefined` for none. */
function encodingOf({ headers }: FastifyRequest): string | undefined {
  const encoding = headers['content-encoding']?.trim().toLowerCase()
  if (!encoding || encoding === 'identity') return undefined
  return encoding === 'x-gzip' ? 'gzip' : encoding
}

/** Reads a body in bounds. @throws BodyAlreadyReadError if some of it is gone; see {@link bounded} */
async function* firstReading(payload: Readable, bounds: Bounds): AsyncGenerator<Buffer> {
  if (payload.readableDidRead) throw new BodyAlreadyReadError()
  yield* bounded(bytesOf(payload), bounds)
}

/** Inflates what was received, unless a hook of the host, which may have `changed` it, has inflated it. */
async function* inflated(
  received: AsyncGenerator<Buffer>,
  changed: boolean,
  { inflated: limit, idle }: BodyLimits
): AsyncGenerator<Buffer> {
  const { head, all } = await headOf(received, 2)
  const isGzip = head[0] === 0x1f && head[1] === 0x8b
  if (head.length > 0 && !isGzip && !changed) {
    await all.return(undefined)
    throw new InvalidBackupError('the body is not gzip, as content-encoding says')
  }
  const onSize = (bytes: number) => {
    if (bytes > limit) throw new TooLargeError(`the body inflates to more than ${limit} bytes`)
  }
  yield* bounded(isGzip ? gunzipped(all) : all, { idle, onSize })
}

async function* gunzipped(pieces: AsyncGenerator<Buffer>): AsyncGenerator<Buffer> {
  const inflater = new Inflater(createGunzip())
  try {
    for await (const piece of pieces) for await (const output of inflater.write(piece)) yield* output
    yield* await inflater.end()
  } catch (error) {
    if (!(error instanceof InflateError)) throw error
    throw new InvalidBackupError(`the body ${error.message}`)
  } finally {
    inflater.destroy()
  }
}

/** Passes JSON to a scope's routes as a stream, which their readers check. */
export function streamBodies(scope: Fastify): void {
  const compile = scope.validatorCompiler as NonNullable<Fastify['validatorCompiler']>
  // Those of the host too, and Fastify's own for text.
  scope.removeAllContentTypeParsers()
  scope.addContentTypeParser('application/json', (_request, payload, done) => done(null, payload))
  scope.setValidatorCompiler((route) => (route.httpPart === 'body' ? () => true : compile(route)))
}

/** Returns a body that no parser has read. Its schema says what it holds, so its type is that of the parsed JSON. */
export const streamOf = ({ body }: FastifyRequest): Readable =>
  (body as Readable | undefined) ?? Readable.from([])

/** Has `work` read the body; clients get the reply of a failure. @throws EncodingError, ClientLeftError */
export async function withBody<T>(
  request: FastifyRequest,
  reply: FastifyReply,
  limits: BodyLimits,
  work: (body: Readable) => Promise<T>
): Promise<T> {
  const payload = streamOf(request)
  try {
    // Many requests may come in one turn.
    await sharedTurn()
    const body = readBody(request, payload, limits)
    // `leave` handles the rest of the request.
    return await work(body).finally(() => body.destroy())
  } catch (error) {
    if (request.raw.destroyed && !request.raw.complete) throw new ClientLeftError()
    await leave(request, reply, payload, error)
    throw error
  }
}

/** Lets a refused sender see the reply: reads on before HTTP/1.1 closes, unless it is silent. */
async function leave(
  request: FastifyRequest,
  reply: FastifyReply,
  body: Readable,
  error: unknown
): Promise<void> {
  if (request.raw.httpVersionMajor >= 2) return abandon(body)
  reply.header('connection', 'close')
  if (!(error instanceof UploadTimeoutError)) await drain(body)
}

/** Returns a signal that is aborted when the request's client breaks off. */
export function clientOf({ raw }: FastifyReply): AbortSignal {
  const left = new AbortController()
  raw.once('close', () => {
    if (!raw.writableEnded) left.abort(new ClientLeftError())
  })
  return left.signal
}

/** Passes bodies that Fastify parses through {@link readBody}. */
export function readParsedBody(idle: number): preParsingAsyncHookHandler {
  return async (request, _reply, payload) => {
    const limits = { received: Number.POSITIVE_INFINITY, inflated: request.routeOptions.bodyLimit, idle }
    // Fastify counts what it receives, and stops listening to a body that is too large.
    return readBody(request, payload as Readable, limits).on('error', () => undefined)
  }
}
