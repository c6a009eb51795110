import type { LogicalDatabase } from '../../types/databases.js'
import type { DocumentDiff } from '../../types/diff.js'
import { cutText, cutToBytes, MOST } from '../bytes/cut-text.js'
import type { ToldFields } from '../format/told-fields.js'

/** Most bytes of an id in a difference. */
const MAX_ID = 512

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

function named(database: LogicalDatabase, id: string, change: DocumentDiff['change']) {
  const cut = cutToBytes(id, MAX_ID)
  return { database, id: cut, ...(cut !== id && { id_truncated: true as const }), change }
}
