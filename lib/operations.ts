import { randomBytes } from 'node:crypto'
import type { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyBaseLogger } from 'fastify'
import type {
  BackupContent,
  BackupSummary,
  Requester,
  RestoreOptions,
  RestoreOutcome,
  StartedBackup,
  StartedRestore
} from '../types/backups.js'
import type { LogicalDatabase } from '../types/databases.js'
import type { BackupEvent } from '../types/events.js'
import type { DbBackups } from '../types/index.js'
import type { TransactionUpdate, WebhookDelivery, WebhookTransaction } from '../types/webhooks.js'
import { putAttachment } from './backup/append-attachment.js'
import { markFailed, newHeader, runBackup } from './backup/backup-job.js'
import { backupContent, summaryOf } from './backup/content.js'
import { CouchClient, FOREGROUND } from './couch/client.js'
import { connectionOf } from './couch/connection.js'
import { CouchDatabase } from './couch/database.js'
import { CouchError, isUnavailable } from './couch/errors.js'
import {
  BackupNotFoundError,
  BackupNotRestorableError,
  ClosingError,
  DatabaseUnavailableError,
  InvalidParameterError,
  OperationInProgressError
} from './errors.js'
import type { ResolvedOptions } from './options.js'
import { IncompleteRestoreError, runRestore, TOTAL_STEPS } from './restore/restore-job.js'
import type { RestoreSource } from './restore/source.js'
import { Spool } from './restore/spool.js'
import { SpooledSource } from './restore/spooled-source.js'
import { StoredSource } from './restore/stored-source.js'
import { BackupStore, type LoadedBackup } from './store/backup-store.js'
import { Lease, LeaseHeldError, type LeaseHolder, LeaseLostError, type Operation } from './store/lease.js'
import { backupId, EXCLUDED_TYPES, isBackupId, LEASE_TYPE } from './store/names.js'
import { RefusedUrlError } from './webhooks/address.js'
import { Notifier } from './webhooks/notifier.js'
import { within } from './within.js'

/** Types of documents that are never restored from an upload. */
const INTERNAL_TYPES = new Set([
  ...EXCLUDED_TYPES.filter((type) => type.startsWith('athena_')),
  LEASE_TYPE,
  'session_athena'
])
const MAX_BACKUP_ID = 64
/** How often, and how many milliseconds apart, to look whether an operation that is over has given the lease back. */
const LEAVE_ATTEMPTS = 40
const LEAVE_WAIT = 50
/** What clients of the transaction are told to expect; a restore takes as long as it takes. */
const TX_TIMEOUT = 10 * 60_000

/** An operation that holds the lease. */
interface Running {
  lease: Lease
  /** Ends with the lease, or when the server closes. */
  abort: AbortController
  /** For the work: stops with `abort`, and never writes without the lease. */
  work: CouchClient
  /** For the end of the work, whatever ended it. */
  end: CouchClient
}

/** The operations behind the HTTP API and `fastify.dbBackups`. */
export class Operations implements DbBackups {
  readonly #options: ResolvedOptions
  readonly #log: FastifyBaseLogger
  readonly #instance = randomBytes(8).toString('hex')
  readonly #client: CouchClient
  readonly #store: BackupStore
  readonly #notifier: Notifier
  readonly #excludeTypes: ReadonlySet<string>
  readonly #jobs = new Set<Promise<unknown>>()
  readonly #running = new Set<Running>()
  /** Ends deliveries to clients' webhooks. */
  readonly #shutdown = new AbortController()
  #watcher: NodeJS.Timeout | undefined
  /** Transactions whose clients this instance is telling. */
  readonly #notifying = new Set<string>()
  #closing = false

