import type { FieldValues } from '../../types/diff.js'
import type { FoundChange } from '../../types/restores.js'
import { cutToBytes } from '../bytes/cut-text.js'

/** Members that are told of a document, and bytes of a name and of all names. */
const MAX_FIELDS = 100
const MAX_NAME = 256
const MAX_NAMES = 4096
/** Bytes of a value, and of all values of a document. */
const MAX_VALUE = 1024
const MAX_VALUES = 16 * 1024

/** The members of a document that differ, as they are told. */
export type ChangedFields = Pick<FoundChange, 'fields' | 'fields_truncated'>

/** Collects the names of the members that differ, and their values if they are asked for: as many as are told. */
export class ToldFields {
  truncated = false
  readonly values: FieldValues[] | undefined
  readonly #names: string[] = []
  #nameBytes = 0
  #valueBytes = 0

  constructor(values: boolean) {
    this.values = values ? [] : undefined
  }

  get changed(): ChangedFields {
    return { fields: this.#names, ...(this.truncated && { fields_truncated: true as const }) }
  }

  add(name: string, before?: Uint8Array, after?: Uint8Array): void {
    const field = cutToBytes(name, MAX_NAME)
    if (field !== name) this.truncated = true
    if (this.#names.length >= MAX_FIELDS || this.#nameBytes + field.length > MAX_NAMES) {
      this.truncated = true
      return
    }
    this.#names.push(field)
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
