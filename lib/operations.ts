import type { Readable } from 'node:stream'
import type { FastifyBaseLogger } from 'fastify'
import type {
  BackupContent,
  BackupSummary,
  RestoreOptions,
  StartedBackup,
  StartedRestore
} from '../types/backups.js'
import type { DbBackups } from '../types/index.js'
import { putAttachment } from './backup/append-attachment.js'
import { backupContent, summaryOf } from './backup/content.js'
import { abandon } from './discard.js'
import { Backups } from './operations/backups.js'
import { ClientNotices } from './operations/client-notices.js'
import { Environment } from './operations/environment.js'
import { foreground } from './operations/foreground.js'
import { Leftovers } from './operations/leftovers.js'
import { Recovery } from './operations/recovery.js'
import { Restores } from './operations/restores.js'
import { RunningOperations } from './operations/running-operations.js'
import { Transactions, transactionPath } from './operations/transactions.js'
import { Watch } from './operations/watch.js'
import type { ResolvedOptions } from './options.js'

/** The operations behind the HTTP API and `fastify.dbBackups`. */
export class Operations implements DbBackups {
  readonly #environment: Environment
  readonly #notices: ClientNotices
  readonly #running: RunningOperations
  readonly #recovery: Recovery
  readonly #watch: Watch
  readonly #backups: Backups
  readonly #restores: Restores

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
  }

  async start(): Promise<StartedBackup> {
    return foreground(() => this.#backups.start())
  }

  async restore(
    source: { id: string } | { body: Readable },
    options: RestoreOptions = {}
  ): Promise<StartedRestore> {
    const { publicUrl = '' } = this.#environment.options
    try {
      return await this.restoreFrom(source, options, (path) => `${publicUrl}${path}`)
    } catch (error) {
      if ('body' in source) abandon(source.body)
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
    return foreground(() => this.#restores.start(source, options, (txId) => urlOf(transactionPath(txId))))
  }

  async get(id: string): Promise<BackupContent> {
    const environment = this.#environment
    return foreground(async () =>
      backupContent(environment.store, await environment.load(id), environment.readOptions())
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
    const environment = this.#environment
    return foreground(async () => {
      await environment.load(id)
      const bytes = typeof data === 'string' ? Buffer.from(data) : data
      await putAttachment(environment.store.db, id, name, bytes, options.contentType)
    })
  }

  /** Cleans up after instances that died, now and from time to time. */
  watch(): void {
    this.#watch.start()
  }

  /** Lets what runs end, or stops it and says so, within the time-out. */
  async stop(): Promise<void> {
    const { jobs, options } = this.#environment
    const half = options.timeouts.close / 2
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
    await this.#environment.client.close()
  }
}
