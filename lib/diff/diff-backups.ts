import type { LogicalDatabase } from '../../types/databases.js'
import type { DocumentDiff } from '../../types/diff.js'
import { fingerprint } from '../ids/fingerprint.js'
import { INTERNAL_TYPES } from '../own-documents.js'
import { compareSides, keyOf } from './compare-sides.js'
import type { ComparedBackup } from './compared-backup.js'
import { unknownDiff } from './document-diff.js'
import { unreadDocuments } from './unread.js'

interface DiffBackupsOptions {
  databases: readonly LogicalDatabase[]
  values: boolean
}

/** Yields the documents that differ between two backups. @throws DamagedBackupError, CouchError */
export async function* diffBackups(
  before: ComparedBackup,
  after: ComparedBackup,
  { databases, values }: DiffBackupsOptions
): AsyncGenerator<DocumentDiff> {
  for (const database of databases) {
    if (!before.covers(database) || !after.covers(database)) continue
    const unread = new Set<string>()
    for (const backup of [before, after]) {
      for (const { id, reason } of unreadDocuments(backup.id, backup.about(database))) {
        const key = keyOf(fingerprint(id))
        if (!unread.has(key)) yield unknownDiff(database, id, reason)
        unread.add(key)
      }
    }
    const excluded = [before, after].flatMap((backup) => backup.about(database).excluded_types ?? [])
    yield* compareSides(before.side(database, after), after.side(database, before), {
      database,
      values,
      leftOut: new Set([...INTERNAL_TYPES, ...excluded]),
      isUnread: (print) => unread.size > 0 && unread.has(keyOf(print))
    })
  }
}
