import { randomBytes } from 'node:crypto'
import type { FastifyBaseLogger } from 'fastify'
import { CouchClient } from '../couch/client.js'
import { connectionTo } from '../couch/connection.js'
import { FOREGROUND } from '../couch/retry.js'
import { ClosingError } from '../errors.js'
import { EventStream } from '../observe/event-stream.js'
import { logListener } from '../observe/log.js'
import { Metrics } from '../observe/metrics.js'
import type { ResolvedOptions } from '../options.js'
import { EXCLUDED_TYPES } from '../own-documents.js'
import { Room } from '../spool/room.js'
import { LinkedAbort } from '../waits/linked-abort.js'
import { Places } from '../waits/places.js'
import { Turns } from '../waits/turns.js'
import { within } from '../waits/within.js'
import { Downloads } from './downloads.js'

/** Requests that are answered at a time, of those that neither bring nor take a backup. */
const MOST_ANSWERED = 16
/** Requests, and appends, that may wait for a place. */
const MOST_WAITING = 256

/** Work that goes on after the call that started it, to be waited for when the server closes. */
class BackgroundJobs {
  readonly #jobs = new Set<Promise<unknown>>()

  /** Adds a job and returns it. Ignoring the promise's rejection is safe. */
  add<T>(job: Promise<T>): Promise<T> {
    this.#jobs.add(job)
    job.catch(() => undefined).finally(() => this.#jobs.delete(job))
    return job
  }

  /** Resolves when all jobs of now have ended, at the latest after `timeout` milliseconds. */
  async settled(timeout: number): Promise<void> {
    const late = () => new Error('jobs go on')
    await within(timeout, late, () => Promise.allSettled(this.#jobs)).catch(() => undefined)
  }
}

/** What one registration of the plugin has once, whatever the names of its databases. */
export class Instance {
  readonly options: Omit<ResolvedOptions, 'databases'>
  /** Names this server instance. */
  readonly name = randomBytes(8).toString('hex')
  /** For calls that somebody waits for. */
  readonly client: CouchClient
  readonly jobs = new BackgroundJobs()
  readonly events: EventStream
  readonly metrics: Metrics | undefined
  /** Types of documents that backups leave out. */
  readonly excludeTypes: ReadonlySet<string>
  /** For what is spooled of uploads. */
  readonly room: Room
  /** Those who change a header on this instance take turns. */
  readonly turns = new Turns()
  readonly downloads: Downloads
  /** For starts, restores by id and summaries. */
  readonly requests: Places
  /** For uploads, until their restores have begun. */
  readonly uploads: Places
  /** For appends, until they are stored. */
  readonly appends: Places
  readonly #deadline = new LinkedAbort()

  constructor(options: ResolvedOptions, log: FastifyBaseLogger) {
    const { couch, limits, timeouts, retry, metrics, onEvent } = options
    this.options = options
    this.client = new CouchClient({
      connect: () => connectionTo(couch),
      retry: FOREGROUND,
      control: timeouts.control,
      idle: timeouts.idle,
      requestBytes: limits.requestBytes
    })
    this.excludeTypes = new Set([...EXCLUDED_TYPES, ...options.excludeTypes])
    this.room = new Room(options.spoolDirectory, limits.spoolBytes)
    const bounds = { most: limits.downloads, idle: timeouts.idle, deadline: this.deadline }
    // Most of a backup may have arrived when the database restarts: that is waited for, as operations do.
    this.downloads = new Downloads(this.client.with({ retry }), bounds)
    this.uploads = new Places({ most: limits.uploads })
    const queue = { waiting: MOST_WAITING, patience: timeouts.control }
    this.requests = new Places({ most: MOST_ANSWERED, ...queue })
    this.appends = new Places({ most: limits.appends, ...queue })
    this.metrics = metrics && new Metrics(metrics)
    this.events = new EventStream(
      [logListener(log), this.metrics?.listener, onEvent].filter((listener) => listener !== undefined),
      (error, { type }) => log.error({ err: error, event: type }, 'a listener of events failed')
    )
  }

  /** Aborted when a closing server waits for replies no longer. */
  get deadline(): AbortSignal {
    return this.#deadline.signal
  }

  /** Ends what still replies after so many milliseconds. */
  endRepliesWithin(ms: number): void {
    this.#deadline.after(ms, () => new ClosingError())
  }

  /** Ends what still replies, and cuts the connections to the database. */
  async close(): Promise<void> {
    this.#deadline.release()
    this.#deadline.abort(new ClosingError())
    await this.client.close()
  }
}
