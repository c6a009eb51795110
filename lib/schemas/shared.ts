import { AttachmentStored, Backup, BackupIds, BackupStarted } from './backup.js'
import { ErrorReply } from './errors.js'
import { RestoreStarted } from './restore.js'
import { Transaction } from './transaction.js'

/** The schemas that routes refer to by their `$id`. */
export const SHARED_SCHEMAS = [
  AttachmentStored,
  Backup,
  BackupIds,
  BackupStarted,
  ErrorReply,
  RestoreStarted,
  Transaction
]
