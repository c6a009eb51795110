import type { Readable } from 'node:stream'
import type { ServerScope } from 'nano'
import type { LogicalDatabase } from './databases.js'
import type { KeepRules } from './options.js'
import type { ByDatabase, DocumentChange, DocumentChoice, FoundChange } from './restores.js'
import type { VerifyDepth } from './verify.js'

/** One database of a backup that was just made, without its documents. */
export interface DatabaseSummary {
  /** Milliseconds since the epoch. */
  start_timestamp: number
  /** Milliseconds since the epoch. */
  finish_timestamp: number
  /** The update sequence whose state the backup holds. Opaque. */
  last_sequence: string
  /** Documents the backup holds for this database. */
  doc_count: number
  /** Documents that had conflicting revisions; the winning one was backed up. */
  conflict_count: number
  /** Whether the database was partitioned, where its server told. A restore that creates the database makes it so. */
  partitioned?: boolean
  /** Types of documents that were left out, besides those of backups. Not told by earlier backups. */
  excluded_types?: string[]
  /** Number of the database's shards, where its server told. A restore that creates the database gives it as many. */
  q?: number
  /**
   * On a cluster: the replicas of a shard were not seen to agree before the database was read, or nodes started again and
   * again while it was read. Changes of the last seconds, or of the time in which a node was down, may be missing.
   * `behind`: the replicas did not agree within 30 seconds. `unchecked`: the replicas could not be asked, as only a server
   * administrator may, or not at the end. Absent where they agreed, or there is one replica.
   */
  copies?: 'behind' | 'unchecked'
  /**
   * The database did not exist: the backup holds nothing of it, and a restore leaves alone what is there by then. Absent
   * where it existed.
   */
  missing?: true
  /** Bytes of the documents' JSON. */
  raw_bytes: number
  /** Bytes that the documents take in the database that keeps the backup; other backups may share some of them. */
  stored_bytes: number
  /** Id of the backup whose chunks this one shares. Absent where the database was read in full. */
  base?: string
  /** Why the database was read in full. Absent where it was not, and in earlier backups. */
  full_reason?: FullReason
  /** Chunks of documents that this backup has written. Not told by earlier backups. */
  new_chunks?: number
  /** Chunks of documents that an earlier backup has written. Not told by earlier backups. */
  reused_chunks?: number
  /** Bytes that this backup has added to the database that keeps it. Not told by earlier backups. */
  added_bytes?: number
  /** Bytes of documents that no longer count, and are read with the others. Not told by earlier backups. */
  wasted_bytes?: number
  /** Documents that the backup does not hold because they could not be read or stored. Absent when there are none. */
  unreadable_count?: number
  /** The first of these documents, at most 100. */
  unreadable?: UnreadableDocument[]
}

/**
 * Why a database was read in full:
 * `asked_for`, by `start({ full: true })`; `no_base`, no complete backup is there; `earlier_layout`, the last backup was
 * made by an earlier version; `not_in_base`, the last backup holds nothing of the database; `chain_too_long`, the bound of
 * the option `incremental`; `not_told`, the server does not tell enough; `other_database`, the database had another name;
 * `created_again`, `purged`, `sequence_reset`: the feed does not tell all that happened; `excluded_types`, other types are
 * left out now; `unreadable_documents`, the last backup could not read some, and does not name all; `mostly_changed`, most
 * documents have changed; `damaged_base`, a part of the last backup is missing or damaged; `sealed_otherwise`, the last
 * backup is sealed while `encryption` is off, or not sealed while it is on, or its key is missing or another one.
 */
export type FullReason =
  | 'asked_for'
  | 'no_base'
  | 'earlier_layout'
  | 'not_in_base'
  | 'chain_too_long'
  | 'not_told'
  | 'other_database'
  | 'created_again'
  | 'purged'
  | 'sequence_reset'
  | 'excluded_types'
  | 'unreadable_documents'
  | 'mostly_changed'
  | 'damaged_base'
  | 'sealed_otherwise'

