import type { UnreadableDocument } from '../../types/backups.js'
import { BackupNotComparableError } from '../errors.js'
import type { AboutDatabase } from '../format/about-database.js'
import { allUnreadable } from '../repository/unreadable.js'

/** Returns the documents that a backup could not read. @throws BackupNotComparableError if it does not name all */
export function unreadDocuments(backup: string, about: AboutDatabase): UnreadableDocument[] {
  const unreadable = allUnreadable(about)
  if (!unreadable)
    throw new BackupNotComparableError(
      backup,
      `it does not name all ${about.unreadable_count} documents that could not be backed up`
    )
  return unreadable.map(({ id, reason }) => ({
    id,
    reason: `backup "${backup}" does not hold it: ${reason}`
  }))
}
