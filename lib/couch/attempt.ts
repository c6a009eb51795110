import type { Agent, Dispatcher } from 'undici'
import { discard } from '../bytes/discard.js'
import { joinSmallPieces } from '../bytes/small-pieces.js'
import { LinkedAbort } from '../waits/linked-abort.js'
import { Silence } from '../waits/silence.js'
import type { ConnectionListener } from './agents.js'
import type { Connection } from './connection.js'
import { CouchError } from './errors.js'
import { notJson, refusal } from './refusal.js'
import { type Body, bodyOf, bytesOf, type CouchRequest, describe, Fence, startedAnew } from './request.js'
import { LEAST_REQUEST_BYTES } from './request-size.js'
import { type CouchResponse, isJson, timedBody } from './response.js'
import { encodeTarget } from './target.js'

export interface AttemptSettings {
  connect: () => Connection
  /** Milliseconds of silence. */
  idle: number
  signal?: AbortSignal
  /** Called before each request. Throws when no other is to be made; those that were begun go on. */
  beforeRequest?: () => void
  /** Called before each piece of a writing request, head included. Throws when writing is forbidden. */
  beforeWrite?: () => void
}

/** Why a request was ended, by what it waited for. */
const STALLED = {
  connection: 'no connection to the database was free in time',
  /** Used when a dispatcher does not tell whether there is a connection. */
  unknown: 'the database did not answer in time, or no connection to it was free',
  body: 'the database stopped reading the request',
  answer: 'the database did not answer in time'
}

/** One request, from its wait for a connection to the end of its answer. */
export class Attempt {
  readonly #request: CouchRequest
  readonly #settings: AttemptSettings
  readonly #connection: Connection
  readonly #deadline: AbortSignal | undefined
  readonly #abort = new LinkedAbort()
  readonly #fence: Fence | undefined
  readonly #body: Body
  /** Bytes of the body, where they are known. */
  readonly #bytes: number | undefined
  readonly #idle: number
  readonly #silence: Silence
  #waitsFor: keyof typeof STALLED
  #stalled = false
  #answered = false

  /** @param deadline ends the request as one that the database keeps waiting */
  constructor(request: CouchRequest, settings: AttemptSettings, deadline?: AbortSignal) {
    const { idle, beforeWrite } = settings
    this.#request = request
    this.#settings = settings
    this.#connection = settings.connect()
    this.#deadline = deadline
    this.#fence = request.write && beforeWrite ? new Fence(beforeWrite, this.#abort) : undefined
    this.#body = bodyOf(request)
    this.#bytes = bytesOf(this.#body, request.headers)
    this.#idle = Math.min(idle, request.silence ?? idle)
    this.#silence = new Silence(this.#idle, () => this.#stall())
    this.#waitsFor = this.#connection.dispatcher ? 'unknown' : 'connection'
  }

  /** Resolves with the answer's head. @throws CouchError, what `beforeWrite` throws, the signal's reason */
  async send(agent: Agent): Promise<CouchResponse> {
    const { signal } = this.#settings
    signal?.throwIfAborted()
    this.#settings.beforeRequest?.()
    // Getting a connection may take long, so check before it.
    this.#fence?.check()
    this.#abort.follow(signal).follow(this.#deadline)
    this.#silence.wait()
    let answer: Dispatcher.ResponseData
    try {
      answer = await this.#orAborted((this.#connection.dispatcher ?? agent).request(this.#options()))
    } catch (error) {
      throw this.#failure(error)
    }
    this.#silence.end()
    this.#answered = true
    this.#waitsFor = 'answer'
    this.#connection.renew?.(answer.headers['set-cookie'])
    return this.#read(answer)
  }

  #options(): Dispatcher.RequestOptions & ConnectionListener {
    const { method = 'GET', json, headers } = this.#request
    return {
      origin: this.#connection.origin,
      path: this.#connection.basePath + encodeTarget(this.#request),
      method,
      headers: {
        accept: 'application/json',
        ...this.#connection.headers,
        ...(json === undefined ? undefined : { 'content-type': 'application/json' }),
        // A fenced body is sent in pieces, so undici does not know its length.
        ...(this.#fence && this.#bytes ? { 'content-length': String(this.#bytes) } : undefined),
        ...headers
      },
      body: this.#sentBody() as Dispatcher.DispatchOptions['body'],
      // Neither counts while a request waits for its connection, nor after a reader or a body has paused.
      headersTimeout: 0,
      bodyTimeout: 0,
      signal: this.#abort.signal,
      onConnection: () => {
        this.#waitsFor = 'answer'
        this.#silence.wait()
      }
    }
  }

