import type {
  BackupOutcome,
  CopyOutcome,
  DatabaseRestoreCounts,
  DatabaseSummary,
  PruneOutcome,
  RekeyOutcome,
  Requester,
  RestoreOutcome,
  SettingsChange
} from './backups.js'
import type { LogicalDatabase } from './databases.js'
import type { VerifyDepth, VerifyReport } from './verify.js'

/** A step of a backup that has ended. */
export type BackupPhase = {
  type: 'backup_database_finished'
  database: LogicalDatabase
  durationMs: number
  summary: DatabaseSummary
}

/** A step of a restore: one that has ended, or one that is about to begin. */
export type RestorePhase =
  | {
      /** The whole backup was read and checked; nothing has been written yet. */
      type: 'restore_checked'
      durationMs: number
      /** Documents of the databases that the backup holds. */
      documents: Partial<Record<LogicalDatabase, number>>
    }
  | {
      type: 'restore_database_finished'
      database: LogicalDatabase
      durationMs: number
      counts: DatabaseRestoreCounts
    }
  /** A document of the option `settingsDocuments` is about to be changed, or with `dryRun` would be. */
  | { type: 'restore_settings_document'; document: string; change: SettingsChange['change'] }
  /** The restore has made its safety backup. The events of that backup were told as well. */
  | { type: 'restore_safety_backup_made'; safety_backup: string; durationMs: number }
  | { type: 'restore_whitelist_rebuilt'; durationMs: number }

/** How an operation ended. */
interface Ended {
  durationMs: number
  /** Calls to the database that were tried again. */
  retries: number
}

interface AboutBackup {
  id: string
}

interface AboutPrune {
  /** `prune_<random>` */
  id: string
}

interface AboutRekey {
  /** `rekey_<random>` */
  id: string
}

interface AboutVerify {
  /** `verify_<random>` */
  id: string
  backup_id: string
  depth: VerifyDepth
}

interface AboutCopy {
  /** `copy_<random>` */
  id: string
  backup_id: string
  /** The database that it is copied to. */
  database: string
}

interface AboutRestore {
  tx_id: string
  backup_id?: string
  dryRun: boolean
}

/** Kinds of operations. One that holds the lease is the only one that runs, on all server instances. */
export type OperationKind = 'backup' | 'restore' | 'prune' | 'rekey' | 'verify' | 'copy'

interface AboutOperation {
  operation: OperationKind
  /** Id of the backup, of the restore's transaction, of the pruning, of the rekeying, of the verification, or of the copy. */
  id: string
}

/**
 * An event, as told to the host's `onEvent`, to the log and to the metrics. Minor versions may add types: ignore
 * those you do not know.
 */
export type BackupEvent =
  | (AboutBackup & { type: 'backup_started'; requester?: Requester })
  | (AboutBackup & BackupPhase)
  | (AboutBackup & Ended & { type: 'backup_finished'; backup: BackupOutcome })
  | (AboutBackup & Ended & { type: 'backup_failed'; error: Error })
  | (AboutRestore & { type: 'restore_started'; requester?: Requester })
  | (AboutRestore & RestorePhase)
  | (AboutRestore & Ended & { type: 'restore_finished'; outcome: RestoreOutcome })
  | (AboutRestore &
      Ended & {
        type: 'restore_failed'
        error: Error
        /** The outcome, when the restore went through to its end but documents or the white list failed. */
        outcome?: RestoreOutcome
      })
  | (AboutPrune & { type: 'prune_started' })
  | (AboutPrune & Ended & { type: 'prune_finished'; outcome: PruneOutcome })
  | (AboutPrune & Ended & { type: 'prune_failed'; error: Error })
  | (AboutRekey & { type: 'rekey_started'; key: string })
  /** A backup now lists only parts that are sealed with the current key. */
  | (AboutRekey & {
      type: 'rekey_backup_finished'
      backup: string
      durationMs: number
      chunks: number
      bytes: number
    })
  | (AboutRekey & Ended & { type: 'rekey_finished'; outcome: RekeyOutcome })
  | (AboutRekey & Ended & { type: 'rekey_failed'; error: Error })
  | (AboutVerify & { type: 'verify_started' })
  /** The verification has ended. `report.good` tells whether nothing is wrong. */
  | (AboutVerify & Ended & { type: 'verify_finished'; report: VerifyReport })
  /** The verification was interrupted, or could not begin. */
  | (AboutVerify & Ended & { type: 'verify_failed'; error: Error })
  | (AboutCopy & { type: 'copy_started' })
  | (AboutCopy & Ended & { type: 'copy_finished'; outcome: CopyOutcome })
  | (AboutCopy & Ended & { type: 'copy_failed'; error: Error })
  /** A call to the database has failed and will be made again after a wait. */
  | (AboutOperation & { type: 'retry'; attempt: number; waitMs: number; error: Error })
  /** The failure of an operation could not be written down; its lease will become stale, and it is recovered then. */
  | (AboutOperation & { type: 'failure_not_recorded'; error: Error })
  /** The instance that ran an operation has stopped; this one ends it. */
  | (AboutOperation & { type: 'lease_taken_over' })
  /** The backup is marked and its parts are deleted, the transaction is told, or the pruning will be completed. */
  | (AboutOperation & { type: 'recovered'; durationMs: number })
  /** Looking for interrupted operations, overdue notices or the newest backup failed; it is tried again. */
  | { type: 'check_failed'; error: Error }
  /** A client was told of its restore's end. */
  | { type: 'webhook_delivered'; tx_id: string; attempts: number; status: number }
  /** A client could not be told; there are no further attempts. */
  | { type: 'webhook_failed'; tx_id: string; attempts: number; status?: number; reason: string }
  /**
   * No backup was made for a due time. `made_elsewhere`: backup `id` began since then. `younger`: `id` is younger than
   * `unlessYoungerThan`.
   */
  | { type: 'schedule_skipped'; due: number; reason: 'made_elsewhere' | 'younger'; id: string }
  /** A scheduled backup failed, `id` if it had begun. Without `retryAt`, the next run is due before another attempt. */
  | { type: 'schedule_failed'; due: number; id?: string; retryAt?: number; error: Error }
  /** A scheduled verification failed. Without `retryAt`, the next run is due before another attempt. */
  | { type: 'schedule_verify_failed'; due: number; retryAt?: number; error: Error }
  /**
   * The pruning after a scheduled backup failed. The backup is good. A ClockAheadError tells that this host's
   * clock is ahead of the database server's, a ClockLeapError that the last two backups lie too far apart.
   */
  | { type: 'schedule_pruning_failed'; id: string; error: Error }