  constructor(options: ResolvedOptions, log: FastifyBaseLogger) {
    const { couch, timeouts, databases } = options
    this.#options = options
    this.#log = log
    this.#client = new CouchClient({
      connect: () => connectionOf(typeof couch === 'function' ? couch() : couch),
      retry: FOREGROUND,
      control: timeouts.control,
      idle: timeouts.idle
    })
    this.#store = new BackupStore(new CouchDatabase(this.#client, databases.backups))
    this.#notifier = new Notifier(options.clientWebhook)
    this.#excludeTypes = new Set([...EXCLUDED_TYPES, ...options.excludeTypes])
  }

  async start(_requester?: Requester): Promise<StartedBackup> {
    return this.#foreground(async () => {
      const versions = await this.#versions()
      for (let timestamp = Date.now(); ; timestamp++) {
        const id = backupId(timestamp)
        const running = await this.#begin('backup', id)
        try {
          const store = this.#storeOn(running.end)
          if (await store.create(id, newHeader(timestamp, this.#instance, versions))) {
            return { id, finished: this.#background(this.#backup(id, running)) }
          }
        } catch (error) {
          // The header may have been written all the same.
          await this.#endFailed(running, error, () => this.#failBackup(id, running, reasonOf(error)))
          throw error
        }
        await this.#end(running)
      }
    })
  }

  async restore(
    source: { id: string } | { body: Readable },
    options: RestoreOptions = {},
    urlOf: (txId: string) => string = (txId) => this.transactionUrl(txId)
  ): Promise<StartedRestore> {
    return this.#foreground(async () => {
      const txId = randomBytes(16).toString('hex')
      await this.#refuseIfRunning('restore')
      if (options.clientWebhookUrl !== undefined) await this.#checkWebhookUrl(options.clientWebhookUrl)
      return 'id' in source
        ? this.#restoreStored(txId, source.id, options, urlOf)
        : this.#restoreUpload(txId, source.body, options, urlOf)
    })
  }

  async get(id: string): Promise<BackupContent> {
    return this.#foreground(async () => backupContent(this.#store, await this.#load(id), this.#readOptions()))
  }

  async summary(id: string): Promise<BackupSummary> {
    return this.#foreground(async () => summaryOf(await this.#load(id)))
  }

  async list(): Promise<{ ids: string[] }> {
    return this.#foreground(async () => ({ ids: await this.#store.list() }))
  }

  async attach(
    id: string,
    name: string,
    data: string | Buffer,
    options: { contentType?: string } = {}
  ): Promise<void> {
    return this.#foreground(async () => {
      await this.#load(id)
      await putAttachment(this.#store.db, id, name, Buffer.from(data as string), options.contentType)
    })
  }

  /** Where a transaction can be read, for callers without a request. */
  transactionUrl(txId: string): string {
    return `${this.#options.publicUrl ?? ''}/ak/api/v1/webhooks/txs/${txId}`
  }

  /** Cleans up after instances that died, now and from time to time. */
  watch(): void {
    const check = () =>
      void this.#background(
        this.recover()
          .then(() => this.#notifyOverdue())
          .catch((error: unknown) => {
            this.#log.warn(
              { err: error },
              'could not look for interrupted backups and restores; will try again'
            )
          })
      )
    this.#watcher = setInterval(check, this.#options.timeouts.lease)
    this.#watcher.unref()
    check()
  }

  /** Ends what an instance that died has left: its backup is marked, its restore's transaction told. */
  async recover(): Promise<void> {
    const { lease: ttl } = this.#options.timeouts
    const found = await Lease.inspect(this.#store.db, ttl)
    if (!found?.stale || this.#closing) return
    const { operation, id } = found.holder
    const running = await this.#acquire(operation, { operation, id, instance: this.#instance })
    try {
      this.#log.warn({ operation, id }, 'found an interrupted operation')
      if (operation === 'backup')
        await this.#failBackup(id, running, 'interrupted: the server stopped while the backup was running')
      else
        await this.#failRestore(
          id,
          'interrupted: the server stopped while the restore was running; run it again'
        )
    } catch (error) {
      running.lease.abandon()
      this.#running.delete(running)
      throw error
    }
    await this.#end(running, operation === 'restore' ? id : undefined)
  }

  /** Lets what runs end, or stops it and says so, within the time-out. */
  async close(): Promise<void> {
    this.#closing = true
    clearInterval(this.#watcher)
    const { close } = this.#options.timeouts
    await this.#settled(close / 2)
    for (const { abort } of this.#running) abort.abort(new ClosingError())
    this.#shutdown.abort()
    await this.#settled(close / 2)
    for (const { lease } of this.#running) lease.abandon()
    await this.#notifier.close()
    await this.#client.close()
  }

  async #settled(timeout: number): Promise<void> {
    if (this.#jobs.size === 0) return
    let timer: NodeJS.Timeout | undefined
    const late = new Promise((resolve) => {
      timer = setTimeout(resolve, timeout)
    })
    await Promise.race([Promise.allSettled(this.#jobs), late])
    clearTimeout(timer)
  }

  async #backup(id: string, running: Running): Promise<BackupSummary> {
    const startedAt = performance.now()
    this.#emit({ type: 'backup_started', id })
    try {
      await runBackup({
        id,
        sources: this.#databasesOn(running.work),
        store: this.#storeOn(running.work),
        excludeTypes: this.#excludeTypes
      })
      const backup = summaryOf(await this.#load(id))
      await this.#end(running)
      this.#emit({ type: 'backup_finished', id, durationMs: performance.now() - startedAt, backup })
      return backup
    } catch (error) {
      await this.#endFailed(running, error, () => this.#failBackup(id, running, reasonOf(error)))
      this.#emit({
        type: 'backup_failed',
        id,
        durationMs: performance.now() - startedAt,
        error: error as Error
      })
      throw error
    }
  }

  async #restoreStored(
    txId: string,
    id: string,
    options: RestoreOptions,
    urlOf: (txId: string) => string
  ): Promise<StartedRestore> {
    const loaded = await this.#load(id)
    refuseUnusable(loaded.header)
    const { header } = loaded
    const open = (running: Running): Promise<RestoreSource> => {
      const store = this.#storeOn(running.work)
      if (loaded.kind === 'chunks') return StoredSource.open(store, loaded.header, () => this.#makeSpool())
      return this.#spoolLegacy(store, header._id)
    }
    return this.#beginRestore(txId, options, urlOf, open, id)
  }

  async #restoreUpload(
    txId: string,
    body: Readable,
    options: RestoreOptions,
    urlOf: (txId: string) => string
  ): Promise<StartedRestore> {
    const source = await SpooledSource.read(body, await this.#makeSpool(), this.#readOptions())
    try {
      const { members } = source
      refuseUnusable(members)
      const { client_webhook_url: url } = members
      if (url !== undefined) await this.#checkWebhookUrl(url)
      const clientWebhookUrl = (url as string | undefined) ?? options.clientWebhookUrl
      const started = await this.#beginRestore(
        txId,
        { ...options, clientWebhookUrl },
        urlOf,
        async () => source
      )
      // A restore that fails early does not get as far as to open, and close, its source.
      this.#background(started.finished.finally(() => source.close()))
      return started
    } catch (error) {
      await source.close()
      throw error
    }
  }

  async #spoolLegacy(store: BackupStore, id: string): Promise<RestoreSource> {
    return store.db.client.retry(async () => {
      const { body } = await store.db.client.streamOnce({ path: [store.db.name, id] })
      return SpooledSource.read(body, await this.#makeSpool(), this.#readOptions())
    })
  }

  async #beginRestore(
    txId: string,
    options: RestoreOptions,
    urlOf: (txId: string) => string,
    open: (running: Running) => Promise<RestoreSource>,
    backup?: string
  ): Promise<StartedRestore> {
    const running = await this.#begin('restore', txId)
    try {
      await this.#options.webhooks.create(newTransaction(txId, urlOf(txId), options, backup))
    } catch (error) {
      // The transaction may have been written all the same.
      await this.#endFailed(running, error, () => this.#failRestore(txId, reasonOf(error)), txId)
      throw error
    }
    return { tx_id: txId, finished: this.#background(this.#restore(txId, options, running, open, backup)) }
  }

  async #restore(
    txId: string,
    options: RestoreOptions,
    running: Running,
    open: (running: Running) => Promise<RestoreSource>,
    backup: string | undefined
  ): Promise<RestoreOutcome> {
    const startedAt = performance.now()
    const about = { tx_id: txId, backup_id: backup }
    this.#emit({ type: 'restore_started', ...about })
    const dryRun = options.dryRun ?? false
    try {
      const outcome = await runRestore({
        txId,
        openSource: () => open(running),
        targets: this.#databasesOn(running.work),
        skip: options.skip ?? {},
        internalTypes: INTERNAL_TYPES,
        excludeTypes: this.#excludeTypes,
        dryRun,
        exact: options.exact ?? false,
        tell: async (update) => {
          running.lease.check()
          await this.#options.webhooks.update(txId, update)
        },
        rebuildWhitelist: () => this.#rebuildWhitelist(txId)
      })
      running.abort.signal.throwIfAborted()
      running.lease.check()
      await this.#completeTransaction(
        txId,
        {
          status: 'success',
          on_step: TOTAL_STEPS,
          databases: outcome.databases,
          failures: []
        },
        dryRun ? 'the comparison is done; nothing was written' : 'the restore is done'
      )
      await this.#end(running, txId)
      this.#emit({ type: 'restore_finished', ...about, durationMs: performance.now() - startedAt, outcome })
      return outcome
    } catch (error) {
      const outcome = error instanceof IncompleteRestoreError ? error.outcome : undefined
      await this.#endFailed(running, error, () => this.#failRestore(txId, reasonOf(error), outcome), txId)
      this.#emit({
        type: 'restore_failed',
        ...about,
        durationMs: performance.now() - startedAt,
        error: error as Error
      })
      throw error
    }
  }

  async #rebuildWhitelist(txId: string): Promise<void> {
    const timeout = this.#options.timeouts.rebuildWhitelist
    const late = () => new Error(`rebuildWhitelist did not answer within ${timeout} ms`)
    await within(timeout, late, async () => this.#options.rebuildWhitelist({ tx_id: txId }))
  }

  async #failBackup(id: string, running: Running, reason: string): Promise<void> {
    try {
      await markFailed(this.#storeOn(running.end), id, reason)
    } catch (error) {
      // Deleted meanwhile: there is nothing left to mark.
      if (!(error instanceof CouchError && error.status === 404)) throw error
    }
  }

  async #failRestore(txId: string, reason: string, outcome?: RestoreOutcome): Promise<void> {
    const transaction = await this.#options.webhooks.get(txId)
    if (transaction?.status !== 'pending') return
    const results: TransactionUpdate = outcome
      ? { databases: outcome.databases, failures: outcome.failures }
      : {}
    await this.#completeTransaction(txId, { status: 'error', ...results }, reason)
  }

  async #completeTransaction(txId: string, update: TransactionUpdate, message: string): Promise<void> {
    const { webhooks } = this.#options
    const current = await webhooks.get(txId)
    await webhooks.update(txId, {
      ...update,
      ts_completed: Date.now(),
      athena_messages: [...(current?.athena_messages ?? []), message]
    })
  }

  /** When it cannot be found out now, it is found out when the client's turn has come. */
  async #isToNotify(txId: string): Promise<boolean> {
    try {
      const transaction = await this.#options.webhooks.get(txId)
      return transaction !== null && awaitsNotice(transaction)
    } catch {
      return true
    }
  }

  /** Tells the client how its restore ended. Until that is done, every instance knows that it is to be done. */
  async #notifyClient(txId: string): Promise<void> {
    if (this.#notifying.has(txId)) return
    this.#notifying.add(txId)
    try {
      const { webhooks } = this.#options
      const transaction = await webhooks.get(txId)
      if (transaction && awaitsNotice(transaction)) {
        const record = (client_webhook: WebhookDelivery) => webhooks.update(txId, { client_webhook })
        const delivery = await this.#notifier.deliver(transaction, record, this.#shutdown.signal)
        // Cut off by the server's end: another instance, or this one when it is back, does it.
        if (!delivery.delivered && this.#shutdown.signal.aborted) return
        await webhooks.update(txId, { client_webhook: delivery })
      }
      await Lease.notified(this.#store.db, txId)
    } finally {
      this.#notifying.delete(txId)
    }
  }

  /** Tells clients that the instance that restored for them did not tell. */
  async #notifyOverdue(): Promise<void> {
    for (const txId of await Lease.toNotify(this.#store.db)) {
      const transaction = await this.#options.webhooks.get(txId)
      const age = Date.now() - (transaction?.ts_completed ?? 0)
      if (age > 2 * this.#options.timeouts.lease) await this.#notifyClient(txId)
    }
  }

  /** Ends an operation that failed. The lease is kept, to become stale, when its failure could not be written down. */
  async #endFailed(
    running: Running,
    error: unknown,
    tell: () => Promise<void>,
    txId?: string
  ): Promise<void> {
    if (error instanceof LeaseLostError) {
      running.lease.abandon()
      this.#running.delete(running)
      return
    }
    try {
      await tell()
    } catch (cause) {
      this.#log.error({ err: cause }, 'could not write down that an operation failed; will try again')
      running.lease.abandon()
      this.#running.delete(running)
      return
    }
    await this.#end(running, txId)
  }

  /** @param txId transaction of a restore, whose client is told when it asked for that */
  async #end(running: Running, txId?: string): Promise<void> {
    const notify = txId !== undefined && (await this.#isToNotify(txId)) ? txId : undefined
    await running.lease.release(notify)
    this.#running.delete(running)
    if (notify !== undefined) this.#background(this.#notifyClient(notify))
  }

  async #refuseIfRunning(asked: Operation): Promise<void> {
    if (this.#closing) throw new ClosingError()
    const found = await Lease.inspect(this.#store.db, this.#options.timeouts.lease)
    if (!found || found.stale || (await this.#leaves(found.holder))) return
    throw new OperationInProgressError(asked, found.holder)
  }

  /** Waits for an operation that is over, as its header or transaction says, to give the lease back. */
  async #leaves(holder: LeaseHolder): Promise<boolean> {
    for (let attempt = 0; attempt < LEAVE_ATTEMPTS; attempt++) {
      if (!(await this.#isOver(holder))) return false
      const found = await Lease.inspect(this.#store.db, this.#options.timeouts.lease)
      if (found?.holder.id !== holder.id || found.stale) return true
      await sleep(LEAVE_WAIT)
    }
    return false
  }

  async #isOver({ operation, id }: LeaseHolder): Promise<boolean> {
    if (operation === 'restore') {
      const transaction = await this.#options.webhooks.get(id)
      return transaction !== null && transaction.status !== 'pending'
    }
    const loaded = await this.#store.load(id)
    return loaded !== null && !loaded.header.in_progress
  }

  async #begin(operation: Operation, id: string): Promise<Running> {
    if (this.#closing) throw new ClosingError()
    await this.#store.db.ensure()
    await this.#refuseIfRunning(operation)
    await this.recover()
    return this.#acquire(operation, { operation, id, instance: this.#instance })
  }

  async #acquire(asked: Operation, holder: LeaseHolder): Promise<Running> {
    const abort = new AbortController()
    const { lease: ttl } = this.#options.timeouts
    const lease = await Lease.acquire(this.#store.db, holder, ttl, (error) => abort.abort(error)).catch(
      (error: unknown) => {
        throw error instanceof LeaseHeldError ? new OperationInProgressError(asked, error.holder) : error
      }
    )
    const beforeWrite = () => lease.check()
    const running = {
      lease,
      abort,
      work: this.#client.with({ retry: this.#options.retry, signal: abort.signal, beforeWrite }),
      end: this.#client.with({ beforeWrite })
    }
    this.#running.add(running)
    return running
  }

  async #load(id: string): Promise<LoadedBackup> {
    if (id.length > MAX_BACKUP_ID || !isBackupId(id)) {
      throw new InvalidParameterError('backup_id is not the id of a backup')
    }
    const loaded = await this.#store.load(id)
    if (!loaded) throw new BackupNotFoundError(id)
    return loaded
  }

  async #checkWebhookUrl(url: unknown): Promise<void> {
    if (typeof url !== 'string') throw new InvalidParameterError('client_webhook_url must be a string')
    try {
      await this.#notifier.check(url)
    } catch (error) {
      if (error instanceof RefusedUrlError)
        throw new InvalidParameterError(`client_webhook_url ${error.message}`)
      throw error
    }
  }

  async #versions(): Promise<Record<string, unknown>> {
    const { versions } = this.#options
    return (typeof versions === 'function' ? await versions() : versions) ?? {}
  }

  #makeSpool(): Promise<Spool> {
    return Spool.create(this.#options.spoolDirectory, this.#options.limits.spoolBytes)
  }

  #readOptions() {
    const { databases: names, limits } = this.#options
    return { names, maxDepth: limits.nesting, inflatedBytes: limits.inflatedBytes }
  }

  #databasesOn(client: CouchClient): Record<LogicalDatabase, CouchDatabase> {
    const on = (database: LogicalDatabase) => new CouchDatabase(client, this.#options.databases[database])
    return { components: on('components'), sessions: on('sessions'), system: on('system') }
  }

  #storeOn(client: CouchClient): BackupStore {
    return new BackupStore(new CouchDatabase(client, this.#options.databases.backups))
  }

  #emit(event: BackupEvent): void {
    const { onEvent } = this.#options
    if (!onEvent) return
    // What the host does with an event is not part of the operation.
    void (async () => onEvent(event))().catch((error: unknown) => {
      this.#log.error({ err: error, event: event.type }, 'onEvent failed')
    })
  }

  /** Keeps a promise to wait for when the server closes; ignoring its rejection is safe. */
  #background<T>(job: Promise<T>): Promise<T> {
    this.#jobs.add(job)
    job.catch(() => undefined).finally(() => this.#jobs.delete(job))
    return job
  }

  async #foreground<T>(call: () => Promise<T>): Promise<T> {
    try {
      return await call()
    } catch (error) {
      if (isUnavailable(error))
        throw new DatabaseUnavailableError(`${error.error}, ${error.reason}`, { cause: error })
      if (error instanceof LeaseLostError) throw new DatabaseUnavailableError(error.message, { cause: error })
      throw error
    }
  }
}

