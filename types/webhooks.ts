import type { DatabaseRestoreCounts, RestoreFailure, SettingsChange, SkipUnknown } from './backups.js'
import type { LogicalDatabase } from './databases.js'
import type { DocumentChange } from './restores.js'

/** `pending` until the restore has ended. */
export type TransactionStatus = 'pending' | 'success' | 'error'

/** How the POST to the client's webhook went. */
export interface WebhookDelivery {
  /** Attempts that have begun, also on servers that have stopped since. */
  attempts: number
  delivered: boolean
  /** The delivery is not over: an attempt is under way, or another follows. */
  pending?: true
  /** HTTP status of the last answer. */
  last_status?: number
  /** Why the last attempt failed, without the URL. */
  last_error?: string
}

/** The document that tells a client how a restore is going. */
export interface WebhookTransaction {
  tx_id: string
  type: 'webhook_tx'
  sub_type: 'backup_restore'
  description: string
  status: TransactionStatus
  /** The client that asked for the restore: `name` and `uuid`, as `authorize` gave them, `-` where it gave none. */
  by: string
  uuid: string
  /** URL to read this transaction at. */
  url: string
  /** URL of the client's webhook. It may hold a secret: leave it out when you serve a transaction. */
  client_webhook_url?: string
  /** Milliseconds since the epoch. */
  ts_started: number
  ts_last_updated: number
  ts_completed?: number
  on_step: number
  total_steps: number
  /** Messages of what was done and what went wrong, in order. */
  athena_messages: string[]
  /** Milliseconds since the last update after which a client may give the restore up. */
  timeout_ms: number
  /** Backup being restored, when it was named by its id. */
  backup_id?: string
  /** Set for a dry run: nothing is written. */
  dry_run?: boolean
  databases?: Partial<Record<LogicalDatabase, DatabaseRestoreCounts>>
  /** The first documents that were not written, at most 20. */
  failures?: RestoreFailure[]
  /** Ids of `skip` and `exclude` that no document has: mistyped ones, as a rule. */
  skip_unknown?: SkipUnknown
  /** Documents of the option `settingsDocuments` that the restore changes: told before they are written. */
  settings_documents?: SettingsChange[]
  /** Ids of `only` that no document has. */
  only_unknown?: SkipUnknown
  /** The backup that was made before the first write: restored with `exact`, it takes this restore back. */
  safety_backup?: string
  /** The first documents that a dry run found to be created, changed or deleted, at most 100. */
  changes?: DocumentChange[]
  /** Number of all documents of which `changes` names the first. */
  changes_count?: number
  /** How the client was told. Absent before the first attempt. */
  client_webhook?: WebhookDelivery
}

/** A transaction as it may be shown: without the client's webhook, which may hold a secret. */
export type ShownTransaction = Omit<WebhookTransaction, 'client_webhook_url'>

/** The body that the client's webhook receives: the transaction, without what is about the webhook itself. */
export type WebhookNotice = Omit<WebhookTransaction, 'client_webhook_url' | 'client_webhook'>

/** Members of a transaction that change while a restore runs. */
export type TransactionUpdate = Partial<
  Omit<WebhookTransaction, 'tx_id' | 'type' | 'sub_type' | 'ts_started'>
>

/**
 * Keeps transactions. The package ships one on CouchDB and one in memory. These throw TransactionNotFoundError from
 * `update`, the one in memory TransactionExistsError from `create`, and the one on CouchDB CouchError for all else.
 */
export interface WebhookStore {
  /** @throws when a transaction of this id exists or cannot be stored. */
  create(transaction: WebhookTransaction): Promise<void>
  /**
   * Merges `update` into the stored transaction and sets `ts_last_updated`.
   * @throws when there is no such transaction or it cannot be stored.
   */
  update(txId: string, update: TransactionUpdate): Promise<WebhookTransaction>
  /** @returns `null` when there is no such transaction. */
  get(txId: string): Promise<WebhookTransaction | null>
  /**
   * Returns the ids of the latest transactions of restores, newest first, without dry runs. Optional: without it,
   * `dbBackups.restores` knows only the restores that the instance began itself.
   */
  list?(limit: number): Promise<string[]>
}
