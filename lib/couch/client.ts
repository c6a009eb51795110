import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises'
import { Agent, type Dispatcher } from 'undici'
import { discard } from '../bytes/discard.js'
import { slicesOf } from '../bytes/pieces.js'
import { Silence } from '../waits/silence.js'
import type { Connection } from './connection.js'
import { CouchError, isNodeDown, isRequestTooLarge, isTooLarge } from './errors.js'
import { foreignAnswer, refusalOf } from './refusal.js'
import { LEAST_REQUEST_BYTES, RequestSize } from './request-size.js'

/** How often and how long to try again after a fault that may pass. */
export interface RetryPolicy {
  attempts: number
  /** First wait, in milliseconds; doubles with every attempt. */
  wait: number
  /** Longest wait, in milliseconds. */
  longest: number
}

/** While somebody waits for the reply. */
export const FOREGROUND: RetryPolicy = { attempts: 3, wait: 150, longest: 1000 }
/** While a backup or a restore runs: bridges a restart of the database, and goes on soon after it. */
export const BACKGROUND: RetryPolicy = { attempts: 14, wait: 250, longest: 1500 }

export interface ClientSettings {
  connect: () => Connection
  retry: RetryPolicy
  /** Milliseconds for a whole control call. */
  control: number
  /** Milliseconds of silence on a streamed call. */
  idle: number
  /** Bytes of the largest request, of what can be divided. */
  requestBytes?: number
  /** Ends every call. */
  signal?: AbortSignal
  /**
   * Called before each piece of a request that writes is handed to its connection, the head included; throws when this
   * instance must not write any more. What it throws reaches the caller as it is.
   */
  beforeWrite?: () => void
  /** Told before each wait for a further attempt. */
  onRetry?: (retry: FailedAttempt) => void
}

/** An attempt after which there will be another. */
export interface FailedAttempt {
  /** Failures in a row, this one included. */
  attempt: number
  waitMs: number
  error: CouchError
}

export interface CouchRequest {
  method?: 'GET' | 'HEAD' | 'PUT' | 'POST' | 'DELETE'
  /** Segments of the path, not encoded. */
  path: readonly string[]
  query?: Record<string, string | number | boolean | undefined>
  /** A value to send as JSON. */
  json?: unknown
  /** Bytes to send, or a function that starts a stream of them anew for every attempt. */
  body?: string | Buffer | (() => AsyncIterable<Uint8Array>)
  headers?: Record<string, string>
  /** The request changes the database. */
  write?: boolean
  /** Milliseconds of silence that end this call, where they are fewer than {@link ClientSettings.idle}. */
  silence?: number
}

export interface CouchResponse {
  status: number
  headers: Record<string, string | string[] | undefined>
  /** Throws {@link CouchError} when the connection breaks or falls silent. */
  body: AsyncIterable<Buffer>
  /** Drops what is left, and cuts the connection when there is something. */
  discard(): void
}

/** @throws the signal's reason */
async function waitOn(signal: AbortSignal | undefined, ms: number): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => signal?.throwIfAborted())
}

/** Milliseconds before a write is tried again after its first conflict, doubled with each, and at most. */
const CONFLICT_WAIT = { first: 5, longest: 400 }

/** For callers that count attempts themselves. */
export const ONCE: RetryPolicy = { attempts: 1, wait: 1, longest: 1 }

/** Counts attempts, and waits between them. */
export class Retrier {
  readonly #policy: RetryPolicy
  readonly #signal: AbortSignal | undefined
  readonly #onRetry: ClientSettings['onRetry']
  readonly #size: RequestSize
  #failures = 0

  constructor({ retry, signal, onRetry }: ClientSettings, size: RequestSize) {
    this.#size = size
    this.#policy = retry
    this.#signal = signal
    this.#onRetry = onRetry
  }

