import { randomBytes } from 'node:crypto'
import type { FastifyBaseLogger } from 'fastify'
import { CouchClient } from '../couch/client.js'
import { type Couch, connectionTo } from '../couch/connection.js'
import { FOREGROUND } from '../couch/retry.js'
import type { CouchServer } from '../databases.js'
import { ClosingError } from '../errors.js'
import { EventStream } from '../observe/event-stream.js'
import { logListener } from '../observe/log.js'
import { Metrics } from '../observe/metrics.js'
import type { ResolvedOptions } from '../options.js'
import { type Clock, systemClock } from '../schedule/clock.js'
import { Keyring } from '../seal/keyring.js'
import { Room } from '../spool/room.js'
import { KeyedMutex } from '../waits/keyed-mutex.js'
import { LinkedAbort } from '../waits/linked-abort.js'
import { Places } from '../waits/places.js'
import { within } from '../waits/within.js'
import { Downloads } from './downloads.js'
import { RestoreHistory } from './restore-history.js'
import { RunningOperations } from './running-operations.js'
import { Transactions } from './transactions.js'

/** Short requests, without a body or a backup, that are answered at a time. */
const MOST_ANSWERED = 16
/** Requests, and appends, that may wait for a place. */
const MOST_WAITING = 256
/** Diffs that may wait until another has been read. */
const MOST_DIFFS = 16

/** Work that goes on after the call that started it. A closing server waits for it. */
class BackgroundJobs {
  readonly #jobs = new Set<Promise<unknown>>()

  /** Adds a job and returns it. Ignoring the promise's rejection is safe. */
  add<T>(job: Promise<T>): Promise<T> {
    this.#jobs.add(job)
    job.catch(() => undefined).finally(() => this.#jobs.delete(job))
    return job
  }

  /** Waits for the current jobs to end, at most `timeout` milliseconds. */
  async settled(timeout: number): Promise<void> {
    const late = () => new Error('jobs go on')
    await within(timeout, late, () => Promise.allSettled(this.#jobs)).catch(() => undefined)
  }
}

/**
 * Holds what one registration of the plugin has once, whatever the names of its databases. Classes that use one or two of
 * its members take only these; the others use options, clients and events as well, and take it whole.
 */
export class Instance {
  readonly options: Omit<ResolvedOptions, 'databases'>
  readonly name = randomBytes(8).toString('hex')
  /** Backups are dated, and scheduled, by it. */
  readonly clock: Clock
  /** Talks to the sources, for calls that somebody waits for. */
  readonly client: CouchClient
  /** Talks to the server that keeps the backups: `client` itself where that is the same. */
  readonly backups: CouchClient
  readonly jobs = new BackgroundJobs()
  readonly events: EventStream
  readonly metrics: Metrics | undefined
  readonly running = new RunningOperations()
  readonly history = new RestoreHistory()
  readonly transactions: Transactions
  /** Room on disk for spooled files. */
  readonly room: Room
  /** Runs changes of a header by this instance one after another. */
  readonly headerMutex = new KeyedMutex()
  /** Gives the keys of sealed backups. Absent without the option `encryption`. */
  readonly keyring: Keyring | undefined
  readonly downloads: Downloads
  /** Places for summaries, and for calls that begin an operation without a body. */
  readonly requests: Places
  /** Places for uploads, until their restores have begun. */
  readonly uploads: Places
  /** Places for appends, until they are stored. */
  readonly appends: Places
  /** The place for a verification without the lease: each may take as much memory as a restore. */
  readonly verifications = new Places({ most: 1 })
  /** The place for a copy. */
  readonly copies = new Places({ most: 1 })
  /** Places for diffs, from their first read to their end. */
  readonly diffs: Places
  readonly #deadline = new LinkedAbort()

  constructor(options: ResolvedOptions, log: FastifyBaseLogger, clock: Clock = systemClock) {
    const { couch, backups, limits, timeouts, retry, metrics, onEvent, encryption } = options
    this.options = options
    this.clock = clock
    const elsewhere = backups?.couch
    this.client = this.clientTo(couch, { server: elsewhere && 'databases' })
    this.backups = elsewhere
      ? this.clientTo(elsewhere, { option: 'backups.couch', server: 'backups' })
      : this.client
    this.transactions = new Transactions(options.webhooks, timeouts.webhooks)
    this.keyring = encryption && new Keyring(encryption, timeouts.key)
    this.room = new Room(options.spoolDirectory, limits.spoolBytes)
    const bounds = { most: limits.downloads, idle: timeouts.idle, deadline: this.deadline }
    // Most of a backup may have arrived when the database restarts: that is waited for, as operations do.
    this.downloads = new Downloads(this.client.with({ retry }), bounds)
    this.uploads = new Places({ most: limits.uploads })
    const queue = { waiting: MOST_WAITING, patience: timeouts.control }
    this.requests = new Places({ most: MOST_ANSWERED, ...queue })
    this.appends = new Places({ most: limits.appends, ...queue })
    this.diffs = new Places({ most: 1, ...queue, waiting: MOST_DIFFS })
    this.metrics = metrics && new Metrics(metrics)
    this.events = new EventStream(
      [logListener(log), this.metrics?.listener, this.history.listener, onEvent].filter(
        (listener) => listener !== undefined
      ),
      (error, { type }) => log.error({ err: error, event: type }, 'a listener of events failed')
    )
  }

  /** Makes a client for calls that somebody waits for. @param by the option that gives the server, and what errors call it */
  clientTo(couch: Couch, by: { option?: string; server?: CouchServer } = {}): CouchClient {
    const { timeouts, limits } = this.options
    return new CouchClient({
      connect: () => connectionTo(couch, by.option),
      retry: FOREGROUND,
      control: timeouts.control,
      idle: timeouts.idle,
      requestBytes: limits.requestBytes,
      ...(by.server && { server: by.server })
    })
  }

  get deadline(): AbortSignal {
    return this.#deadline.signal
  }

  /** Ends what still replies after so many milliseconds. */
  endRepliesWithin(ms: number): void {
    this.#deadline.after(ms, () => new ClosingError())
  }

  async close(): Promise<void> {
    this.#deadline.release()
    this.#deadline.abort(new ClosingError())
    for (const client of new Set([this.client, this.backups])) await client.close()
  }
}
