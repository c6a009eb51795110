import type { Static, TSchema } from '@sinclair/typebox'
import { LinkedAbort } from '../waits/linked-abort.js'
import { Shared } from './agents.js'
import { checked } from './answers.js'
import { Attempt, type AttemptSettings } from './attempt.js'
import { CouchError } from './errors.js'
import type { CouchRequest } from './request.js'
import type { RequestSize } from './request-size.js'
import { type CouchResponse, type Headers, readJson } from './response.js'
import { backoff, CONFLICT, ONCE, Retrier, type RetrySettings, waitOn } from './retry.js'

export interface ClientSettings extends AttemptSettings, RetrySettings {
  /** Milliseconds for a whole control call. */
  control: number
  /** Bytes of the largest request that can be divided. */
  requestBytes?: number
}

/**
 * Talks HTTP to CouchDB: streams both ways, notices cut and silent answers, and throws {@link CouchError}.
 * Every call is retried by the policy of its client: for a value until it has come, for a stream until it
 * begins. {@link once} makes single attempts. {@link retry} repeats work of several calls.
 */
export class CouchClient {
  readonly settings: ClientSettings
  readonly #shared: Shared
  readonly #use: keyof Shared['agents']

  constructor(
    settings: ClientSettings,
    shared = new Shared(settings.requestBytes),
    use: keyof Shared['agents'] = 'common'
  ) {
    this.settings = settings
    this.#shared = shared
    this.#use = use
  }

  with(settings: Partial<ClientSettings>): CouchClient {
    return new CouchClient({ ...this.settings, ...settings }, this.#shared, this.#use)
  }

  /** Returns a client that makes one attempt of each call, for callers that count attempts themselves. */
  get once(): CouchClient {
    return this.with({ retry: ONCE })
  }

  /** Returns a client on the connections for one use. A dispatcher of the host's nano serves all uses. */
  for(use: keyof Shared['agents']): CouchClient {
    return new CouchClient(this.settings, this.#shared, use)
  }

  /** Returns a client on these connections that works as another does: its use, retries, signal and fence. */
  like(other: CouchClient): CouchClient {
    const { connect, requestBytes, server } = this.settings
    return new CouchClient({ ...other.settings, connect, requestBytes, server }, this.#shared, other.#use)
  }

  /** Returns whether another client talks to the same server. */
  isSameServer(other: CouchClient): boolean {
    if (this.#shared === other.#shared) return true
    const [own, others] = [this, other].map(({ settings }) => settings.connect())
    return own.origin === others.origin && own.basePath === others.basePath
  }

  /** Returns the largest request that the server takes, learned by all clients on the same connections. */
  get size(): RequestSize {
    return this.#shared.size
  }

  /** Ends the connections of all clients that share them. */
  close(): Promise<void> {
    return this.#shared.close()
  }

  /** Runs `work` again after faults that may pass, unless a call in it has given up on them. */
  async retry<T>(work: () => Promise<T>): Promise<T> {
    const retrier = this.retrier()
    for (;;) {
      try {
        return await work()
      } catch (error) {
        await retrier.failed(error)
      }
    }
  }

  /** Returns what {@link retry} counts with, for loops that go on where they failed. */
  retrier(): Retrier {
    return new Retrier(this.settings, this.size)
  }

  /** Waits before a write is tried again after the conflict of its `attempt`, counted from 1. */
  afterConflict(attempt: number): Promise<void> {
    return waitOn(this.settings.signal, backoff(CONFLICT, attempt))
  }

  /** Makes a call whose answer tells no more than that it has succeeded. */
  async send(request: CouchRequest): Promise<void> {
    await this.answer(request, () => undefined)
  }

  /** Makes a call whose answer is a small JSON value. @throws CouchError also where it has not the shape of `schema` */
  json<S extends TSchema>(request: CouchRequest, schema: S): Promise<Static<S>> {
    return this.answer(request, (json) => checked(schema, json, request.path.join('/')))
  }

  /** Makes a call whose answer is a small JSON value. An error from `read` counts as a failure of the call. */
  async answer<T>(
    request: CouchRequest,
    read: (json: unknown, status: number, headers: Headers) => T
  ): Promise<T> {
    return this.retry(async () => {
      const deadline = new LinkedAbort().after(this.settings.control, () => new Error('deadline'))
      try {
        const response = await this.#attempt(request, deadline.signal)
        return read(await readJson(response), response.status, response.headers)
      } finally {
        deadline.release()
      }
    })
  }

  /** Makes a call with a streamed answer, which `deadline` ends too. Later failures are the caller's. */
  async stream(request: CouchRequest, deadline?: AbortSignal): Promise<CouchResponse> {
    return this.retry(() => this.#attempt(request, deadline))
  }

  async #attempt(request: CouchRequest, deadline?: AbortSignal): Promise<CouchResponse> {
    const attempt = new Attempt(request, this.settings, deadline)
    try {
      return await attempt.send(this.#shared.agents[this.#use])
    } catch (error) {
      if (error instanceof CouchError && error.status === 413 && error.sent !== undefined)
        this.size.refused(error.sent)
      throw error
    }
  }
}
