import { setImmediate as turn } from 'node:timers/promises'
import { discard } from '../bytes/discard.js'
import { Silence } from '../waits/silence.js'
import { LEAST_BYTES, SlowBytes } from '../waits/slow-bytes.js'
import { CouchError } from './errors.js'

export type Headers = Record<string, string | string[] | undefined>

export interface CouchResponse {
  status: number
  headers: Headers
  /** Throws {@link CouchError} when the connection breaks or falls silent. */
  body: AsyncIterable<Buffer>
  /** Drops what is left, and cuts the connection when there is something. */
  discard(): void
}

/** Milliseconds of work on a body that arrives fast, before the event loop gets its turn. */
const SLICE = 5
const MAX_JSON = 64 * 1024 * 1024

export const isJson = ({ 'content-type': type }: Headers): boolean =>
  /^application\/json\b/i.test(String(type ?? ''))

/** Reads a small JSON response. @throws CouchError when it is not JSON, or takes more than 64 MiB */
export async function readJson(response: Pick<CouchResponse, 'body'>): Promise<unknown> {
  const text = await collect(response.body, MAX_JSON)
  try {
    return JSON.parse(text.toString())
  } catch (cause) {
    const reason = 'the answer is not complete JSON'
    throw new CouchError('answer', { error: 'truncated', reason, retryable: true, cause })
  }
}

/** Collects a body. @throws CouchError when it takes more than `limit` bytes */
export async function collect(body: AsyncIterable<Buffer>, limit: number): Promise<Buffer> {
  const whole = await collectUpTo(body, limit)
  if (whole) return whole
  throw new CouchError('answer', { error: 'bad_answer', reason: `more than ${limit} bytes` })
}

/** Returns all bytes of a stream, or `null` when there are more than `limit`. */
export async function collectUpTo(pieces: AsyncIterable<Uint8Array>, limit: number): Promise<Buffer | null> {
  const all: Uint8Array[] = []
  let size = 0
  for await (const piece of pieces) {
    size += piece.length
    if (size > limit) return null
    all.push(piece)
  }
  return Buffer.concat(all, size)
}

interface BodyWatch {
  /** Names the request. */
  what: string
  /** Milliseconds of silence that end the request. */
  idle: number
  onSilent: () => void
  /** Turns what reading failed with into what is thrown. */
  failure: (error: unknown) => unknown
  /** Called when the body has ended, whatever became of it. */
  release: () => void
}

/** Passes on a response's body, and ends it when it falls almost silent. The reader's time does not count. */
export async function* timedBody(
  body: Parameters<typeof discard>[0],
  { what, idle, onSilent, failure, release }: BodyWatch
): AsyncGenerator<Buffer> {
  const pieces: AsyncIterator<Buffer> = body[Symbol.asyncIterator]()
  const silence = new Silence(idle, onSilent)
  const slow = new SlowBytes()
  let ended = false
  let busySince = performance.now()
  try {
    for (;;) {
      let from = performance.now()
      if (from - busySince > SLICE) {
        await turn()
        busySince = from = performance.now()
      }
      silence.wait()
      const next = await pieces.next()
      silence.pause()
      if (next.done) break
      const wait = performance.now() - from
      // A wait lets others run.
      if (wait > 1) busySince = performance.now()
      slow.add(next.value.length, wait)
      if (slow.waited > idle) {
        const reason = `the response is too slow (less than ${LEAST_BYTES} bytes in ${idle / 1000} s)`
        throw new CouchError(what, { error: 'stalled', reason, retryable: true })
      }
      yield next.value
    }
    ended = true
  } catch (error) {
    throw failure(error)
  } finally {
    silence.end()
    if (!ended) discard(body)
    release()
  }
}
