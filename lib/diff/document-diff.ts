import type { LogicalDatabase } from '../../types/databases.js'
import type { DocumentDiff } from '../../types/diff.js'
import { cutText, MOST, toldId } from '../bytes/cut-text.js'
import type { ToldFields } from '../format/told-fields.js'

/** Makes the difference of a document. Only a changed document has `fields`. */
export function diffOf(
  database: LogicalDatabase,
  id: string,
  change: DocumentDiff['change'],
  bytes: DocumentDiff['bytes'],
  { changed, truncated, values }: ToldFields
): DocumentDiff {
  return {
    ...named(database, id, change),
    ...(change === 'changed' && changed),
    bytes,
    ...(values && { values, ...(truncated && { values_truncated: true as const }) })
  }
}

/** Makes the difference of a document that could not be compared. */
export const unknownDiff = (database: LogicalDatabase, id: string, reason: string): DocumentDiff => ({
  ...named(database, id, 'unknown'),
  bytes: {},
  reason: cutText(reason, MOST.reason)
})

const named = (database: LogicalDatabase, id: string, change: DocumentDiff['change']) => ({
  database,
  ...toldId(id),
  change
})