/** One database of a backup that is read. Backups that athena made tell fewer counts. */
export type StoredDatabaseSummary = Omit<DatabaseSummary, Counts> & Partial<Pick<DatabaseSummary, Counts>>

type Counts = 'doc_count' | 'conflict_count' | 'raw_bytes' | 'stored_bytes'

/** A document that could not be backed up. */
export interface UnreadableDocument {
  /** The first bytes of the id, at most 512. */
  id: string
  /** Set when the id is longer. */
  id_truncated?: true
  reason: string
}

/** A backup without its documents: what an operator wants to know at a glance. */
export interface BackupSummary {
  id: string
  backup_version: string
  /** Versions of the application that was backed up, as the host's `versions` gave them. */
  ibp_versions: Record<string, unknown>
  /** The client that asked for the backup. Absent where none did, as for scheduled ones. */
  requester?: Requester
  /** The purpose of the backup, as given to `start({ note })`. */
  note?: string
  /** Made with `start({ protect: true })`: pruning keeps it. Absent otherwise. */
  protected?: true
  /** Documents stored so far, or in all once the backup has ended. */
  doc_count: number
  /** Finished databases, under the key the API uses (`athena_components`, ...). */
  dbs: Record<string, StoredDatabaseSummary>
  in_progress: boolean
  type: 'athena_backup'
  /** Milliseconds since the epoch. */
  start_timestamp: number
  /** Milliseconds since the epoch; absent while the backup runs. */
  end_timestamp?: number
  /** For people: `"23.8 secs"`. */
  elapsed?: string
  /** Documents that could not be backed up, in all databases; `dbs` names them. Absent when there are none. */
  unreadable_count?: number
  /** Keys in `dbs` of the databases that did not exist. Absent when all did. */
  missing_databases?: string[]
  /** Id of the backup whose chunks this one shares. Absent where all databases were read in full, and while it runs. */
  base?: string
  /** Backups before it that were each the base of the next; 0 for a full one. Not told by earlier backups. */
  chain_length?: number
  /** Bytes that the backup has added to the database that keeps it, its header aside. Not told by earlier backups. */
  added_bytes?: number
  /** Id of the key that the backup is sealed with. Absent where it is not sealed. */
  sealed?: string
  /** Damage that verifications of this backup, or of one that shares its parts, have found. Absent where none was. */
  damaged?: DamagedBackup
  /** The last verification that came to its end. Absent until there is one. */
  verified?: LastVerification
  /** Why the backup is not usable. A backup with an `error` cannot be restored. */
  error?: string
  /** Names of the attachments the clients appended. */
  attachments: string[]
  /**
   * SHA-256, in hex, of what the backup tells of its databases and lists for them, with the digest of every part: two
   * values differ where the documents do. It stays when an attachment is appended or the backup is verified. `rekey`
   * changes it, since parts are sealed anew; a copy may have another one, since its parts may have other ids. Absent
   * while the backup runs, where it failed, and in backups that athena made.
   */
  content_sha256?: string
}

/** The known damage of a backup. */
export interface DamagedBackup {
  /** When the damage was first found, in milliseconds since the epoch. */
  found: number
  /** The damaged parts of each database: `components`, `sessions`, `system`. */
  databases: Partial<Record<LogicalDatabase, DamagedParts>>
}

/** The damaged parts of one database. */
export interface DamagedParts {
  /** Ids of the first parts, at most 20: of chunks, of manifests, or of the header. */
  parts: string[]
  count: number
  /** The documents are whole, but no backup can be based on it: present where only that is damaged. */
  only_index?: true
}

/** How a backup was last verified. */
export interface LastVerification {
  /** Milliseconds since the epoch. */
  at: number
  depth: VerifyDepth
  good: boolean
}

