import type { LogicalDatabase } from '../../types/databases.js'
import type { DocumentDiff } from '../../types/diff.js'
import { cutText, cutToBytes, MOST } from '../bytes/cut-text.js'
import type { ToldFields } from '../format/told-fields.js'

/** Bytes of an id that is told. */
const MAX_ID = 512

/** Makes what is told of a document; `fields` only of one that was changed. */
export function toldDiff(
  database: LogicalDatabase,
  id: string,
  change: DocumentDiff['change'],
  bytes: DocumentDiff['bytes'],
  told: ToldFields
): DocumentDiff {
  const { changed, truncated, values } = told
  return {
    ...named(database, id, change),
    ...(change === 'changed' && changed),
    bytes,
    ...(values && { values, ...(truncated && { values_truncated: true as const }) })
  }
}

/** Makes what is told of a document that could not be compared. */
export const toldUnknown = (database: LogicalDatabase, id: string, reason: string): DocumentDiff => ({
  ...named(database, id, 'unknown'),
  bytes: {},
  reason: cutText(reason, MOST.reason)
})

function named(database: LogicalDatabase, id: string, change: DocumentDiff['change']) {
  const cut = cutToBytes(id, MAX_ID)
  return { database, id: cut, ...(cut !== id && { id_truncated: true as const }), change }
}
