import type { Readable } from 'node:stream'
import type { FastifyBaseLogger } from 'fastify'
import type {
  BackupContent,
  BackupSummary,
  RestoreOptions,
  StartedBackup,
  StartedRestore,
  StartOptions
} from '../../types/backups.js'
import type { DbBackups } from '../../types/index.js'
import { boundedBody } from '../bytes/body.js'
import { abandon } from '../bytes/discard.js'
import { slicesOf } from '../bytes/pieces.js'
import { AppendBusyError } from '../errors.js'
import type { Operation } from '../lease/lease-document.js'
import type { ResolvedOptions } from '../options.js'
import type { Append } from '../repository/appender.js'
import { HeldBytes } from '../spool/held-bytes.js'
import { checkAttach, checkRestoreOptions, checkSource, checkStartOptions } from './arguments.js'
import { DatabaseOperations } from './database-operations.js'
import { Environment, Instance } from './environment.js'

/** Bytes of what is appended that are sent at a time. */
const PIECE = 64 * 1024

/**
 * The operations behind the HTTP API and `fastify.dbBackups`. Each call uses the names of databases as they are when it
 * begins.
 */
export class Operations implements DbBackups {
  readonly #options: ResolvedOptions
  readonly #instance: Instance
  #current: { key: string; on: DatabaseOperations } | undefined
  /** On databases that the host used before: what they run goes on. */
  readonly #former = new Map<string, DatabaseOperations>()
  #watching: NodeJS.Timeout | undefined

  constructor(options: ResolvedOptions, log: FastifyBaseLogger) {
    this.#options = options
    this.#instance = new Instance(options, log)
  }

  async start(options: StartOptions = {}): Promise<StartedBackup> {
    checkStartOptions(options)
    const now = await this.#toStart('backup')
    return now.start(options)
  }

  async restore(
    source: { id: string } | { body: Readable },
    options: RestoreOptions = {}
  ): Promise<StartedRestore> {
    checkSource(source)
    const urlOf = under(this.#options.publicUrl ?? '')
    const { id, body: given } = source as { id: string; body?: Readable }
    if (given === undefined) {
      checkRestoreOptions(options)
      return this.restoreFrom({ id }, options, urlOf)
    }
    const { limits, timeouts } = this.#options
    const body = boundedBody(given, { limit: limits.uploadBytes, idle: timeouts.idle })
    try {
      checkRestoreOptions(options)
      return await this.restoreFrom({ body }, options, urlOf)
    } catch (error) {
      // Who sends it waits for the host's reply.
      body.destroy()
      abandon(given)
      throw error
    }
  }

  /**
   * Starts a restore for a route, which takes care itself of a body that was refused.
   * @param urlOf makes a path absolute
   */
  async restoreFrom(
    source: { id: string } | { body: Readable },
    options: RestoreOptions,
    urlOf: (path: string) => string
  ): Promise<StartedRestore> {
    const now = await this.#toStart('restore')
    return now.restore(source, options, urlOf)
  }

  async get(id: string): Promise<BackupContent> {
    return this.#instance.downloads.open(() => this.#now().get(id))
  }

  async summary(id: string): Promise<BackupSummary> {
    return this.#now().summary(id)
  }

  async list(): Promise<{ ids: string[] }> {
    return this.#now().list()
  }

  async attach(
    id: string,
    name: string,
    data: string | Buffer,
    options: { contentType?: string } = {}
  ): Promise<void> {
    checkAttach(name, data, options)
    const bytes = typeof data === 'string' ? Buffer.from(data) : data
    const open = async function* () {
      // Each piece has to be taken in `timeouts.idle`.
      yield* slicesOf(bytes, PIECE)
    }
    await this.#now().append({ id, name, data: { length: bytes.length, open }, ...options })
  }

  /**
   * Stores what a request brings as an attachment of a backup.
   * @param append.signal ends with the client
   * @param read puts what is to be stored where it is kept until then
   */
  async append(append: Omit<Append, 'data'>, read: (into: HeldBytes) => Promise<void>): Promise<void> {
    const on = this.#now()
    const data = new HeldBytes(this.#instance.room)
    try {
      await this.#instance.appends.take(
        () => new AppendBusyError(append.id),
        () => read(data)
      )
      await on.append({ ...append, data })
    } finally {
      await data.clear()
    }
  }

  /** Cleans up after instances that died, now and from time to time, on the databases of then. */
  watch(): void {
    this.#watching = setInterval(() => this.#follow(), this.#options.timeouts.lease)
    this.#watching.unref()
    this.#follow()
  }

  /** Aborted when a closing server waits for replies no longer. */
  get deadline(): AbortSignal {
    return this.#instance.deadline
  }

  /** Lets what runs end, or stops it and says so, within the time-out. Downloads go on as long as that. */
  async stop(): Promise<void> {
    const { jobs } = this.#instance
    const half = this.#options.timeouts.close / 2
    this.#instance.endRepliesWithin(this.#options.timeouts.close)
    clearInterval(this.#watching)
    const all = [...this.#former.values(), ...(this.#current ? [this.#current.on] : [])]
    for (const on of all) on.refuse()
    await jobs.settled(half)
    for (const on of all) on.stop()
    await jobs.settled(half)
    for (const on of all) await on.abandon()
  }

  /** Cuts the connections to the database: nobody reads a backup any more. */
  async close(): Promise<void> {
    await this.#instance.close()
  }

  #follow(): void {
    try {
      this.#now().watch()
    } catch (error) {
      this.#instance.events.emit({ type: 'check_failed', error: error as Error })
    }
  }

  /** @throws OperationInProgressError while something runs on databases that the host used before */
  async #toStart(asked: Operation): Promise<DatabaseOperations> {
    const now = this.#now()
    for (const former of this.#former.values()) await former.refuseIfBusy(asked)
    return now
  }

  /**
   * Returns the operations on the databases of now.
   * @throws HostValueError when the host names none that can be used
   */
  #now(): DatabaseOperations {
    const { databases } = this.#options
    const key = JSON.stringify(Object.entries(databases).sort())
    if (this.#current?.key === key) return this.#current.on
    return this.#changeTo(key, Object.create(this.#options, { databases: { value: databases } }))
  }

  #changeTo(key: string, options: ResolvedOptions): DatabaseOperations {
    const former = this.#current
    former?.on.unwatch()
    if (former) this.#former.set(former.key, former.on)
    const on = this.#former.get(key) ?? new DatabaseOperations(new Environment(options, this.#instance))
    this.#former.delete(key)
    for (const [other, { busy }] of this.#former) if (!busy) this.#former.delete(other)
    this.#current = { key, on }
    return on
  }
}

const under = (origin: string) => (path: string) => `${origin}${path}`
