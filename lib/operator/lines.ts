import { once } from 'node:events'
import { PassThrough } from 'node:stream'
import type { FastifyReply } from 'fastify'
import { cutText, MOST, messageOf } from '../bytes/cut-text.js'
import { ClientLeftError } from '../errors.js'
import { statusOf } from '../routes/error-handler.js'

/** Milliseconds between two lines that say that the work goes on. */
const INTERVAL = 10_000

/** A reply of lines of JSON, that is begun by the first of them. */
export interface Lines {
  /** Sends a line, and resolves when the next may come. @throws ClientLeftError */
  write(line: object): Promise<void>
  /** Aborts when the client breaks off. */
  signal: AbortSignal
}

/**
 * Replies with lines of JSON while `work` goes on: those that it writes, one that says so every ten seconds, and a last
 * one with what it returns, or with its error. An error before the first line is thrown, unless it tells a position.
 */
export async function replyLines(
  reply: FastifyReply,
  work: (lines: Lines) => Promise<object>
): Promise<FastifyReply> {
  const stream = new PassThrough()
  const left = new AbortController()
  stream.once('close', () => left.abort(new ClientLeftError()))
  // The reply fails with it; there is nobody to tell.
  stream.on('error', () => undefined)
  let begin = () => {}
  const begun = new Promise<void>((resolve) => {
    begin = resolve
  })
  const write = async (line: object) => {
    begin()
    left.signal.throwIfAborted()
    if (!stream.write(`${JSON.stringify(line)}\n`)) await once(stream, 'drain', { signal: left.signal })
  }
  const leave = () => left.abort(new ClientLeftError())
  reply.raw.once('close', leave)
  const timer = setInterval(() => void write({ running: true }).catch(() => undefined), INTERVAL)
  const working = work({ write, signal: left.signal }).finally(() => {
    clearInterval(timer)
    reply.raw.off('close', leave)
  })
  // An error before the reply has begun has a status of its own, which has no room for a position.
  await Promise.race([begun, working]).catch((error?: { position?: string } | null) => {
    if (error?.position === undefined) throw error
  })
  working
    .catch((error: unknown) => ({ error: told(error, reply) }))
    .then((last) => stream.end(`${JSON.stringify(last)}\n`))
  // A compressor of replies may keep lines back.
  reply.header('cache-control', 'no-store, no-transform')
  return reply.type('application/x-ndjson; charset=utf-8').send(stream)
}

/** Tells an error as the replies of other routes do: of one that nobody expected, only that there was one. */
function told(error: unknown, { request }: FastifyReply): object {
  const { code, position } = (error ?? {}) as { code?: string; position?: string }
  const known = statusOf(error) !== undefined && /^DB_BACKUPS_/.test(code ?? '')
  if (!known) request.log.error({ err: error }, 'operator request failed')
  return {
    ...(known && { code }),
    message: known ? cutText(messageOf(error), MOST.message) : 'the request could not be served',
    ...(position !== undefined && { position })
  }
}
