import type { Readable } from 'node:stream'
import type { FastifyBaseLogger } from 'fastify'
import type {
  BackupContent,
  BackupSummary,
  RestoreOptions,
  StartedBackup,
  StartedRestore,
  StartOptions
} from '../types/backups.js'
import type { DbBackups } from '../types/index.js'
import { type Append, Appender } from './backup/append-attachment.js'
import { backupContent, summaryOf } from './backup/content.js'
import { Backups } from './operations/backups.js'
import { ClientNotices } from './operations/client-notices.js'
import { Downloads } from './operations/downloads.js'
import { Environment } from './operations/environment.js'
import { foreground } from './operations/foreground.js'
import { Leftovers } from './operations/leftovers.js'
import { Recovery } from './operations/recovery.js'
import { Restores } from './operations/restores.js'
import { RunningOperations } from './operations/running-operations.js'
import { Transactions, transactionPath } from './operations/transactions.js'
import { Watch } from './operations/watch.js'
import type { ResolvedOptions } from './options.js'
import { HeldBytes } from './spool/held-bytes.js'

/** The operations behind the HTTP API and `fastify.dbBackups`. */
export class Operations implements DbBackups {
  readonly #environment: Environment
  readonly #notices: ClientNotices
  readonly #running: RunningOperations
  readonly #recovery: Recovery
  readonly #watch: Watch
  readonly #backups: Backups
  readonly #restores: Restores
  readonly #downloads: Downloads
  readonly #deadline = new AbortController()
  readonly #appender: Appender

  constructor(options: ResolvedOptions, log: FastifyBaseLogger) {
    const environment = new Environment(options, log)
    const transactions = new Transactions(options.webhooks, options.timeouts.webhooks)
    const notices = new ClientNotices(environment, transactions)
    const running = new RunningOperations(environment, transactions, notices, () => this.#recovery.recover())
    this.#environment = environment
    this.#notices = notices
    this.#running = running
    const leftovers = new Leftovers(environment, running)
    this.#recovery = new Recovery(environment, running, transactions, leftovers)
    this.#watch = new Watch(environment, this.#recovery, notices, leftovers)
    this.#backups = new Backups(environment, running, leftovers)
    this.#restores = new Restores(environment, running, transactions, notices)
    const { limits, timeouts } = options
    const bounds = { most: limits.downloads, idle: timeouts.idle, deadline: this.deadline }
    this.#downloads = new Downloads(environment.client, bounds)
    const load = (id: string) => environment.load(id)
    this.#appender = new Appender(environment.store, load, limits, timeouts.control)
  }

  async start(options: StartOptions = {}): Promise<StartedBackup> {
    return foreground(() => this.#backups.start(options))
  }

  /** @param urlOf makes a path absolute; callers without a request have `publicUrl`, or nothing */
  async restore(
    source: { id: string } | { body: Readable },
    options: RestoreOptions = {},
    urlOf = (path: string) => `${this.#environment.options.publicUrl ?? ''}${path}`
  ): Promise<StartedRestore> {
    return foreground(() => this.#restores.start(source, options, (txId) => urlOf(transactionPath(txId))))
  }

  async get(id: string): Promise<BackupContent> {
    const { store } = this.#environment
    this.#downloads.refuseIfFull()
    return foreground(async () =>
      backupContent(await this.#environment.load(id), {
        ...this.#environment.readOptions(),
        stream: (read) => this.#downloads.stream((client) => read(store.on(client)))
      })
    )
  }

  async summary(id: string): Promise<BackupSummary> {
    return foreground(async () => summaryOf(await this.#environment.load(id)))
  }

  async list(): Promise<{ ids: string[] }> {
    return foreground(async () => ({ ids: await this.#environment.store.list() }))
  }

  async attach(
    id: string,
    name: string,
    data: string | Buffer,
    options: { contentType?: string } = {}
  ): Promise<void> {
    const bytes = typeof data === 'string' ? Buffer.from(data) : data
    const open = async function* () {
      yield bytes
    }
    await this.#append({ id, name, data: { length: bytes.length, open }, ...options })
  }

  /**
   * Stores what a request brings as an attachment of a backup.
   * @param append.signal ends with the client
   * @param read puts what is to be stored where it is kept until then
   */
  async append(append: Omit<Append, 'data'>, read: (into: HeldBytes) => Promise<void>): Promise<void> {
    const data = new HeldBytes(this.#environment.room)
    try {
      await read(data)
      await this.#append({ ...append, data })
    } finally {
      await data.clear()
    }
  }

  async #append(append: Append): Promise<void> {
    return foreground(() => this.#appender.append(append))
  }

  /** Cleans up after instances that died, now and from time to time. */
  watch(): void {
    this.#watch.start()
  }

  /** Aborted when a closing server waits for replies no longer. */
  get deadline(): AbortSignal {
    return this.#deadline.signal
  }

  /** Lets what runs end, or stops it and says so, within the time-out. Downloads go on as long as that. */
  async stop(): Promise<void> {
    const { jobs, options } = this.#environment
    const half = options.timeouts.close / 2
    const late = setTimeout(() => this.#deadline.abort(), options.timeouts.close)
    this.deadline.addEventListener('abort', () => clearTimeout(late), { once: true })
    this.#running.close()
    this.#watch.stop()
    await jobs.settled(half)
    this.#running.stop()
    this.#notices.stop()
    await jobs.settled(half)
    this.#running.abandonAll()
    await this.#notices.close()
  }

  /** Cuts the connections to the database: nobody reads a backup any more. */
  async close(): Promise<void> {
    this.#deadline.abort()
    await this.#environment.client.close()
  }
}
