import { shownName } from '../bytes/cut-text.js'
import { slicesOf } from '../bytes/views.js'
import type { RequestTarget } from './target.js'

export interface CouchRequest extends RequestTarget {
  method?: 'GET' | 'HEAD' | 'PUT' | 'POST' | 'DELETE'
  json?: unknown
  /** Bytes to send, or a function that starts a stream of them anew for every attempt. */
  body?: Buffer | (() => AsyncIterable<Uint8Array>)
  headers?: Record<string, string>
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
  return `${method} /${path.map(shownName).join('/')}`
}

export function bodyOf({ json, body }: CouchRequest): Body {
  if (json !== undefined) return Buffer.from(JSON.stringify(json))
  return typeof body === 'function' ? startedAnew(body) : body
}

/** Returns a body's bytes, where they are known. */
export function bytesOf(body: Body, headers: Record<string, string> = {}): number | undefined {
  if (Buffer.isBuffer(body)) return body.length
  return headers['content-length'] === undefined ? undefined : Number(headers['content-length'])
}

/** Makes a body that starts anew: a host's dispatcher that repeats a request must send all of it. */
export const startedAnew = (start: () => AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> => ({
  [Symbol.asyncIterator]: () => start()[Symbol.asyncIterator]()
})

/** Checks the right to write as the body is read, which begins once there is a connection. */
export class Fence {
  readonly #beforeWrite: () => void
  readonly #abort: AbortController
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

  /** Passes a body on in pieces while the instance may write; otherwise the body stays incomplete. */
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
