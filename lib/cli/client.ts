import type { IncomingHttpHeaders } from 'node:http'
import type { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Agent, Dispatcher } from 'undici'
import { retryAfter } from '../waits/retry-after.js'
import { NAME } from './command.js'
import { connectionError } from './connection-errors.js'
import type { Environment } from './environment.js'
import { CliError, ConnectionError, EXIT, NoOperatorError, ReplyError } from './errors.js'

interface ClientOptions extends Environment {
  /** How often a call that may succeed later is repeated. */
  retries: number
  /** Milliseconds of silence that end a connection. */
  timeout: number
  signal: AbortSignal
  onRetry(error: CliError, wait: number, failures: number): void
}

export interface Call {
  method?: 'GET' | 'POST' | 'PUT' | 'DELETE'
  /** Whether it is one of the operator's routes, which a host may not have. */
  operator?: true
  /** Segments of the path below the API's root, not encoded. */
  path: readonly string[]
  query?: Record<string, string | string[]>
  headers?: Record<string, string>
  json?: object
  upload?: { length: number; open(): Readable }
}

export interface Reply {
  status: number
  headers: IncomingHttpHeaders
  /** The body. Stopping early ends the connection. @throws ConnectionError */
  body: AsyncIterable<Buffer>
  /** Ends the connection of an unread body. */
  discard(): void
}

const ROOT = 'ak/api/v1'
const OPERATOR_ROOT = 'api'
/** Milliseconds between two looks at a running operation: the first and the longest. */
const FIRST_POLL = 200
const LONGEST_POLL = 2000
/** Milliseconds to wait after a failure: the first, which doubles each time, and the longest. */
const FIRST_WAIT = 500
const LONGEST_WAIT = 10_000
/** Most milliseconds that a server may ask to wait. */
const LONGEST_ASKED = 120_000
/** Bytes of a reply that is not a backup. */
const MAX_REPLY = 32 * 1024 * 1024

export class Client {
  readonly #options: ClientOptions
  #agent: Agent | undefined

  constructor(options: ClientOptions) {
    this.#options = options
  }

  get host(): string {
    return this.#options.url.host
  }

  get signal(): AbortSignal {
    return this.#options.signal
  }

  /** Calls `read` until it returns a result, at growing intervals. */
  async poll<T>(read: () => Promise<T | undefined>): Promise<T> {
    for (let wait = FIRST_POLL; ; wait = Math.min(LONGEST_POLL, wait * 1.5)) {
      const result = await read()
      if (result !== undefined) return result
      await sleep(wait, undefined, { signal: this.signal })
    }
  }

