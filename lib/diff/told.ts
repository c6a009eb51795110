import type { LogicalDatabase } from '../../types/databases.js'
import type { DocumentDiff, FieldValues } from '../../types/diff.js'
import { cutText, cutToBytes, MOST } from '../bytes/cut-text.js'

/** Bytes of an id that is told. */
const MAX_ID = 512
/** Members that are told of a document, and bytes of a name and of all names. */
const MAX_FIELDS = 100
const MAX_NAME = 256
const MAX_NAMES = 4096
/** Bytes of a value, and of all values of a document. */
const MAX_VALUE = 1024
const MAX_VALUES = 16 * 1024

/** Collects the names of the members that differ, and their values if they are asked for: as many as are told. */
export class ToldFields {
  readonly names: string[] = []
  truncated = false
  readonly values: FieldValues[] | undefined
  #nameBytes = 0
  #valueBytes = 0

  constructor(values: boolean) {
    this.values = values ? [] : undefined
  }

  add(name: string, before: Uint8Array | undefined, after: Uint8Array | undefined): void {
    const field = cutToBytes(name, MAX_NAME)
    if (field !== name) this.truncated = true
    if (this.names.length >= MAX_FIELDS || this.#nameBytes + field.length > MAX_NAMES) {
      this.truncated = true
      return
    }
    this.names.push(field)
    this.#nameBytes += Buffer.byteLength(field)
    this.values?.push(this.#valuesOf(field, before, after))
  }

  #valuesOf(field: string, before: Uint8Array | undefined, after: Uint8Array | undefined): FieldValues {
    const told: FieldValues = { field }
    for (const [side, value] of Object.entries({ before, after })) {
      if (value === undefined) continue
      if (value.length > MAX_VALUE || this.#valueBytes + value.length > MAX_VALUES) told.truncated = true
      else {
        this.#valueBytes += value.length
        told[side as 'before' | 'after'] = Buffer.from(value).toString()
      }
    }
    return told
  }
}

/** Makes what is told of a document; `fields` only of one that was changed. */
export function toldDiff(
  database: LogicalDatabase,
  id: string,
  change: DocumentDiff['change'],
  bytes: DocumentDiff['bytes'],
  told: ToldFields
): DocumentDiff {
  const { names, truncated, values } = told
  return {
    ...named(database, id, change),
    ...(change === 'changed' && { fields: names, ...(truncated && { fields_truncated: true as const }) }),
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
