import { Readable } from 'node:stream'
import type {
  BackupContent,
  BackupSummary,
  RestoreOptions,
  StartedBackup,
  StartedRestore,
  StartOptions
} from '../../types/backups.js'
import { backupContent, summaryOf } from '../format/content.js'
import type { Operation } from '../lease/lease-document.js'
import type { Append, Appender } from '../repository/appender.js'
import type { LoadedBackup } from '../repository/read-header.js'
import { Backups } from './backups.js'
import { ClientNotices } from './client-notices.js'
import type { Environment } from './environment.js'
import { foreground } from './foreground.js'
import { Leftovers } from './leftovers.js'
import { Recovery } from './recovery.js'
import { Restores } from './restores.js'
import { RunningOperations } from './running-operations.js'
import { Transactions, transactionPath } from './transactions.js'
import { Watch } from './watch.js'

/** The operations on the databases of one set of names: an operation ends on those on which it has begun. */
export class DatabaseOperations {
  readonly #environment: Environment
  readonly #notices: ClientNotices
  readonly #running: RunningOperations
  readonly #leftovers: Leftovers
  readonly #recovery: Recovery
  readonly #backups: Backups
  readonly #restores: Restores
  readonly #appender: Appender
  #watch: Watch | undefined

  constructor(environment: Environment) {
    const { limits, timeouts, webhooks } = environment.options
    const transactions = new Transactions(webhooks, timeouts.webhooks)
    const notices = new ClientNotices(environment, transactions)
    const running = new RunningOperations(environment, transactions, notices, () => this.#recovery.recover())
    this.#environment = environment
    this.#notices = notices
    this.#running = running
    this.#leftovers = new Leftovers(environment, running)
    this.#recovery = new Recovery(environment, running, transactions, this.#leftovers)
    this.#backups = new Backups(environment, running, this.#leftovers)
    this.#restores = new Restores(environment, running, transactions, notices)
    this.#appender = environment.store.appender(limits, timeouts.control)
  }

  /** Whether an operation of this instance holds the lease. */
  get busy(): boolean {
    return this.#running.busy
  }

  /** @throws OperationInProgressError while one does, which is not just leaving */
  async refuseIfBusy(asked: Operation): Promise<void> {
    if (this.busy) await foreground(() => this.#running.refuseIfRunning(asked))
  }

  async start(options: StartOptions): Promise<StartedBackup> {
    return foreground(() => this.#backups.start(options))
  }

  /** @param urlOf makes a path absolute */
  async restore(
    source: { id: string } | { body: Readable },
    options: RestoreOptions,
    urlOf: (path: string) => string
  ): Promise<StartedRestore> {
    return foreground(() => this.#restores.start(source, options, (txId) => urlOf(transactionPath(txId))))
  }

  async get(id: string): Promise<BackupContent> {
    const { downloads, store } = this.#environment
    return foreground(async () => {
      const loaded = await this.#environment.load(id)
      return backupContent(loaded, {
        ...this.#environment.readOptions(),
        stream: isShort(loaded)
          ? (read) => Readable.from(read(store), { objectMode: false })
          : (read) => downloads.stream((client) => read(store.on(client)))
      })
    })
  }

  async summary(id: string): Promise<BackupSummary> {
    return foreground(async () => summaryOf(await this.#environment.load(id)))
  }

  async list(): Promise<{ ids: string[] }> {
    return foreground(async () => ({ ids: await this.#environment.store.list() }))
  }

  async append(append: Append): Promise<void> {
    return foreground(() => this.#appender.append(append))
  }

  /** Cleans up after instances that died, now and from time to time. */
  watch(): void {
    if (this.#watch) return
    this.#watch = new Watch(this.#environment, this.#recovery, this.#notices, this.#leftovers)
    this.#watch.start()
  }

  /** Leaves that to others. */
  unwatch(): void {
    this.#watch?.stop()
    this.#watch = undefined
  }

  /** Begins nothing any more. */
  refuse(): void {
    this.#running.close()
    this.unwatch()
  }

  /** Stops what runs; its end is still written down. */
  stop(): void {
    this.#running.stop()
    this.#notices.stop()
  }

  /** Leaves what has not stopped. */
  async abandon(): Promise<void> {
    this.#running.abandonAll()
    await this.#notices.close()
  }
}

/** Whether what is sent of a backup is its header alone: clients that follow a running one need no place for it. */
const isShort = ({ header }: LoadedBackup) =>
  header.in_progress === true && Object.keys(header._attachments ?? {}).length === 0
