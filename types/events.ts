import type { BackupOutcome, RestoreOutcome } from './backups.js'

/** Told to the host's `onEvent`, so that it can notify people or keep metrics. */
export type BackupEvent =
  | { type: 'backup_started'; id: string }
  | { type: 'backup_finished'; id: string; durationMs: number; backup: BackupOutcome }
  | { type: 'backup_failed'; id: string; durationMs: number; error: Error }
  | { type: 'restore_started'; tx_id: string; backup_id?: string }
  | {
      type: 'restore_finished'
      tx_id: string
      backup_id?: string
      durationMs: number
      outcome: RestoreOutcome
    }
  | { type: 'restore_failed'; tx_id: string; backup_id?: string; durationMs: number; error: Error }
