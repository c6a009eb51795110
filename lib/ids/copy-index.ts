import { TooManyRepeatedError } from '../errors.js'
import { type Fingerprint, fingerprint } from './fingerprint.js'
import { FingerprintTable } from './fingerprint-table.js'
import { SeenIds } from './seen-ids.js'

const DELETED = -1
/** Documents that may come more than once in one stream: their table takes 48 MiB. */
export const MAX_REPEATED = 3_000_000

/**
 * Tells which copy of a document is the last, for streams in which nearly every document comes once.
 *
 * A filter finds ids that may have come before; only for those the ordinal of the last copy is kept. An id that is kept
 * by mistake does no harm: its only copy is its last. So memory hardly depends on the number of documents, only on how
 * many come again, 12 to 32 bytes for each whatever the length of its id.
 */
export class CopyIndex {
  readonly #seen: SeenIds
  /** Documents that may have come more than once. */
  readonly repeated = new LastCopies()
  /** Copies noted so far; the next one's ordinal. */
  copies = 0

  /** @param expected about how many documents will come, where that is known */
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

  /** Notes that a document was deleted: copies noted before do not count. @throws TooManyRepeatedError */
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

/** Added to an ordinal, so that no entry is 0. */
const SHIFT = 2
/** An entry of which {@link LastCopies.takeOnce} has told. */
const TOLD = 0x80000000

/** Which copy is the last, of documents that have several: 12 bytes a slot, whatever the length of an id. */
export class LastCopies {
  readonly #table = new FingerprintTable(3)

  get size(): number {
    return this.#table.size
  }

  /** @param ordinal -1 when no copy counts */
  put(print: Fingerprint, ordinal: number): void {
    this.#table.setWord(this.#table.place(print), 2, ordinal + SHIFT)
  }

  /** Returns whether the copy with this ordinal is the one that counts. `id` may also be what `largeKey` made of it. */
  isLast(id: string, ordinal: number): boolean {
    if (this.size === 0) return true
    const word = this.#table.word(this.#table.find(fingerprint(id)), 2)
    return word === 0 || (word & ~TOLD) === ordinal + SHIFT
  }

  /** Returns the last copy's ordinal the first time that it is asked for, -1 for deleted; `undefined` after that. */
  takeOnce(id: string): number | undefined {
    const place = this.#table.find(fingerprint(id))
    const word = this.#table.word(place, 2)
    if (word === 0 || (word & TOLD) !== 0) return undefined
    this.#table.setWord(place, 2, word | TOLD)
    return word - SHIFT
  }
}
