import { request as httpRequest, type IncomingHttpHeaders, type IncomingMessage } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { pipeline, type Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { retryAfter } from '../waits/retry-after.js'
import type { Environment } from './environment.js'
import { CliError, ConnectionError, EXIT, ReplyError } from './errors.js'

export interface ClientOptions extends Environment {
  /** How often a call that failed for the moment is made again. */
  retries: number
  /** Milliseconds of silence after which a connection is given up. */
  timeout: number
  signal: AbortSignal
  /** Told before a wait. */
  onRetry(error: CliError, wait: number): void
}

export interface Call {
  method?: 'GET' | 'POST' | 'PUT'
  /** Parts of the path below the API's root; encoded here. */
  path: readonly string[]
  query?: Record<string, string | undefined>
  headers?: Record<string, string>
  json?: object
  /** A body of known length. Opened when the connection is there. */
  upload?: { length: number; open(): Readable }
}

export interface Reply {
  status: number
  headers: IncomingHttpHeaders
  body: IncomingMessage
}

const ROOT = 'ak/api/v1'
/** Milliseconds: the first wait, which doubles each time, and the longest. */
const FIRST_WAIT = 500
const LONGEST_WAIT = 10_000
/** The longest wait that a server may ask for. */
const LONGEST_ASKED = 120_000
/** Bytes of a reply that is not a backup. */
const MAX_REPLY = 32 * 1024 * 1024
const UNSENT = new Set(['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH'])

/** Calls the HTTP API. */
export class Client {
  readonly #options: ClientOptions

  constructor(options: ClientOptions) {
    this.#options = options
  }

  /** Host, and port, of the server. */
  get host(): string {
    return this.#options.url.host
  }

  get signal(): AbortSignal {
    return this.#options.signal
  }

  /**
   * A small JSON reply. Repeated when it failed for the moment: always, where the call may be made twice, and
   * otherwise when nothing of it has reached the server.
   * @throws ReplyError, ConnectionError
   */
  async json<T extends object>(call: Call, { idempotent }: { idempotent: boolean }): Promise<T> {
    return this.retry(
      async () => readJson<T>(await this.open(call), describe(call)),
      (error) => idempotent || (error instanceof ConnectionError && error.unsent)
    )
  }

  /**
   * Calls, and again after a wait while that fails for the moment.
   * @param hasProgressed whether the attempt that failed got farther than all before, so that counting starts again
   */
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
        this.#options.onRetry(error, wait)
        await sleep(wait, undefined, { signal: this.#options.signal })
      }
    }
  }

  /** Makes one call, and returns when the reply's head has come. @throws ReplyError, ConnectionError */
  async open(call: Call): Promise<Reply> {
    const { url, authorization, timeout, signal } = this.#options
    signal.throwIfAborted()
    const target = new URL(url)
    target.pathname = [url.pathname, ROOT, ...call.path.map(encodeURIComponent)]
      .join('/')
      .replace(/^\/+/, '/')
    for (const [name, value] of Object.entries(call.query ?? {})) {
      if (value !== undefined) target.searchParams.set(name, value)
    }
    const json = call.json && Buffer.from(JSON.stringify(call.json))
    const length = json?.length ?? call.upload?.length
    const headers = {
      authorization,
      accept: 'application/json',
      'accept-encoding': 'identity',
      'user-agent': 'fastify-couchdb-backups',
      ...(length !== undefined && { 'content-type': 'application/json', 'content-length': String(length) }),
      ...call.headers
    }
    const send = target.protocol === 'https:' ? httpsRequest : httpRequest
    const request = send(target, { method: call.method ?? 'GET', headers, signal })
    const body = await new Promise<IncomingMessage>((resolve, reject) => {
      request.once('response', resolve)
      // More than one may come: a connection that breaks after an early refusal, for instance.
      request.on('error', (error: NodeJS.ErrnoException) => reject(connectionError(error)))
      request.setTimeout(timeout, () => request.destroy(new Error(`nothing came for ${timeout / 1000} s`)))
      if (!call.upload) return request.end(json)
      const source = call.upload.open()
      source.once('error', ({ message }) => reject(new CliError(EXIT.failed, message)))
      pipeline(source, request, () => undefined)
    })
    const reply: Reply = { status: body.statusCode ?? 0, headers: body.headers, body }
    if (reply.status >= 200 && reply.status < 300) return reply
    const error = await refusal(reply, describe(call))
    // The server would take the rest of an upload all the same.
    if (call.upload) request.destroy()
    throw error
  }
}

/** Whether it makes sense to try again. */
function isTransient(error: unknown): error is CliError {
  return error instanceof CliError && error.exitCode === EXIT.unavailable
}

function waitFor(error: CliError, failures: number): number {
  const asked = error instanceof ReplyError ? retryAfter(error.headers['retry-after']) : undefined
  if (asked !== undefined && asked > LONGEST_ASKED) throw error
  return asked ?? Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** (failures - 1))
}

/** The error that a reply tells. */
async function refusal(reply: Reply, what: string): Promise<ReplyError> {
  const { status, headers } = reply
  let body: Record<string, unknown> = {}
  try {
    body = JSON.parse(await readText(reply.body))
  } catch {
    // A gateway's page of HTML, or none: the status has to do.
    reply.body.destroy()
  }
  if (status >= 300 && status < 400) {
    const message = 'the server redirects: set BACKUPS_URL to where it is'
    return new ReplyError(status, headers, { message }, what)
  }
  if (typeof body !== 'object' || body === null) body = {}
  return new ReplyError(status, headers, body, what)
}

async function readJson<T extends object>({ body, status }: Reply, what: string): Promise<T> {
  const text = await readText(body)
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === 'object' && value !== null) return value as T
  } catch {
    // Told below.
  }
  throw new CliError(
    EXIT.failed,
    `${what}: the reply is not of the backup API [${status}]; is BACKUPS_URL right?`
  )
}

async function readText(body: IncomingMessage): Promise<string> {
  const pieces: Buffer[] = []
  let length = 0
  try {
    for await (const piece of body as AsyncIterable<Buffer>) {
      length += piece.length
      if (length > MAX_REPLY) throw new CliError(EXIT.failed, 'the reply is too large')
      pieces.push(piece)
    }
  } catch (error) {
    throw error instanceof CliError ? error : connectionError(error as Error)
  }
  return Buffer.concat(pieces).toString()
}

/** A failure of the network as an error to be told. */
export function connectionError(error: NodeJS.ErrnoException): Error {
  if (error.name === 'AbortError' || error instanceof CliError) return error
  const { code = '' } = error
  const reason = error.message || code || 'the connection failed'
  if (/CERT|SELF_SIGNED|UNABLE_TO|ERR_TLS/.test(code)) {
    return new CliError(
      EXIT.failed,
      `the server's certificate is not trusted: ${reason}; see NODE_EXTRA_CA_CERTS`
    )
  }
  return new ConnectionError(`the connection failed: ${reason}`, UNSENT.has(code))
}

const describe = ({ method = 'GET', path }: Call) => `${method} ${path.join('/')}`