  /** Waits before the next attempt; throws `error` when there is none. */
  async failed(error: unknown): Promise<void> {
    const { attempts, wait, longest } = this.#policy
    if (!(error instanceof CouchError) || !error.retryable) throw error
    if (++this.#failures >= attempts) {
      // Once, it may have been a restart.
      if (error.sent !== undefined) this.#size.refused(error.sent)
      throw error
    }
    const backoff = Math.min(longest, wait * 2 ** (this.#failures - 1)) * (0.5 + Math.random() / 2)
    const pause = Math.min(longest, Math.max(backoff, error.retryAfter ?? 0))
    this.#onRetry?.({ attempt: this.#failures, waitMs: pause, error })
    await waitOn(this.#signal, pause)
  }

  /** There was progress: failures are counted anew. */
  progressed(): void {
    this.#failures = 0
  }
}

/** Fewer bytes than these within the idle time-out count as silence. */
const DRIP = 1024
/** Milliseconds of work on an answer that arrives faster than it is read, before the event loop gets its turn. */
const SLICE = 5
const MAX_JSON_ANSWER = 64 * 1024 * 1024
/** Connections to each server. What reads backups for others is bounded itself: it has as many as it needs. */
const CONNECTIONS = { common: 64, reserved: 4, downloads: null }
/** Bytes of a body between two checks of the right to write. */
const PIECE = 64 * 1024

/** What a request is told by {@link TellingAgent}, beside undici's options. */
interface Told {
  onConnection: () => void
}

/** Tells a request that it has got its connection. */
class TellingAgent extends Agent {
  override dispatch(options: Agent.DispatchOptions & Partial<Told>, handler: Dispatcher.DispatchHandlers) {
    const onConnect = handler.onConnect?.bind(handler)
    handler.onConnect = (abort) => {
      options.onConnection?.()
      onConnect?.(abort)
    }
    return super.dispatch(options, handler)
  }
}

const agentOf = (connections: number | null) => new TellingAgent({ keepAliveTimeout: 10_000, connections })

/** What clients share that were made from one another. */
class Shared {
  readonly common = agentOf(CONNECTIONS.common)
  readonly reserved = agentOf(CONNECTIONS.reserved)
  readonly downloads = agentOf(CONNECTIONS.downloads)
  readonly size: RequestSize

  constructor({ requestBytes }: ClientSettings) {
    this.size = new RequestSize(requestBytes)
  }

  async close(): Promise<void> {
    await Promise.all([this.common, this.reserved, this.downloads].map((agent) => agent.destroy()))
  }
}

/**
 * HTTP to CouchDB: streams both ways, notices cut and silent answers, retries what may pass, and turns every
 * failure into a {@link CouchError}.
 */
export class CouchClient {
  readonly settings: ClientSettings
  readonly #shared: Shared
  readonly #agent: Agent

  constructor(settings: ClientSettings, shared = new Shared(settings), agent = shared.common) {
    this.settings = settings
    this.#shared = shared
    this.#agent = agent
  }

  /** A client on the same connections with other settings. */
  with(settings: Partial<ClientSettings>): CouchClient {
    return new CouchClient({ ...this.settings, ...settings }, this.#shared, this.#agent)
  }

  /**
   * Returns a client on connections that are kept for calls which must not wait behind others, such as renewals of the
   * lease. Where the host's nano has a dispatcher of its own, that one serves all calls.
   */
  reserved(): CouchClient {
    return new CouchClient(this.settings, this.#shared, this.#shared.reserved)
  }

  /**
   * Returns a client on connections for what downloads read: a reader that pauses must keep no other call waiting. Where
   * the host's nano has a dispatcher of its own, that one serves all calls.
   */
  forDownloads(): CouchClient {
    return new CouchClient(this.settings, this.#shared, this.#shared.downloads)
  }

  /** The largest request that the server takes, learned by all clients on the same connections. */
  get size(): RequestSize {
    return this.#shared.size
  }

  /** Ends the connections of all clients that share them. */
  async close(): Promise<void> {
    await this.#shared.close()
  }

  /** Runs `call` again after faults that may pass, by the client's policy. */
  async retry<T>(call: () => Promise<T>): Promise<T> {
    const retrier = this.retrier()
    for (;;) {
      try {
        return await call()
      } catch (error) {
        await retrier.failed(error)
      }
    }
  }

  /**
   * Waits before a write is tried again after the conflict of its `attempt`, counted from 1: at first no longer than
   * another writer takes.
   */
  async afterConflict(attempt: number): Promise<void> {
    const { first, longest } = CONFLICT_WAIT
    const wait = Math.min(longest, first * 2 ** (attempt - 1))
    await waitOn(this.settings.signal, wait * (0.5 + Math.random() / 2))
  }

  /** For loops that cannot be a function to call again. */
  retrier(): Retrier {
    return new Retrier(this.settings, this.size)
  }

  /** A call whose answer is a small JSON value. Retried. */
  async json<T>(request: CouchRequest): Promise<T> {
    return this.retry(() => this.jsonOnce<T>(request))
  }

  /** One attempt of {@link json}. */
  async jsonOnce<T>(request: CouchRequest): Promise<T> {
    return (await this.answerOnce<T>(request)).json
  }

  /** One attempt of {@link json}, for callers that need the status as well. */
  async answerOnce<T>(request: CouchRequest): Promise<{ status: number; json: T }> {
    const deadline = new AbortController()
    const timer = setTimeout(() => deadline.abort(), this.settings.control)
    try {
      const response = await this.#send(request, deadline.signal)
      return { status: response.status, json: (await readJson(response)) as T }
    } finally {
      clearTimeout(timer)
    }
  }

  /** A call whose answer is a stream. Retried until the answer begins; what comes later is the caller's. */
  async stream(request: CouchRequest): Promise<CouchResponse> {
    return this.retry(() => this.#send(request))
  }

  /**
   * One attempt of {@link stream}, for callers that retry more than the request.
   * @param deadline ends the call
   */
  async streamOnce(request: CouchRequest, deadline?: AbortSignal): Promise<CouchResponse> {
    return this.#send(request, deadline)
  }

  async #send(request: CouchRequest, deadline?: AbortSignal): Promise<CouchResponse> {
    const { signal, beforeWrite } = this.settings
    const idle = Math.min(this.settings.idle, request.silence ?? this.settings.idle)
    const what = describe(request)
    const connection = this.settings.connect()
    const abort = new AbortController()
    const onAbort = () => abort.abort(signal?.reason)
    const onDeadline = () => abort.abort(new Error('deadline'))
    signal?.throwIfAborted()
    const fence = request.write && beforeWrite ? new Fence(beforeWrite, abort) : undefined
    // A connection may be long in coming: what must not be written already does not wait for it.
    fence?.check()
    signal?.addEventListener('abort', onAbort, { once: true })
    deadline?.addEventListener('abort', onDeadline, { once: true })
    const progress = new Progress(connection.dispatcher ? 'unknown' : 'connection')
    const silence = new Silence(idle, () => progress.stall(abort))
    const release = () => {
      silence.end()
      signal?.removeEventListener('abort', onAbort)
      deadline?.removeEventListener('abort', onDeadline)
    }
    const body = bodyOf(request)
    const sent = Buffer.isBuffer(body) ? body.length : bytesIn(request.headers)
    const failure = (error: unknown): unknown => {
      release()
      if (fence?.closed) return fence.closed.reason
      if (signal?.aborted) return signal.reason
      if (error instanceof CouchError) return error
      const code = (error as { code?: string }).code ?? (error as Error).name
      if (deadline?.aborted || progress.stalled || /TIMEOUT/.test(code))
        return unanswered(what, 'stalled', progress.reason, error)
      if (!answer && body && CLOSED.has(code) && (sent ?? Number.POSITIVE_INFINITY) > LEAST_REQUEST_BYTES)
        return unanswered(what, 'cut_off', cutOff(code, sent), error, sent)
      return unanswered(what, 'unreachable', `the connection failed (${code})`, error)
    }

    const pieces = fence ? startedAnew(() => fence.guard(body)) : body
    const options: Dispatcher.RequestOptions & Told = {
      origin: connection.origin,
      path: connection.basePath + encodePath(request),
      method: request.method ?? 'GET',
      headers: {
        accept: 'application/json',
        ...connection.headers,
        ...(request.json === undefined ? undefined : { 'content-type': 'application/json' }),
        ...(fence && lengthOf(body)),
        ...request.headers
      },
      body: (pieces === undefined || Buffer.isBuffer(pieces)
        ? pieces
        : startedAnew(() => taken(pieces, silence, progress))) as Dispatcher.DispatchOptions['body'],
      // Neither counts while a request waits for its connection, nor any more once a reader or a body has paused.
      headersTimeout: 0,
      bodyTimeout: 0,
      signal: abort.signal,
      onConnection() {
        progress.waitsFor = 'answer'
        silence.wait()
      }
    }
    let answer: Dispatcher.ResponseData | undefined
    silence.wait()
    try {
      answer = await orAborted((connection.dispatcher ?? this.#agent).request(options), abort.signal)
    } catch (error) {
      throw failure(error)
    }
    silence.end()
    progress.waitsFor = 'answer'

    connection.renew?.(answer.headers['set-cookie'])
    const stall = () => progress.stall(abort)
    const answered = watch(answer.body, { idle, what, stall, failure, release })
    const expectsJson = !request.headers?.accept
    if (answer.statusCode >= 300) {
      const error = await refusal(what, answer, answered, sent)
      const isOfLength = isTooLarge(error) && (error.gateway || isRequestTooLarge(error))
      if (isOfLength && sent !== undefined) this.size.refused(sent)
      throw error
    }
    if (expectsJson && request.method !== 'HEAD' && !isJson(answer.headers['content-type'])) {
      discard(answer.body)
      release()
      const reason = foreignAnswer({ status: answer.statusCode, headers: answer.headers })
      throw new CouchError(what, { error: 'bad_answer', reason, gateway: true, retryable: true })
    }
    return {
      status: answer.statusCode,
      headers: answer.headers,
      body: answered,
      discard() {
        release()
        discard(answer.body)
      }
    }
  }
}

/** Reads an answer that is a small JSON value. */
export async function readJson(response: CouchResponse): Promise<unknown> {
  const text = await collect(response.body, MAX_JSON_ANSWER)
  try {
    return JSON.parse(text.toString())
  } catch (cause) {
    throw new CouchError('answer', {
      error: 'truncated',
      reason: 'the answer is not complete JSON',
      retryable: true,
      cause
    })
  }
}

async function collect(body: AsyncIterable<Buffer>, limit: number): Promise<Buffer> {
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

interface Watched {
  idle: number
  what: string
  /** Ends the request. */
  stall: () => void
  failure: (error: unknown) => unknown
  release: () => void
}

async function* watch(
  body: Dispatcher.ResponseData['body'],
  { idle, what, stall, failure, release }: Watched
): AsyncGenerator<Buffer> {
  const pieces = body[Symbol.asyncIterator]()
  const silence = new Silence(idle, stall)
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
      // Whoever waits lets others run.
      if (wait > 1) busySince = performance.now()
      waited += wait
      received += next.value.length
      if (received >= DRIP) {
        waited = 0
        received = 0
      } else if (waited > idle) {
        throw new CouchError(what, { error: 'stalled', reason: 'the answer drips', retryable: true })
      }
      yield next.value
    }
    ended = true
  } catch (error) {
    ended = true
    discard(body)
    throw failure(error)
  } finally {
    silence.end()
    if (!ended) discard(body)
    release()
  }
}

/** Why a request was ended, by what it waited for. */
const STALLED = {
  connection: 'no connection to the database was free in time',
  unknown: 'the database did not answer in time, or no connection to it was free',
  body: 'the database stopped reading the request',
  answer: 'the database did not answer in time'
}

/** What a request waits for. */
class Progress {
  waitsFor: keyof typeof STALLED
  stalled = false

  /** @param waitsFor `unknown` where the dispatcher does not tell when there is a connection */
  constructor(waitsFor: 'connection' | 'unknown') {
    this.waitsFor = waitsFor
  }

  get reason(): string {
    return STALLED[this.waitsFor]
  }

  stall(abort: AbortController): void {
    this.stalled = true
    abort.abort(new Error(this.reason))
  }
}

/** Waits for an answer, but not beyond `signal`, which undici heeds only once a request has got its connection. */
function orAborted(
  answer: Promise<Dispatcher.ResponseData>,
  signal: AbortSignal
): Promise<Dispatcher.ResponseData> {
  const aborted = new Promise<never>((_resolve, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true })
  })
  answer.then(
    ({ body }) => signal.aborted && discard(body),
    () => undefined
  )
  return Promise.race([answer, aborted])
}

/** Passes a body on. The time that it takes to come does not count as the database's silence. */
async function* taken(
  body: AsyncIterable<Uint8Array>,
  silence: Silence,
  progress: Progress
): AsyncGenerator<Uint8Array> {
  progress.waitsFor = 'body'
  silence.pause()
  for await (const piece of body) {
    silence.wait()
    yield piece
    silence.pause()
  }
  progress.waitsFor = 'answer'
  silence.wait()
}

async function refusal(
  what: string,
  { statusCode: status, headers }: Dispatcher.ResponseData,
  body: AsyncIterable<Buffer>,
  sent: number | undefined
): Promise<CouchError> {
  const { error, reason, gateway } = refusalOf({ status, headers }, await toldBy(headers, body), sent)
  const redirect = status < 400
  return new CouchError(what, {
    status: redirect ? 0 : status,
    error: redirect ? 'bad_answer' : error,
    reason,
    gateway,
    // A 401 may be a password being rotated: `connect` is asked again.
    // A document that is refused stays refused, also where that is called a server error.
    retryable:
      redirect ||
      (error !== 'doc_validation' &&
        (status >= 500 || status === 429 || status === 408 || status === 401 || isNodeDown({ error }))),
    retryAfter: secondsToWait(headers['retry-after'])
  })
}

/** Returns the JSON of an answer; `undefined` where it is something else, or does not arrive: the status says enough. */
async function toldBy(headers: CouchResponse['headers'], body: AsyncIterable<Buffer>): Promise<unknown> {
  try {
    if (isJson(headers['content-type'])) return JSON.parse((await collect(body, 1024 * 1024)).toString())
    for await (const _ of body) break
  } catch {
    // As said.
  }
  return undefined
}

function secondsToWait(header: string | string[] | undefined): number | undefined {
  if (header === undefined) return undefined
  const seconds = Number(header)
  const wait = Number.isFinite(seconds) ? seconds * 1000 : Date.parse(String(header)) - Date.now()
  return wait > 0 ? wait : undefined
}

const isJson = (type: string | string[] | undefined) => /^application\/json\b/i.test(String(type ?? ''))

function describe(request: CouchRequest): string {
  return `${request.method ?? 'GET'} /${request.path.map((segment) => segment.slice(0, 120)).join('/')}`
}

type Body = Buffer | AsyncIterable<Uint8Array> | undefined

function bodyOf({ json, body }: CouchRequest): Body {
  if (json !== undefined) return Buffer.from(JSON.stringify(json))
  if (typeof body === 'function') return startedAnew(body)
  return typeof body === 'string' ? Buffer.from(body) : body
}

/** A host's dispatcher may repeat a request by itself: what it sends then must be the whole body, not what is left. */
const startedAnew = (start: () => AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> => ({
  [Symbol.asyncIterator]: () => start()[Symbol.asyncIterator]()
})

/** Codes of a connection that the other side has closed. */
const CLOSED = new Set(['EPIPE', 'ECONNRESET', 'UND_ERR_SOCKET'])

/** Whoever refuses a long body may close the connection so soon that its answer is lost. */
const cutOff = (code: string, sent: number | undefined) =>
  `the connection was closed (${code}) before ${sent ?? 'all'} bytes were answered: where that lasts, raise the limit of bodies before CouchDB (nginx: client_max_body_size), or set limits.requestBytes`

const unanswered = (what: string, error: string, reason: string, cause: unknown, sent?: number): CouchError =>
  new CouchError(what, { error, reason, retryable: true, cause, sent })

/** Bytes of a body that is streamed, where its length was told. */
const bytesIn = ({ 'content-length': length }: Record<string, string> = {}): number | undefined =>
  length === undefined ? undefined : Number(length)

/** The header that tells the length of a body that is sent in pieces although it is known. */
const lengthOf = (body: Body) =>
  Buffer.isBuffer(body) && body.length > 0 ? { 'content-length': String(body.length) } : undefined

/**
 * The right to write, of one request. It is asked for as the body is read, since that begins when the request has got
 * its connection, with every dispatcher a host may have; undici sends the head with the first piece, or with the end of
 * a body that has none.
 */
class Fence {
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

/** Bytes of a request's target. Servers take lines of 8 KB, CouchDB among them; a proxy may put something before it. */
const MAX_TARGET = 4096
/** Prefixes of ids whose slash stays a slash in a path. */
const SPECIAL = /^(_design|_local)\/(.*)$/s

/**
 * Whether a URL can carry a request's path and query. Where it cannot, the caller makes a request that has them in its
 * body: ids, names of attachments and revisions may have any length, and hold anything.
 */
export function fitsUrl(target: Pick<CouchRequest, 'path' | 'query'>): boolean {
  const isShort = target.path.every((segment) => segment.length <= MAX_TARGET)
  return isShort && target.path.every(isSegment) && encodePath(target).length <= MAX_TARGET
}

/** Whether a text is a segment of a path to every server on the way: an empty one and dots name another place. */
function isSegment(text: string): boolean {
  const segment = SPECIAL.exec(text)?.[2] ?? text
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  return !/^\.{0,2}$|[\u0000-\u001f\u007f]/.test(segment) && segment.isWellFormed()
}

/** Design and local documents keep the slash after their prefix, as CouchDB's paths want it. */
function encodePath({ path, query }: Pick<CouchRequest, 'path' | 'query'>): string {
  const segments = path.map((segment) => {
    const special = SPECIAL.exec(segment)
    return special ? `${special[1]}/${encodeURIComponent(special[2])}` : encodeURIComponent(segment)
  })
  const parameters = new URLSearchParams()
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== undefined) parameters.set(name, String(value))
  }
  const search = parameters.toString()
  return `/${segments.join('/')}${search ? `?${search}` : ''}`
}
