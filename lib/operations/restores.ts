import { randomBytes } from 'node:crypto'
import type { Readable } from 'node:stream'
import type { RestoreOptions, RestoreOutcome, StartedRestore } from '../../types/backups.js'
import { cutRequester, cutText, MOST } from '../bytes/cut-text.js'
import type { DatabaseSettings } from '../couch/database.js'
import { BackupNotRestorableError, TooManyUploadsError } from '../errors.js'
import type { BackupStore } from '../repository/backup-store.js'
import { apiKey, INTERNAL_TYPES, TRANSACTION_TYPE } from '../repository/names.js'
import { IncompleteRestoreError, runRestore, TOTAL_STEPS } from '../restore/restore-job.js'
import type { RestoreSource } from '../restore/source.js'
import { SpooledSource } from '../restore/spooled-source.js'
import { StoredSource } from '../restore/stored-source.js'
import { hostWithin } from '../waits/host-code.js'
import type { ClientNotices } from './client-notices.js'
import { endReason } from './end-reason.js'
import type { Environment } from './environment.js'
import type { Running, RunningOperations } from './running-operations.js'
import type { Transactions } from './transactions.js'

/** A restore that is about to begin. */
interface RestoreRequest {
  txId: string
  options: RestoreOptions
  /** Where the transaction can be read. */
  url: string
  /** Id of the backup, when it was named by its id. */
  backup?: string
  /** How the backup's system database was created; `undefined` when the backup holds none. */
  system: DatabaseSettings | undefined
  /** Gives the backup, checked. */
  open: (running: Running) => Promise<RestoreSource>
}

/** Starts restores and sees them through. */
export class Restores {
  readonly #environment: Environment
  readonly #running: RunningOperations
  readonly #transactions: Transactions
  readonly #notices: ClientNotices

  constructor(
    environment: Environment,
    running: RunningOperations,
    transactions: Transactions,
    notices: ClientNotices
  ) {
    this.#environment = environment
    this.#running = running
    this.#transactions = transactions
    this.#notices = notices
  }

  async start(
    source: { id: string } | { body: Readable },
    options: RestoreOptions,
    urlOf: (txId: string) => string
  ): Promise<StartedRestore> {
    const txId = randomBytes(16).toString('hex')
    await this.#running.refuseIfRunning('restore')
    if (options.clientWebhookUrl !== undefined) await this.#notices.checkUrl(options.clientWebhookUrl)
    const url = urlOf(txId)
    return 'id' in source
      ? this.#startStored(txId, source.id, options, url)
      : this.#startUpload(txId, source.body, options, url)
  }

