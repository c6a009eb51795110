import type { CouchClient } from './client.js'
import { CouchError, isStalled } from './errors.js'
import type { CouchRequest } from './request.js'
import type { CouchResponse } from './response.js'

/** Milliseconds of silence after which an answer is first asked for again. */
const FIRST_SILENCE = 1500
/** Bytes dropped from the end of a broken answer: CouchDB may append its error reply to an attachment. */
const UNCERTAIN = 64 * 1024

/** Continues a GET of constant bytes where it breaks or is silent; each silence may be twice the last. */
export async function openResumable(client: CouchClient, request: CouchRequest): Promise<CouchResponse> {
  let silence = FIRST_SILENCE

  /** Asks for what comes after the first `from` bytes. Makes one attempt, but for shorter silences. */
  async function open(from: number): Promise<CouchResponse> {
    const headers = { ...request.headers, ...(from > 0 && { range: `bytes=${from}-` }) }
    for (;;) {
      const waited = silence
      try {
        return await client.once.stream({ ...request, headers, silence: waited })
      } catch (error) {
        if (!isStalled(error) || waited >= client.settings.idle) throw error
        silence *= 2
      }
    }
  }

  async function* bytes(first: CouchResponse): AsyncGenerator<Buffer> {
    const retrier = client.retrier()
    const length = Number(first.headers['content-length'])
    let response = first
    let given = 0
    for (;;) {
      const tail = new Tail()
      try {
        for await (const piece of rest(response, given)) {
          for (const certain of tail.add(piece)) {
            given += certain.length
            retrier.progressed()
            yield certain
          }
        }
        yield* tail.take()
        return
      } catch (error) {
        // Every byte came before the connection broke.
        if (given + tail.bytes === length) return yield* tail.take()
        await retrier.failed(error)
        silence *= 2
      }
      response = await client.retry(() => open(given))
      if (response.headers.etag !== first.headers.etag) {
        response.discard()
        throw new CouchError('attachment', { error: 'bad_answer', reason: 'it has changed', retryable: true })
      }
    }
  }

  const first = await client.retry(() => open(0))
  return { ...first, body: bytes(first) }
}

/** Retries opening a stream until its first piece has come. Later failures are the caller's. */
export async function* untilBegun<T>(client: CouchClient, open: () => AsyncGenerator<T>): AsyncGenerator<T> {
  let pieces = open()
  try {
    let next = await client.retry(() => {
      pieces = open()
      return pieces.next()
    })
    for (; !next.done; next = await pieces.next()) yield next.value
  } finally {
    await pieces.return(undefined)
  }
}

/** Holds back the last {@link UNCERTAIN} bytes of an answer. */
class Tail {
  bytes = 0
  #pieces: Buffer[] = []

  /** Returns what is held, once the answer is complete. */
  take(): Buffer[] {
    const pieces = this.#pieces
    this.#pieces = []
    return pieces
  }

  /** Takes a piece, and returns those that enough has followed. */
  *add(piece: Buffer): Generator<Buffer> {
    this.#pieces.push(piece)
    this.bytes += piece.length
    while (this.bytes - this.#pieces[0].length >= UNCERTAIN) {
      const certain = this.#pieces.shift() as Buffer
      this.bytes -= certain.length
      yield certain
    }
  }
}

/** Yields what follows the first `from` bytes: a server without ranges sends all again. */
async function* rest({ status, body }: CouchResponse, from: number): AsyncGenerator<Buffer> {
  let toSkip = status === 206 ? 0 : from
  for await (const piece of body) {
    const wanted = piece.subarray(Math.min(toSkip, piece.length))
    toSkip -= piece.length - wanted.length
    if (wanted.length > 0) yield wanted
  }
}
