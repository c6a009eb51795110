import type { UnreadableDocument } from '../../types/backups.js'
import { BackupNotComparableError } from '../errors.js'
import { type AboutDatabase, namesUnreadable } from '../format/about-database.js'

/** Returns the documents that a backup could not read. @throws BackupNotComparableError if some are not named */
export function unreadDocuments(backup: string, about: AboutDatabase): UnreadableDocument[] {
  if (!namesUnreadable(about))
    throw new BackupNotComparableError(
      backup,
      `it does not name all ${about.unreadable_count} documents that could not be backed up`
    )
  return (about.unreadable ?? []).map(({ id, reason }) => ({
    id,
    reason: `backup "${backup}" does not hold it: ${reason}`
  }))
}