  async #startStored(
    txId: string,
    id: string,
    options: RestoreOptions,
    url: string
  ): Promise<StartedRestore> {
    const loaded = await this.#environment.load(id)
    refuseUnusable(loaded.header)
    const open = (running: Running): Promise<RestoreSource> => {
      const store = this.#environment.storeOn(running.work)
      if (loaded.kind === 'chunks')
        return StoredSource.open(store, loaded.header, () => this.#environment.makeSpool())
      return this.#spoolLegacy(store, loaded.header._id)
    }
    const system = loaded.kind === 'chunks' ? loaded.header.dbs[apiKey('system')] : {}
    return this.#start({ txId, options, url, backup: id, system, open })
  }

  async #startUpload(
    txId: string,
    body: Readable,
    options: RestoreOptions,
    url: string
  ): Promise<StartedRestore> {
    const { uploads, options: own } = this.#environment
    const full = () => new TooManyUploadsError(own.limits.uploads)
    const source = await uploads.take(full, () => this.#spool(body, 'content'))
    try {
      const { members } = source
      refuseUnusable(members)
      if (members.client_webhook_url !== undefined) await this.#notices.checkUrl(members.client_webhook_url)
      const clientWebhookUrl = (members.client_webhook_url as string | undefined) ?? options.clientWebhookUrl
      const started = await this.#start({
        txId,
        options: { ...options, clientWebhookUrl },
        url,
        system: source.databases.includes('system') ? source.about('system') : undefined,
        open: async () => source
      })
      // A restore that fails early does not get as far as to open, and close, its source.
      this.#environment.jobs.add(started.finished.finally(() => source.close()))
      return started
    } catch (error) {
      await source.close()
      throw error
    }
  }

  async #spool(body: AsyncIterable<Uint8Array>, proof: RestoreSource['proof']): Promise<SpooledSource> {
    const options = { ...this.#environment.readOptions(), proof }
    return SpooledSource.read(body, this.#environment.makeSpool(), options)
  }

  async #spoolLegacy(store: BackupStore, id: string): Promise<RestoreSource> {
    return store.db.readStream(id, (body) => this.#spool(body, 'revision'))
  }

  async #start(request: RestoreRequest): Promise<StartedRestore> {
    const { txId, url, options, backup, system } = request
    const running = await this.#running.begin('restore', {
      system: options.dryRun ? undefined : system,
      idAfter: () => ({ id: txId })
    })
    try {
      await this.#transactions.create(txId, url, options, backup)
    } catch (error) {
      // The transaction may have been written all the same.
      const beforeWrite = () => running.lease.check()
      const writeDown = () => this.#transactions.failIfThere(txId, endReason(error), beforeWrite)
      await this.#running.endFailed(running, error, writeDown, txId)
      throw error
    }
    return { tx_id: txId, finished: this.#environment.jobs.add(this.#run(request, running)) }
  }

  async #run(request: RestoreRequest, running: Running): Promise<RestoreOutcome> {
    const { txId } = request
    const { events } = this.#environment
    const about = aboutOf(request)
    const startedAt = performance.now()
    const ended = () => ({ durationMs: performance.now() - startedAt, retries: running.retries })
    const requester = cutRequester(request.options.requester)
    events.emit({ type: 'restore_started', ...about, ...(requester && { requester }) })
    try {
      const outcome = await this.#restore(request, running)
      await this.#running.end(running, txId)
      events.emit({ type: 'restore_finished', ...about, ...ended(), outcome })
      return outcome
    } catch (error) {
      await this.#fail(txId, running, error)
      const outcome = outcomeOf(error)
      events.emit({
        type: 'restore_failed',
        ...about,
        ...ended(),
        error: error as Error,
        ...(outcome && { outcome })
      })
      throw error
    }
  }

  async #restore(request: RestoreRequest, running: Running): Promise<RestoreOutcome> {
    const { txId, options, open } = request
    const about = aboutOf(request)
    const { dryRun = false, exact = false, skip = {} } = options
    const outcome = await runRestore({
      txId,
      openSource: () => open(running),
      targets: this.#environment.databasesOn(running.work),
      skip,
      internalTypes: INTERNAL_TYPES,
      backups: this.#environment.options.databases.backups,
      // Clients follow transactions, that of this restore too, wherever the host keeps them.
      keepTypes: new Set([...this.#environment.excludeTypes, TRANSACTION_TYPE]),
      settings: this.#environment.options.settingsDocuments,
      dryRun,
      exact,
      tell: async (update) => {
        running.lease.check()
        await this.#transactions.update(txId, update)
      },
      rebuildWhitelist: () => this.#rebuildWhitelist(txId),
      onPhase: (phase) => this.#environment.events.emit({ ...about, ...phase })
    })
    running.abort.signal.throwIfAborted()
    await this.#transactions.complete(
      txId,
      { status: 'success', on_step: TOTAL_STEPS, databases: outcome.databases, failures: [] },
      dryRun ? 'the comparison is done; nothing was written' : 'the restore is done',
      () => running.lease.check()
    )
    return outcome
  }

  async #fail(txId: string, running: Running, error: unknown): Promise<void> {
    const beforeWrite = () => running.lease.check()
    const writeDown = () => this.#transactions.fail(txId, endReason(error), beforeWrite, outcomeOf(error))
    await this.#running.endFailed(running, error, writeDown, txId)
  }

  async #rebuildWhitelist(txId: string): Promise<void> {
    const { options } = this.#environment
    const rebuild = () => options.rebuildWhitelist({ tx_id: txId })
    await hostWithin(options.timeouts.rebuildWhitelist, 'rebuildWhitelist', rebuild)
  }
}

/** For events. */
const aboutOf = ({ txId, backup, options }: RestoreRequest) => ({
  tx_id: txId,
  ...(backup === undefined ? undefined : { backup_id: backup }),
  dryRun: options.dryRun ?? false
})

/** What a restore did that did not do everything. */
const outcomeOf = (error: unknown): RestoreOutcome | undefined =>
  error instanceof IncompleteRestoreError ? error.outcome : undefined

/** @throws BackupNotRestorableError */
function refuseUnusable({ in_progress, error }: { in_progress?: unknown; error?: unknown }): void {
  if (in_progress === true) throw new BackupNotRestorableError('the backup is still in progress.')
  if (!error) return
  // What an upload says here is anything, also what cannot be made a string.
  const reason = typeof error === 'string' ? `: ${cutText(error, MOST.reason)}` : '.'
  throw new BackupNotRestorableError(`the backup has failed${reason}`)
}