/** The backup once it is complete, as {@link StartedBackup.finished} gives it. */
export type BackupOutcome = BackupSummary

/** How a backup is started. */
export interface StartOptions {
  /** Read every database in full, and share nothing with earlier backups. Default `false`. */
  full?: boolean
  /** The client that asks. Recorded in the backup and told in the event of its start. */
  requester?: Requester
  /** The purpose of the backup, recorded in it: at most 1,024 characters. */
  note?: string
  /** Keeps the backup from being pruned, whatever `keep` says, also if it fails. Default `false`. */
  protect?: boolean
}

/** A backup that has begun. */
export interface StartedBackup {
  /** `03_ibp_db_backup_<milliseconds>` */
  id: string
  /**
   * Resolves when the backup has been stored and checked. Rejects with the error that the header carries: CouchError,
   * MissingDatabaseError, DamagedBackupError, BackupDeletedError, TooManyRepeatedError, KeyUnavailableError,
   * LeaseLostError, CancelledError, ClosingError. It is safe to ignore: an ignored rejection is not reported as unhandled.
   */
  finished: Promise<BackupOutcome>
}

/** A backup that is read. */
export interface BackupContent {
  summary: BackupSummary
  /**
   * The JSON document of the get-backup API, documents and attachments included. Destroyed with a DamagedBackupError when
   * a part of the backup is missing or damaged: a host that sends it cuts off the reply then, which HTTP/2 must be told
   * (`stream.close(NGHTTP2_INTERNAL_ERROR)`). Destroyed with a BackupNotFoundError or a BackupChangedError when the backup
   * was removed, sealed anew or appended to meanwhile, and parts of it have gone with that. Also destroyed with a
   * TooManyDownloadsError at its first read beyond `limits.downloads`, a StalledDownloadError when nobody reads it for
   * `timeouts.idle`, a ClosingError, or a CouchError.
   */
  body: Readable
  /** Strong entity tag of `body`, in quotes: as long as it is the same, the bytes are. Appending an attachment changes it. */
  etag: string
  /**
   * Bytes of `body`, where they are known before it is read: not for backups that athena made, nor for those of an earlier
   * version during which documents changed.
   */
  length?: number
  /** Another `body`, from a byte on; what lies before is not read. Present with `length`. */
  bodyFrom?: (start: number) => Readable
}

/** The counts of what a restore did, or with `dryRun` would do, to one database. */
export interface DatabaseRestoreCounts {
  /** Documents the backup holds for this database. */
  total: number
  /** Written where there was no live document of that id. */
  created: number
  /** Written over a document that differed. */
  changed: number
  /** Left alone: the database holds the same content already. */
  unchanged: number
  /** Left out: named by the skip lists, internal documents, or deleted ones of an upload. */
  skipped: number
  /** Not written; see `failures`. */
  failed: number
  /** Deleted because the backup does not hold them (`exact` only). */
  deleted: number
}

/** A document that a restore did not write. */
export interface RestoreFailure {
  database: LogicalDatabase
  id: string
  /** CouchDB's `error`, or a code of the plugin's, such as `reserved`. */
  error: string
  reason: string
}

/** The outcome of a restore: what it did, or with `dryRun` would do. */
export interface RestoreOutcome {
  /** Transaction of the restore. */
  tx_id: string
  databases: Partial<Record<LogicalDatabase, DatabaseRestoreCounts>>
  /** The first failures, at most 20. Long ids and reasons are cut, and say so. */
  failures: RestoreFailure[]
  /** Ids of `skip` and `exclude` that no document has. Absent when every id was found. */
  skip_unknown?: SkipUnknown
  /** Ids of `only` that no document has. Absent when every id was found. */
  only_unknown?: SkipUnknown
  /** Documents of the option `settingsDocuments` that the restore changes. Absent when it changes none. */
  settings_documents?: SettingsChange[]
  /**
   * The backup that was made before the first write: restored with `exact`, it takes this restore back. Absent where
   * none was made: by a dry run, with `safety: false`, and where the databases held nothing.
   */
  safety_backup?: string
  /**
   * Documents that a dry run found to be created, changed or deleted: the first 100, in at most 32 KiB of JSON. Long ids
   * are cut, and say so.
   */
  changes?: DocumentChange[]
  /** Number of all documents of which `changes` names the first. */
  changes_count?: number
}

