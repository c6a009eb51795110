import { markFailed } from '../backup/backup-job.js'
import { CouchError } from '../couch/errors.js'
import type { BackupStore } from '../store/backup-store.js'

/** Marks a backup as failed, unless it was deleted meanwhile. */
export async function writeBackupFailure(store: BackupStore, id: string, reason: string): Promise<void> {
  try {
    await markFailed(store, id, reason)
  } catch (error) {
    if (!(error instanceof CouchError && error.status === 404)) throw error
  }
}
