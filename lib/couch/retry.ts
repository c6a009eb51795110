import { setTimeout as sleep } from 'node:timers/promises'
import type { CouchServer } from '../databases.js'
import { CouchError } from './errors.js'
import type { RequestSize } from './request-size.js'

/** Milliseconds between attempts: the first wait, which doubles with every attempt, and the longest. */
interface Backoff {
  wait: number
  longest: number
}

/** How often and how long to try again after a fault that may pass. */
export interface RetryPolicy extends Backoff {
  attempts: number
  /**
   * Most attempts with refused credentials, by default 2. The second has the host's new ones, if they were changed
   * meanwhile; after a few more, CouchDB locks the account for the host itself.
   */
  unauthorized?: number
}

/** The policy while somebody waits for the reply. */
export const FOREGROUND: RetryPolicy = { attempts: 3, wait: 150, longest: 1000 }
/** The policy while a backup or a restore runs: bridges a restart of the database, and goes on soon after it. */
export const BACKGROUND: RetryPolicy = { attempts: 14, wait: 250, longest: 1500 }
/** A single attempt, for callers that count attempts themselves. */
export const ONCE: RetryPolicy = { attempts: 1, wait: 1, longest: 1 }

/** An attempt after which there will be another. */
export interface FailedAttempt {
  /** Failures in a row, this one included. */
  attempt: number
  waitMs: number
  error: CouchError
}

export interface RetrySettings {
  retry: RetryPolicy
  /** The server that errors name, where the backups have one of their own. */
  server?: CouchServer
  signal?: AbortSignal
  /** Called before each wait for a further attempt. */
  onRetry?: (retry: FailedAttempt) => void
}

/** The waits after conflicts: at first no longer than another writer takes. */
export const CONFLICT: Backoff = { wait: 5, longest: 400 }

/** Errors of calls whose attempts have all been used up: their callers do not try again. */
const givenUp = new WeakSet<CouchError>()

/** Counts the attempts of one piece of work, and waits between them. */
export class Retrier {
  readonly #settings: RetrySettings
  readonly #size: RequestSize
  #failures = 0

  /** @param size is told of requests that are cut off each time */
  constructor(settings: RetrySettings, size: RequestSize) {
    this.#settings = settings
    this.#size = size
  }

  /** Waits before the next attempt. @throws `error` when there is none */
  async failed(error: unknown): Promise<void> {
    const { retry, signal, onRetry, server } = this.#settings
    if (error instanceof CouchError && server) error.cameFrom(server)
    if (!(error instanceof CouchError) || !error.retryable || givenUp.has(error)) throw error
    const { attempts, unauthorized = 2 } = retry
    const most = error.status === 401 ? Math.min(attempts, unauthorized) : attempts
    if (++this.#failures >= most) {
      // A caller that asks for one attempt counts by itself.
      if (attempts > 1) {
        givenUp.add(error)
        // A single connection that is closed may have been a restart of the database.
        if (error.sent !== undefined) this.#size.refused(error.sent)
      }
      throw error
    }
    const waitMs = Math.min(retry.longest, Math.max(backoff(retry, this.#failures), error.retryAfter ?? 0))
    onRetry?.({ attempt: this.#failures, waitMs, error })
    await waitOn(signal, waitMs)
  }

  progressed(): void {
    this.#failures = 0
  }
}

/** Returns the milliseconds to wait after so many failures in a row, random so that clients do not meet. */
export const backoff = ({ wait, longest }: Backoff, failures: number): number =>
  Math.min(longest, wait * 2 ** (failures - 1)) * (0.5 + Math.random() / 2)

/** Waits. @throws the signal's reason */
export async function waitOn(signal: AbortSignal | undefined, ms: number): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => signal?.throwIfAborted())
}