/** A change that a restore makes, or with `dryRun` would make, to a document that holds a console's settings. */
export interface SettingsChange {
  /** Id of a document of the system database. */
  id: string
  change: 'created' | 'changed' | 'deleted'
}

/** Listed ids that no document of the backup has, nor, where `exact` looks, of the database. */
export interface UnknownIds {
  count: number
  /** The first, at most 20. Long ones are cut, and say so. */
  ids: string[]
}

/** Listed ids that no document has, by database. */
export type SkipUnknown = ByDatabase<UnknownIds>

/** How a restore is started. */
export interface RestoreOptions {
  /** Ids of documents not to restore, per database. Those that no document has are told in `skip_unknown`. */
  skip?: ByDatabase<readonly string[]>
  /**
   * Which documents to restore, per database: those that meet every member of its entry. A database without an entry is
   * left as it is. With `exact`, only such documents are deleted. Default: all.
   */
  only?: ByDatabase<DocumentChoice>
  /** Which documents not to restore, nor to delete: those that meet every member of an entry. Default: none. */
  exclude?: ByDatabase<DocumentChoice>
  /**
   * Make an ordinary backup of all databases before the first write, by which the restore can be taken back. If it fails,
   * nothing is written. Default: the option `safety` of the plugin.
   */
  safety?: boolean
  /**
   * Called with every document that a dry run finds to be created, changed or deleted. The next document waits for the
   * promise that it returns, `timeouts.idle` at most. An error that it throws fails the dry run. Only with `dryRun`.
   */
  onChange?: (change: FoundChange) => void | Promise<void>
  /** URL that receives a POST of the finished transaction. */
  clientWebhookUrl?: string
  /** Count what would be written and write nothing. Default `false`. */
  dryRun?: boolean
  /**
   * Delete documents that the backup does not hold, but for backups, transactions (`webhook_tx`), what `skip` names,
   * and types that are not backed up. Default `false`.
   */
  exact?: boolean
  /** The client that asks. Recorded in the transaction. */
  requester?: Requester
}

/** A restore that has begun. */
export interface StartedRestore {
  /** Its transaction, in the host's webhook store. */
  tx_id: string
  /**
   * Resolves after the white list has been rebuilt and the transaction completed. Safe to ignore, like
   * {@link StartedBackup.finished}.
   *
   * Rejects with an IncompleteRestoreError, whose `outcome` tells what was done, when documents failed, the database could
   * not be worked with any more, or the white list could not be rebuilt, and when it was cancelled while it wrote a
   * database; with a CancelledError when it was cancelled before, or is a dry run. Before anything is written, it rejects
   * with a DamagedBackupError, a SafetyBackupError or a BackupNotRestorableError (`exact`, where the backup does not name all
   * documents that it could not read), and for the `id` of a backup that athena made with an
   * InvalidBackupError, a TooLargeError or an InsufficientStorageError. At any time it rejects with a CouchError, a
   * SpoolDamagedError, a HostTimeoutError of `webhooks` or `onChange`, what `onChange` throws, a LeaseLostError or a
   * ClosingError.
   */
  finished: Promise<RestoreOutcome>
}