  #sentBody(): Body {
    const fence = this.#fence
    const body = fence ? startedAnew(() => fence.guard(this.#body)) : this.#body
    return body === undefined || Buffer.isBuffer(body) ? body : startedAnew(() => this.#taken(body))
  }

  /** Passes a body on. The time that it takes to come does not count as the database's silence. */
  async *#taken(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    this.#waitsFor = 'body'
    this.#silence.pause()
    for await (const piece of body) {
      this.#silence.wait()
      yield piece
      this.#silence.pause()
    }
    this.#waitsFor = 'answer'
    this.#silence.wait()
  }

  /** Waits for an answer or the signal, which undici heeds only once a request has its connection. */
  #orAborted(answer: Promise<Dispatcher.ResponseData>): Promise<Dispatcher.ResponseData> {
    const { signal } = this.#abort
    const aborted = new Promise<never>((_resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason), { once: true })
    })
    answer.then(
      ({ body }) => signal.aborted && discard(body),
      () => undefined
    )
    return Promise.race([answer, aborted])
  }

  async #read({ statusCode: status, headers, body }: Dispatcher.ResponseData): Promise<CouchResponse> {
    const what = describe(this.#request)
    joinSmallPieces(body)
    const timed = timedBody(body, {
      what,
      idle: this.#idle,
      onSilent: () => this.#stall(),
      failure: (error) => this.#failure(error),
      release: () => this.#release()
    })
    const drop = () => {
      this.#release()
      discard(body)
    }
    const response = { status, headers, body: timed, discard: drop }
    if (status >= 300) throw await refusal(what, response, this.#bytes)
    const expectsJson = !this.#request.headers?.accept && this.#request.method !== 'HEAD'
    if (expectsJson && !isJson(headers)) {
      response.discard()
      throw notJson(what, response)
    }
    return response
  }

  #release(): void {
    this.#silence.end()
    this.#abort.release()
  }

  #stall(): void {
    this.#stalled = true
    this.#abort.abort(new Error(STALLED[this.#waitsFor]))
  }

  /** Returns what is to be thrown where the request, or reading its answer, failed with `cause`. */
  #failure(cause: unknown): unknown {
    this.#release()
    if (this.#fence?.closed) return this.#fence.closed.reason
    if (this.#settings.signal?.aborted) return this.#settings.signal.reason
    if (cause instanceof CouchError) return cause
    const code = String((cause as { code?: unknown }).code ?? (cause as Error).name)
    const unanswered = (error: string, reason: string, sent?: number) =>
      new CouchError(describe(this.#request), { error, reason, retryable: true, cause, sent })
    if (this.#deadline?.aborted || this.#stalled || /TIMEOUT/.test(code))
      return unanswered('stalled', STALLED[this.#waitsFor])
    if (CLOSED.has(code) && this.#mayBeTooLong())
      return unanswered('cut_off', cutOff(code, this.#bytes), this.#bytes)
    return unanswered('unreachable', `the connection failed (${code})`)
  }

  /** Returns whether the body is so long that a server may close the connection rather than answer. */
  #mayBeTooLong(): boolean {
    return !this.#answered && this.#body !== undefined && (this.#bytes ?? Infinity) > LEAST_REQUEST_BYTES
  }
}

/** Codes of a connection that the other side has closed. */
const CLOSED = new Set(['EPIPE', 'ECONNRESET', 'UND_ERR_SOCKET'])

/** Says what a closed connection may mean: a server may close it on a long body so soon that its refusal is lost. */
const cutOff = (code: string, sent: number | undefined) =>
  `the connection was closed (${code}) before ${sent ?? 'all'} bytes were answered: where that lasts, raise the limit of bodies before CouchDB (nginx: client_max_body_size), or set limits.requestBytes`
