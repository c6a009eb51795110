import { randomBytes } from 'node:crypto'
import type { Readable } from 'node:stream'
import type { RestoreOptions, RestoreOutcome } from '../../types/backups.js'
import { cutRequester, cutText, MOST } from '../bytes/cut-text.js'
import type { CouchClient } from '../couch/client.js'
import type { DatabaseSettings } from '../couch/database.js'
import { apiKey } from '../databases.js'
import { BackupNotFoundError, BackupNotRestorableError, IncompleteRestoreError } from '../errors.js'
import type { LeaseHolder } from '../lease/lease-document.js'
import { INTERNAL_TYPES, TRANSACTION_TYPE } from '../own-documents.js'
import { runRestore, TOTAL_STEPS } from '../restore/restore-job.js'
import type { RestoreSource } from '../restore/source.js'
import { SpooledSource } from '../restore/spooled-source.js'
import { StoredSource } from '../restore/stored-source.js'
import { Spool } from '../spool/spool.js'
import { hostWithin } from '../waits/host-code.js'
import type { ActiveOperation } from './active-operations.js'
import type { Databases } from './databases.js'
import type { Instance } from './instance.js'
import type { Failure, NewOperation, OperationRecords } from './lifecycle.js'
import type { Outbox } from './outbox.js'
import { type Transactions, transactionPath } from './transactions.js'

interface Restorable {
  /** Its id, when it was named by that. */
  id?: string
  /** How its system database was created; `undefined` when it holds none. */
  system: DatabaseSettings | undefined
  /** The client's webhook, as the backup names it. */
  clientWebhookUrl?: string
  /** Reads and checks the backup, on a client that ends with the restore. */
  open(client: CouchClient): Promise<RestoreSource>
  /** Frees what the backup was spooled to. */
  dispose?(): Promise<void>
}

/** Describes restores that are to run. Their records are the clients' transactions. */
export class Restores implements OperationRecords {
  readonly #instance: Instance
  readonly #databases: Databases
  readonly #transactions: Transactions
  readonly #outbox: Outbox

  constructor(instance: Instance, databases: Databases, transactions: Transactions, outbox: Outbox) {
    this.#instance = instance
    this.#databases = databases
    this.#transactions = transactions
    this.#outbox = outbox
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
    const backupId = backup.id === undefined ? undefined : { backup_id: backup.id }
    const about = { tx_id: txId, ...backupId, dryRun: options.dryRun ?? false }
    const requester = cutRequester(options.requester)
    return {
      kind: 'restore',
      system: options.dryRun ? undefined : backup.system,
      idAfter: () => ({ id: txId }),
      createRecord: async () => {
        if (backup.id !== undefined) await this.#requireBackup(backup.id)
        await this.#transactions.create({ tx_id: txId, url, ...backupId }, options)
        return true
      },
      work: (operation) => this.#restore(operation, backup, options, about),
      started: () => ({ type: 'restore_started', ...about, ...(requester && { requester }) }),
      finished: (_id, ended, outcome) => ({ type: 'restore_finished', ...about, ...ended, outcome }),
      failed: (_id, ended, error) => {
        const outcome = outcomeOf(error)
        const event = { type: 'restore_failed', ...about, ...ended, error: error as Error } as const
        return { ...event, ...(outcome && { outcome }) }
      },
      dispose: backup.dispose
    }
  }

  async ensureDatabases(system?: DatabaseSettings): Promise<void> {
    if (system) await this.#databases.system.ensure(system)
    else await this.#databases.requireSystem()
  }

  isOver({ id }: LeaseHolder): Promise<boolean> {
    return this.#transactions.isOver(id)
  }

  async recordFailure({ id, lease }: ActiveOperation, failure: Failure): Promise<void> {
    const { reason, error, recorded } = failure
    const beforeWrite = () => lease.check()
    if (recorded) return this.#transactions.fail(id, reason, beforeWrite, outcomeOf(error))
    const advice = error === undefined ? '; run it again' : ''
    await this.#transactions.failIfThere(id, `${reason}${advice}`, beforeWrite)
  }

  /** Has the client told that wants to be. Every instance knows once that is noted. */
  async beforeRelease({ id, endClient }: ActiveOperation): Promise<(() => Promise<void>) | undefined> {
    if (!(await this.#outbox.isDue(id))) return undefined
    await this.#outbox.add([id], endClient)
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
    const open = (client: CouchClient) =>
      SpooledSource.ofLegacy(loaded.on(client), this.#newSpool, this.#form)
    if (loaded.isLegacy) return { id, system: {}, open }
    return {
      id,
      system: header.dbs[apiKey('system')],
      open: (client) => StoredSource.open(loaded.on(client), this.#newSpool)
    }
  }

  async #upload(body: Readable): Promise<Restorable> {
    const source = await SpooledSource.read(body, this.#newSpool(), { ...this.#form, proof: 'content' })
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

  get #form() {
    const { inflatedBytes } = this.#instance.options.limits
    return { names: this.#databases.names, inflatedBytes }
  }

  readonly #newSpool = () => new Spool(this.#instance.room)

  async #restore(
    { id: txId, lease, abort, workClient }: ActiveOperation,
    backup: Restorable,
    { exact = false, skip = {} }: RestoreOptions,
    about: { tx_id: string; dryRun: boolean }
  ): Promise<RestoreOutcome> {
    const { dryRun } = about
    const { rebuildWhitelist, timeouts, settingsDocuments } = this.#instance.options
    const outcome = await runRestore({
      txId,
      openSource: () => backup.open(workClient),
      targets: this.#databases.sourcesOn(workClient),
      skip,
      internalTypes: INTERNAL_TYPES,
      holdsOwn: (target) => this.#databases.holdsOwn(target),
      // Clients follow transactions, that of this restore too, wherever the host keeps them.
      keepTypes: new Set([...this.#instance.excludeTypes, TRANSACTION_TYPE]),
      settings: settingsDocuments,
      dryRun,
      exact,
      tell: async (update) => {
        lease.check()
        await this.#transactions.update(txId, update)
      },
      rebuildWhitelist: () =>
        hostWithin(timeouts.rebuildWhitelist, 'rebuildWhitelist', () => rebuildWhitelist({ tx_id: txId })),
      onPhase: (phase) => this.#instance.events.emit({ ...about, ...phase })
    })
    abort.signal.throwIfAborted()
    await this.#transactions.complete(
      txId,
      { status: 'success', on_step: TOTAL_STEPS, databases: outcome.databases, failures: [] },
      dryRun ? 'the comparison is done; nothing was written' : 'the restore is done',
      () => lease.check()
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
