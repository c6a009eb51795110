import { randomBytes } from 'node:crypto'
import type { Readable } from 'node:stream'
import type { Requester, RestoreOptions, RestoreOutcome } from '../../types/backups.js'
import type { LogicalDatabase } from '../../types/databases.js'
import { cutRequester, cutText, MOST, messageOf } from '../bytes/cut-text.js'
import type { CouchClient } from '../couch/client.js'
import type { DatabaseSettings } from '../couch/database.js'
import { apiKey } from '../databases.js'
import {
  BackupNotFoundError,
  BackupNotRestorableError,
  CancelledError,
  ClosingError,
  IncompleteRestoreError,
  LeaseLostError,
  SafetyBackupError
} from '../errors.js'
import type { LeaseHolder } from '../lease/lease-document.js'
import { INTERNAL_TYPES, typesLeftAlone } from '../own-documents.js'
import { type RestoreJobOptions, runRestore, TOTAL_STEPS } from '../restore/restore-job.js'
import type { RestoreSource } from '../restore/source.js'
import { SpooledSource } from '../restore/spooled-source.js'
import { StoredSource } from '../restore/stored-source.js'
import { hostWithin } from '../waits/host-code.js'
import { type ActiveOperation, checkLeases, endClientIn, holdOf, type Resource } from './active-operations.js'
import type { Backups } from './backups.js'
import type { Databases } from './databases.js'
import type { Instance } from './instance.js'
import {
  type Failure,
  isOneOf,
  type NewOperation,
  type OperationRecords,
  type RunInside
} from './lifecycle.js'
import type { Outbox } from './outbox.js'
import { type Transactions, toldAtEnd, transactionPath } from './transactions.js'

interface Restorable {
  /** Its id, when it was named by that. */
  id?: string
  /** How its system database was created; `undefined` when it holds none. */
  system: DatabaseSettings | undefined
  /** Whether a restore made it before it wrote. */
  isBeforeRestore?: boolean
  /** The client's webhook, as the backup names it. */
  clientWebhookUrl?: string
  /** Reads and checks the backup, on a client that ends with the restore; of a stored one, what is wanted. */
  open(client: CouchClient, wanted: readonly LogicalDatabase[]): Promise<RestoreSource>
  /** Frees what the backup was spooled to. */
  dispose?(): Promise<void>
}

/** Describes restores that are to run. Their records are the clients' transactions. */
export class Restores implements OperationRecords {
  readonly #instance: Instance
  readonly #databases: Databases
  readonly #transactions: Transactions
  readonly #outbox: Outbox
  readonly #backups: Backups

  constructor(instance: Instance, databases: Databases, outbox: Outbox, backups: Backups) {
    this.#instance = instance
    this.#databases = databases
    this.#transactions = instance.transactions
    this.#outbox = outbox
    this.#backups = backups
  }

  /** Checks what is to be restored; reads an upload whole. `urlOf` makes a path absolute. */
  async describe(
    source: { id: string } | { body: Readable },
    given: RestoreOptions,
    urlOf: (path: string) => string
  ): Promise<NewOperation<RestoreOutcome>> {
    const txId = randomBytes(16).toString('hex')
    const url = urlOf(transactionPath(txId))
    if (given.clientWebhookUrl !== undefined) await this.#outbox.checkUrl(given.clientWebhookUrl)
    const backup = 'id' in source ? await this.#storedBackup(source.id) : await this.#upload(source.body)
    const { clientWebhookUrl = given.clientWebhookUrl } = backup
    const options = { ...given, clientWebhookUrl }
    const { dryRun = false } = options
    const ids = this.#makesBackup(options) ? await this.#databases.repository.newIds() : undefined
    const backupId = backup.id === undefined ? undefined : { backup_id: backup.id }
    const about = { tx_id: txId, ...backupId, dryRun }
    const requester = cutRequester(options.requester)
    return {
      kind: 'restore',
      cancel: 'gently',
      about: { ...backupId, ...(dryRun && { dry_run: true as const }) },
      resources: this.resourcesOf(source, options),
      system: dryRun ? undefined : backup.system,
      // The lease reserves the number of the backup that is made first.
      idAfter: (carried) => ({ id: txId, carried: ids?.(carried, []).carried }),
      prepare: async () => {
        if (backup.id !== undefined) await this.#requireBackup(backup.id)
        await this.#transactions.create({ tx_id: txId, url, ...backupId }, options)
        return true
      },
      work: (operation, _prepared, runInside) => {
        const backUpFirst = ids && (() => this.#backUp(operation, requester, runInside))
        return this.#restore(operation, backup, options, about, backUpFirst)
      },
      started: () => ({ type: 'restore_started', ...about, ...(requester && { requester }) }),
      finished: (_id, ended, outcome) => ({ type: 'restore_finished', ...about, ...ended, outcome }),
      failed: (_id, ended, error) => {
        const outcome = outcomeOf(error)
        const event = { type: 'restore_failed', ...about, ...ended, error } as const
        return { ...event, ...(outcome && { outcome }) }
      },
      dispose: backup.dispose
    }
  }

  /** Returns what a restore works on: an upload needs no repository, and does not depend on its server. */
  resourcesOf(source: object, options: RestoreOptions): readonly Resource[] | undefined {
    return 'id' in source || this.#makesBackup(options) ? undefined : ['sources']
  }

  /** Returns whether a restore makes a backup before it writes. */
  #makesBackup({ dryRun = false, safety = this.#instance.options.safety }: RestoreOptions): boolean {
    return safety && !dryRun
  }

  isOver({ id }: LeaseHolder): Promise<boolean> {
    return this.#transactions.isOver(id)
  }

