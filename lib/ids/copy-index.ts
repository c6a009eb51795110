import { TooManyRepeatedError } from '../errors.js'
import { type Fingerprint, fingerprint } from './fingerprint.js'
import { FingerprintTable } from './fingerprint-table.js'
import { SeenIds } from './seen-ids.js'

const DELETED = -1
/** Most documents that may come more than once: their table takes 48 MiB. */
export const MAX_REPEATED = 3_000_000

/**
 * Tells which copy of a document is the last: keeps the last ordinal only of ids that a filter takes for
 * repeated. An only copy mistaken for one is also the last. Takes 12 to 32 bytes a repeated document.
 */
export class CopyIndex {
  readonly #seen: SeenIds
  readonly repeated = new LastCopies()
  /** Copies noted so far, which is the next ordinal. */
  copies = 0

  constructor(expected = 0) {
    this.#seen = new SeenIds(expected)
  }

  /** Notes the next copy of a document, and returns its ordinal. @throws TooManyRepeatedError */
  note(id: string): number {
    const ordinal = this.copies++
    const print = fingerprint(id)
    if (this.#seen.add(print)) this.#repeat(print, ordinal)
    return ordinal
  }

  /** Notes a deletion: earlier copies do not count. @throws TooManyRepeatedError */
  noteDeleted(id: string): void {
    const print = fingerprint(id)
    if (this.#seen.has(print)) this.#repeat(print, DELETED)
  }

  isLast(id: string, ordinal: number): boolean {
    return this.repeated.isLast(id, ordinal)
  }

  #repeat(print: Fingerprint, ordinal: number): void {
    if (this.repeated.size >= MAX_REPEATED) throw new TooManyRepeatedError(MAX_REPEATED)
    this.repeated.put(print, ordinal)
  }
}

/** Added to ordinals, so that no entry is 0. */
const SHIFT = 2
/** Marks an entry that {@link LastCopies.takeOnce} has returned. */
const TOLD = 0x80000000

/** Holds the last copies of documents that have several: 12 bytes a slot, however long the id. */
export class LastCopies {
  readonly #table = new FingerprintTable(3)

  get size(): number {
    return this.#table.size
  }

  /** @param ordinal -1 when no copy counts */
  put(print: Fingerprint, ordinal: number): void {
    this.#table.setWord(this.#table.place(print), 2, ordinal + SHIFT)
  }

  /** Returns whether a copy is the one that counts. `id` may also be its `largeKey`. */
  isLast(id: string, ordinal: number): boolean {
    if (this.size === 0) return true
    const word = this.#table.word(this.#table.find(fingerprint(id)), 2)
    return word === 0 || (word & ~TOLD) === ordinal + SHIFT
  }

  /** Returns the last copy's ordinal, -1 for deleted, once; `undefined` after that. */
  takeOnce(id: string): number | undefined {
    const place = this.#table.find(fingerprint(id))
    const word = this.#table.word(place, 2)
    if (word === 0 || (word & TOLD) !== 0) return undefined
    this.#table.setWord(place, 2, word | TOLD)
    return word - SHIFT
  }
}