/** Whether the client of a transaction that has ended is still to be told. */
const awaitsNotice = ({ client_webhook_url, client_webhook }: WebhookTransaction): boolean =>
  client_webhook_url !== undefined && (client_webhook?.pending ?? client_webhook === undefined)

/** @throws BackupNotRestorableError */
function refuseUnusable({ in_progress, error }: { in_progress?: unknown; error?: unknown }): void {
  if (in_progress === true) throw new BackupNotRestorableError('the backup is still in progress.')
  if (error) throw new BackupNotRestorableError(`the backup has failed: ${String(error)}`)
}

function newTransaction(
  txId: string,
  url: string,
  options: RestoreOptions,
  backup: string | undefined
): WebhookTransaction {
  const now = Date.now()
  return {
    tx_id: txId,
    type: 'webhook_tx',
    sub_type: 'backup_restore',
    description: 'restoring dbs from backup',
    status: 'pending',
    by: options.requester?.name ?? '-',
    uuid: options.requester?.uuid ?? '-',
    url,
    ...(options.clientWebhookUrl === undefined
      ? undefined
      : { client_webhook_url: options.clientWebhookUrl }),
    ts_started: now,
    ts_last_updated: now,
    on_step: 1,
    total_steps: TOTAL_STEPS,
    athena_messages: [],
    timeout_ms: TX_TIMEOUT,
    ...(backup === undefined ? undefined : { backup_id: backup }),
    ...(options.dryRun ? { dry_run: true } : undefined)
  }
}

/** Why an operation ended, for headers and transactions. */
function reasonOf(error: unknown): string {
  if (error instanceof ClosingError) return 'interrupted: the server was shut down'
  return (error as Error).message || 'unknown error'
}
