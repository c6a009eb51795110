import { slicesOf } from '../bytes/views.js'
import type { Target } from './target.js'

export interface CouchRequest extends Target {
  method?: 'GET' | 'HEAD' | 'PUT' | 'POST' | 'DELETE'
  /** A value to send as JSON. */
  json?: unknown
  /** Bytes to send, or a function that starts a stream of them anew for every attempt. */
  body?: string | Buffer | (() => AsyncIterable<Uint8Array>)
  headers?: Record<string, string>
  /** The request changes the database. */
  write?: boolean
  /** Milliseconds of silence that end this call, where they are fewer than the client's. */
  silence?: number
}

/** A request's body; one that is not in memory starts anew each time that it is read. */
export type Body = Buffer | AsyncIterable<Uint8Array> | undefined

/** Bytes of a body between two checks of the right to write. */
const PIECE = 64 * 1024

/** Names a request in errors. */
export function describe({ method = 'GET', path }: CouchRequest): string {
  return `${method} /${path.map((segment) => segment.slice(0, 120)).join('/')}`
}

export function bodyOf({ json, body }: CouchRequest): Body {
  if (json !== undefined) return Buffer.from(JSON.stringify(json))
  if (typeof body === 'function') return startedAnew(body)
  return typeof body === 'string' ? Buffer.from(body) : body
}

/** Returns a body's bytes, where they are known. */
export function bytesOf(body: Body, headers: Record<string, string> = {}): number | undefined {
  if (Buffer.isBuffer(body)) return body.length
  return headers['content-length'] === undefined ? undefined : Number(headers['content-length'])
}

/** Makes a body that starts anew: a host's dispatcher that repeats a request must send all of it, not what is left. */
export const startedAnew = (start: () => AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> => ({
  [Symbol.asyncIterator]: () => start()[Symbol.asyncIterator]()
})

/**
 * The right of one request to write. It is asked for as the body is read, since that begins when the request has got
 * its connection, with every dispatcher a host may have; undici sends the head with the first piece, or with the end of
 * a body that has none.
 */
export class Fence {
  readonly #beforeWrite: () => void
  readonly #abort: AbortController
  /** Why the request was stopped, if it was. */
  closed: { reason: unknown } | undefined

  /** @param abort ends the request, so that no dispatcher repeats it */
  constructor(beforeWrite: () => void, abort: AbortController) {
    this.#beforeWrite = beforeWrite
    this.#abort = abort
  }

  /** @throws what `beforeWrite` does */
  check(): void {
    try {
      this.#beforeWrite()
    } catch (reason) {
      this.closed = { reason }
      this.#abort.abort(reason)
      throw reason
    }
  }

  /** Passes a body on in pieces, as long as the instance may write: it stays incomplete otherwise. */
  async *guard(body: Body): AsyncGenerator<Uint8Array> {
    for await (const bytes of Buffer.isBuffer(body) ? [body] : (body ?? [])) {
      for (const slice of slicesOf(bytes, PIECE)) {
        this.check()
        yield slice
      }
    }
    this.check()
  }
}