  /** Returns a JSON reply. Repeats an unsent or idempotent call. @throws ReplyError, ConnectionError */
  async json<T extends object>(call: Call, { idempotent }: { idempotent: boolean }): Promise<T> {
    return this.retry(
      async () => readJson<T>(await this.open(call), call, this.#urlOf(call)),
      (error) => idempotent || (error instanceof ConnectionError && error.unsent)
    )
  }

  /** Repeats a call while it fails for the moment. `hasProgressed` restarts the count of failures. */
  async retry<T>(
    attempt: () => Promise<T>,
    mayRepeat: (error: CliError) => boolean = () => true,
    hasProgressed: () => boolean = () => false
  ): Promise<T> {
    for (let failures = 0; ; ) {
      try {
        return await attempt()
      } catch (error) {
        this.#options.signal.throwIfAborted()
        if (!isTransient(error) || !mayRepeat(error)) throw error
        if (hasProgressed()) failures = 0
        if (++failures > this.#options.retries) throw error
        const wait = waitFor(error, failures)
        this.#options.onRetry(error, wait, failures)
        await sleep(wait, undefined, { signal: this.#options.signal })
      }
    }
  }

  /** Makes one call. Returns when the reply's head has come. @throws ReplyError, ConnectionError */
  async open(call: Call): Promise<Reply> {
    const { authorization, signal } = this.#options
    const url = this.#urlOf(call)
    signal.throwIfAborted()
    const json = call.json && Buffer.from(JSON.stringify(call.json))
    const length = json?.length ?? call.upload?.length
    const headers = {
      authorization,
      accept: 'application/json',
      'accept-encoding': 'identity',
      'user-agent': NAME,
      // Pages of another origin cannot send this: the operator's routes take it for a sign that no such page asks.
      ...(call.operator && { 'x-requested-with': NAME }),
      ...(length !== undefined && { 'content-type': 'application/json', 'content-length': String(length) }),
      ...call.headers
    }
    const root = call.operator ? OPERATOR_ROOT : ROOT
    const path = [url.pathname, root, ...call.path.map(encodeURIComponent)].join('/').replace(/^\/+/, '/')
    const { method = 'GET', query } = call
    const body = json ?? call.upload?.open()
    const request = { origin: url.origin, path, query, method, headers, body, signal }
    const reply = await this.#send(request, url.host)
    if (reply.status >= 200 && reply.status < 300) return reply
    throw await refusal(reply, call, url)
  }

  #urlOf({ operator }: Call): URL {
    return operator ? this.#options.operatorUrl : this.#options.url
  }

  async #send(request: Dispatcher.RequestOptions, host: string): Promise<Reply> {
    const { timeout } = this.#options
    try {
      // Loaded only for calls: help and version need not wait for it.
      const { Agent } = require('undici') as typeof import('undici')
      this.#agent ??= new Agent({ connect: { timeout }, headersTimeout: timeout, bodyTimeout: timeout })
      const { statusCode: status, headers, body } = await this.#agent.request(request)
      // An unread body fails, which is of no interest then.
      body.on('error', () => undefined)
      const discard = () => void body.destroy()
      return {
        status,
        headers: headers as IncomingHttpHeaders,
        body: piecesOf(body, host, timeout),
        discard
      }
    } catch (error) {
      throw connectionError(error as Error, host, timeout)
    }
  }
}

/** Yields a body's pieces. Only failures of reading count as the connection's. @throws ConnectionError */
async function* piecesOf(body: Readable, host: string, timeout: number): AsyncGenerator<Buffer> {
  try {
    yield* body as AsyncIterable<Buffer>
  } catch (error) {
    throw connectionError(error as Error, host, timeout)
  }
}

const isTransient = (error: unknown): error is CliError =>
  error instanceof CliError && error.exitCode === EXIT.unavailable

/** Returns the milliseconds to wait. @throws `error` when the server asks for too many */
function waitFor(error: CliError, failures: number): number {
  const asked = error instanceof ReplyError ? retryAfter(error.headers['retry-after']) : undefined
  if (asked !== undefined && asked > LONGEST_ASKED) throw error
  return asked ?? Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** (failures - 1))
}

async function refusal(reply: Reply, call: Call, url: URL): Promise<CliError> {
  const { status, headers } = reply
  let body: unknown
  try {
    body = JSON.parse(await readText(reply.body))
  } catch {
    // A gateway's HTML, or nothing: the status has to do.
  }
  if (status >= 300 && status < 400)
    body = { message: `the server redirects: set ${addressOf(call)} to where it is` }
  const members: Record<string, unknown> = typeof body === 'object' ? { ...body } : {}
  // The routes of the plugin have a code; what has none was not sent by them.
  if (call.operator && status === 404 && !/^DB_BACKUPS_/.test(String(members.code)))
    return new NoOperatorError(url)
  return new ReplyError(status, headers, members, describe(call))
}

async function readJson<T extends object>({ body, status }: Reply, call: Call, url: URL): Promise<T> {
  const text = await readText(body)
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === 'object' && value !== null) return value as T
  } catch {
    // The throw below tells.
  }
  if (call.operator) throw new NoOperatorError(url)
  throw new CliError(
    `${describe(call)}: the reply is not of the backup API [${status}]; is BACKUPS_URL right?`
  )
}

async function readText(body: Reply['body']): Promise<string> {
  const pieces: Buffer[] = []
  let length = 0
  for await (const piece of body) {
    length += piece.length
    if (length > MAX_REPLY) throw new CliError('the reply is too large')
    pieces.push(piece)
  }
  return Buffer.concat(pieces).toString()
}

const addressOf = ({ operator }: Call) => (operator ? 'BACKUPS_OPERATOR_URL' : 'BACKUPS_URL')

const describe = ({ method = 'GET', path }: Call) => `${method} ${path.join('/')}`