  /** Ends the transaction beside the sources, and beside the backups fails the backup that was made first. */
  recordFailure(operation: ActiveOperation, resource: Resource, failure: Failure): Promise<void> {
    return resource === 'sources'
      ? this.#failTransaction(operation, failure)
      : this.#backups.failBefore(operation, failure.reason)
  }

  async #failTransaction(operation: ActiveOperation, failure: Failure): Promise<void> {
    const { id } = operation
    const { reason, error, recorded } = failure
    const beforeWrite = () => holdOf(operation, 'sources')?.lease.check()
    const advice = error === undefined ? '; run it again' : ''
    if (recorded) await this.#transactions.fail(id, reason, beforeWrite, outcomeOf(error))
    else await this.#transactions.failIfThere(id, `${reason}${advice}`, beforeWrite)
  }

  onFailed(operation: ActiveOperation): void {
    this.#backups.watchBefore(operation)
  }

  /** Writes a notice where a client is to be told, by which any instance can. @returns what tells it */
  async beforeRelease(operation: ActiveOperation): Promise<(() => Promise<void>) | undefined> {
    const { id } = operation
    if (!(await this.#outbox.isDue(id))) return undefined
    await this.#outbox.add([id], endClientIn(operation, 'sources'))
    return () => this.#outbox.send(id)
  }

  /** Checks that a backup was not removed before the lease kept removals away. @throws BackupNotFoundError */
  async #requireBackup(id: string): Promise<void> {
    if (!(await this.#databases.repository.has(id))) throw new BackupNotFoundError(id)
  }

  async #storedBackup(id: string): Promise<Restorable> {
    const loaded = await this.#databases.repository.get(id)
    const { header } = loaded
    refuseUnusable(header)
    return {
      id,
      system: loaded.isLegacy ? {} : header.dbs[apiKey('system')],
      isBeforeRestore: loaded.isBeforeRestore,
      open: (client, wanted) => this.#databases.open(loaded.on(client), wanted, StoredSource.open)
    }
  }

  async #upload(body: Readable): Promise<Restorable> {
    const { newSpool, form } = this.#databases
    const source = await SpooledSource.read(body, newSpool(), { ...form, proof: 'content' })
    try {
      const { members } = source
      refuseUnusable(members)
      const url = members.client_webhook_url
      if (url !== undefined) await this.#outbox.checkUrl(url)
      return {
        system: source.databases.includes('system') ? source.about('system') : undefined,
        clientWebhookUrl: url as string | undefined,
        open: async () => source,
        // A restore that fails early never opens, nor closes, its source.
        dispose: () => source.close()
      }
    } catch (error) {
      await source.close()
      throw error
    }
  }

  /** Backs all databases up before anything is written. @throws SafetyBackupError */
  async #backUp(
    restore: ActiveOperation,
    requester: Requester | undefined,
    runInside: RunInside
  ): Promise<string> {
    try {
      const { id } = await runInside(await this.#backups.describeBefore(restore, requester))
      return id
    } catch (error) {
      // These end the restore in ways of their own.
      if (isOneOf(LeaseLostError, ClosingError, CancelledError)(error)) throw error
      throw new SafetyBackupError(cutText(messageOf(error), MOST.reason), { cause: error })
    }
  }

  async #restore(
    operation: ActiveOperation,
    backup: Restorable,
    { exact = false, skip = {}, only, exclude = {}, onChange }: RestoreOptions,
    about: { tx_id: string; dryRun: boolean },
    backUpFirst: RestoreJobOptions['backUpFirst']
  ): Promise<RestoreOutcome> {
    const { id: txId, abort, workClient, progress, cancellation } = operation
    const { dryRun } = about
    const { rebuildWhitelist, timeouts, settingsDocuments, excludeTypes } = this.#instance.options
    const outcome = await runRestore({
      txId,
      openSource: (wanted) => backup.open(workClient, wanted),
      backUpFirst,
      targets: this.#databases.sourcesOn(workClient),
      choice: { skip, only, exclude },
      internalTypes: INTERNAL_TYPES,
      holdsOwn: (target) => this.#databases.holdsOwn(target),
      keepTypes: typesLeftAlone(excludeTypes, backup.isBeforeRestore),
      settings: settingsDocuments,
      dryRun,
      exact,
      progress,
      isCut: () => cancellation.isCut,
      tell: async (update) => {
        checkLeases(operation)
        cancellation.check()
        await this.#transactions.update(txId, update)
      },
      onChange: onChange && ((change) => hostWithin(timeouts.idle, 'onChange', () => onChange(change))),
      rebuildWhitelist: () =>
        hostWithin(timeouts.rebuildWhitelist, 'rebuildWhitelist', () => rebuildWhitelist({ tx_id: txId })),
      onPhase: (phase) => this.#instance.events.emit({ ...about, ...phase })
    })
    // A restore that was cancelled too late is done.
    if (!cancellation.error) abort.signal.throwIfAborted()
    await this.#transactions.complete(
      txId,
      { status: 'success', on_step: TOTAL_STEPS, ...toldAtEnd(outcome) },
      dryRun ? 'the comparison is done; nothing was written' : 'the restore is done',
      () => checkLeases(operation)
    )
    return outcome
  }
}

/** Returns what an incomplete restore has done. */
const outcomeOf = (error: unknown): RestoreOutcome | undefined =>
  error instanceof IncompleteRestoreError ? error.outcome : undefined

/** @throws BackupNotRestorableError */
function refuseUnusable({ in_progress, error }: { in_progress?: unknown; error?: unknown }): void {
  if (in_progress === true) throw new BackupNotRestorableError('the backup is still in progress.')
  if (!error) return
  // An upload may say anything here, even what no string can be made of.
  const reason = typeof error === 'string' ? `: ${cutText(error, MOST.reason)}` : '.'
  throw new BackupNotRestorableError(`the backup has failed${reason}`)
}
