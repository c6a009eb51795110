import { setImmediate as turn } from 'node:timers/promises'
import { discard } from '../bytes/discard.js'
import { Silence } from '../waits/silence.js'
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

/** Fewer bytes than these within the idle time-out count as silence. */
const LEAST_BYTES = 1024
/** Milliseconds of work on a body that arrives faster than it is read, before the event loop gets its turn. */
const SLICE = 5
const MAX_JSON = 64 * 1024 * 1024

/** Returns whether a response's type is that of JSON. */
export const isJson = ({ 'content-type': type }: Headers): boolean =>
  /^application\/json\b/i.test(String(type ?? ''))

/**
 * Reads a response that is a small JSON value.
 * @throws CouchError when it is not JSON, or takes more than 64 MiB
 */
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
  const pieces: Buffer[] = []
  let size = 0
  for await (const piece of body) {
    size += piece.length
    if (size > limit) {
      throw new CouchError('answer', { error: 'bad_answer', reason: `more than ${limit} bytes` })
    }
    pieces.push(piece)
  }
  return pieces.length === 1 ? pieces[0] : Buffer.concat(pieces, size)
}

/** What becomes of a body that is read by {@link timedBody}. */
interface BodyWatch {
  /** Names the request. */
  what: string
  /** Milliseconds of silence that end the request. */
  idle: number
  /** Ends the request, since the database is silent. */
  onSilent: () => void
  /** Turns what reading failed with into what is thrown. */
  failure: (error: unknown) => unknown
  /** Called when the body has ended, whatever became of it. */
  release: () => void
}

/**
 * Passes a response's body on. A database that sends nothing, or next to nothing, in the idle time-out ends it; the time
 * that the reader takes does not count.
 */
export async function* timedBody(
  body: Parameters<typeof discard>[0],
  { what, idle, onSilent, failure, release }: BodyWatch
): AsyncGenerator<Buffer> {
  const pieces: AsyncIterator<Buffer> = body[Symbol.asyncIterator]()
  const silence = new Silence(idle, onSilent)
  let waited = 0
  let received = 0
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
      waited += wait
      received += next.value.length
      if (received >= LEAST_BYTES) {
        waited = 0
        received = 0
      } else if (waited > idle) {
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