/** How backups are pruned. */
export interface PruneOptions {
  /** Which good backups are kept. Default: the option `keep` of the plugin; one of the two has to be there. */
  keep?: KeepRules | 'athena'
  /** Milliseconds for which failed backups are kept. Default: the option `keepFailed` of the plugin. */
  keepFailed?: number
  /** Tell what would be removed and remove nothing. Needs no lease. Default `false`. */
  dryRun?: boolean
  /** Also remove backups that athena made, and let the rules count them. Default `false`. */
  legacy?: boolean
  /**
   * Also delete chunks and manifests that no backup lists and whose own backup has no header: of a header that was
   * deleted by hand, but also of one that a replication has yet to bring. Default `false`.
   */
  orphans?: boolean
}

/** Why a backup is kept, or removed. */
export interface PruneDecision {
  id: string
  /** Reasons such as `"last 3"`, `"daily 2026-11-26"`, `"protected"`, or `"no rule keeps it"`. */
  reasons: string[]
}

/** Why a backup stays, and for how long. */
export interface KeptBackup extends PruneDecision {
  /**
   * When pruning will remove it, in milliseconds since the epoch, if every run of the option `schedule` makes a good backup
   * and is followed by pruning with these rules. Told by `dryRun`; absent where it stays beyond `foreseen`.
   */
  until?: number
}

/** The outcome of a removal of backups: what it deleted, or with `dryRun` would delete. */
export interface RemovedBackups {
  /**
   * The backups, oldest first. Those of an interrupted removal, whichever instance began it, come before them when this
   * removal has completed it: each is told once.
   */
  removed: PruneDecision[]
  /** Bytes of what was deleted, completions of earlier removals included. CouchDB gives them back when it compacts. */
  freed_bytes: number
  /** Chunks and manifests that were deleted. Those that other backups have as well stay. */
  parts: number
  /** Chunks and manifests without a header that were found, and deleted only with `orphans`. */
  orphans: { parts: number; bytes: number }
}

/** The outcome of pruning: what it did, or with `dryRun` would do. */
export interface PruneOutcome extends RemovedBackups {
  dryRun: boolean
  /** The backups that stay, oldest first. Those of other consoles in the same database are not told. */
  kept: KeptBackup[]
  /**
   * How far ahead `until` was looked for, in milliseconds since the epoch: 400 days, less where backups are many or made
   * often. Told by `dryRun` with the option `schedule`.
   */
  foreseen?: number
}

/** The outcome of `rekey()`. */
export interface RekeyOutcome {
  /** Id of the key. */
  key: string
  /** Backups that were sealed anew. */
  rekeyed: string[]
  /** How many backups were sealed with the key before, or hold nothing. */
  unchanged: number
  /**
   * Backups that stay as they are, and why: they are damaged, their key is missing, or their form cannot be sealed. Where
   * a header cannot be read whole, nothing is deleted, and `left` names it last.
   */
  left: { id: string; reason: string }[]
  /** Chunks that were sealed, each once, however many backups share it, and their bytes. */
  chunks: number
  bytes: number
  /**
   * Chunks and manifests that no backup lists any more and that were deleted. CouchDB gives their bytes back when it
   * compacts.
   */
  parts: number
  freed_bytes: number
}

/** The destination of a copy, and how to end it. */
export interface CopyOptions {
  /** A database that may keep backups, on this CouchDB or another. It has to be there. */
  to: {
    /** The destination's server, given like the option `couch`. */
    couch: ServerScope | (() => ServerScope)
    database: string
  }
  /** Ends the copy, which fails with its reason. The next copy uses the parts that were stored. */
  signal?: AbortSignal
}

/** The outcome of `copy()`. Parts are chunks, manifests, and what clients have appended. */
export interface CopyOutcome {
  /** Id of the backup, the same in both databases. */
  id: string
  /** Parts that were stored, and their bytes. */
  copied: { parts: number; bytes: number }
  /** Parts that were there already. */
  reused: { parts: number; bytes: number }
  /** The backup was there, and nothing was written. */
  already: boolean
}

/** The client that asked for an operation, as the host's `authorize` identified it. */
export interface Requester {
  /** The name, at most 256 characters. The transaction shows it as `by`. */
  name?: string
  uuid?: string
}
