import type { Fingerprint } from '../ids/fingerprint.js'
import { FingerprintTable } from '../ids/fingerprint-table.js'
import type { StateComparison } from '../restore/target-table.js'

/** Words of an entry: the fingerprint of the id, two of the state, and marks with the number of a chunk. */
const WORDS = 5
const USED = 0x80000000
const KNOWN = 0x40000000
const SAME = 0x20000000
const OTHER = 0x10000000
const CHUNK = 0x0fffffff

/** Finds the documents of two sides that may differ. Holds 20 bytes for each document of the held side. */
export class StateIndex {
  readonly #table: FingerprintTable
  /** Documents not found to be the same, by chunk of the held side. */
  readonly #left = new Map<number, number>()

  constructor(expected: number) {
    this.#table = new FingerprintTable(WORDS, expected)
  }

  /** Notes a document of the held side. */
  add(print: Fingerprint, state: Fingerprint | undefined, chunk: number): void {
    const place = this.#table.place(print)
    const words = [state?.h ?? 0, state?.l ?? 0, USED | (state ? KNOWN : 0) | chunk]
    for (const [i, word] of words.entries()) this.#table.setWord(place, i + 2, word)
    this.#left.set(chunk, (this.#left.get(chunk) ?? 0) + 1)
  }

  /** Compares a document of the streamed side. A document that is `other` may still say the same. */
  compare(print: Fingerprint, state: Fingerprint | undefined, chunk: number): StateComparison {
    const place = this.#table.find(print)
    if (!this.#table.isUsed(place)) return 'absent'
    const marks = this.#table.word(place, 4)
    const own = marks & CHUNK
    const [h, l] = [this.#table.word(place, 2), this.#table.word(place, 3)]
    if (state && (marks & KNOWN) !== 0 && h === state.h >>> 0 && l === state.l >>> 0) {
      this.#table.setWord(place, 4, USED | SAME | own)
      this.#left.set(own, (this.#left.get(own) ?? 0) - 1)
      return 'same'
    }
    this.#table.setWord(place, 2, chunk)
    this.#table.setWord(place, 4, USED | OTHER | own)
    return 'other'
  }

  has(print: Fingerprint): boolean {
    return this.#table.isUsed(this.#table.find(print))
  }

  isSame(print: Fingerprint): boolean {
    return (this.#marks(print) & SAME) !== 0
  }

  /** Returns the chunk of the streamed side that has a document in another state; `undefined` when none has. */
  otherChunk(print: Fingerprint): number | undefined {
    return (this.#marks(print) & OTHER) === 0 ? undefined : this.#table.word(this.#table.find(print), 2)
  }

  /** Returns whether a chunk of the held side has documents that were not found to be the same. */
  isLeft(chunk: number): boolean {
    return (this.#left.get(chunk) ?? 0) > 0
  }

  #marks(print: Fingerprint): number {
    return this.#table.word(this.#table.find(print), 4)
  }
}
