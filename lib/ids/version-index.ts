import { TooManyRepeatedError } from '../errors.js'
import type { Fingerprint } from './fingerprint.js'
import { FingerprintTable } from './fingerprint-table.js'
import { SeenIds } from './seen-ids.js'

const DELETED = -1
/** Most documents that may come more than once: their table takes 48 MiB. */
export const MAX_REPEATED = 3_000_000

/**
 * Tells which version of a document is the last, by fingerprints of ids: keeps the last ordinal only of those that
 * a filter takes for repeated. An only version mistaken for one is also the last. Takes 12 to 32 bytes a repeated
 * document.
 */
export class VersionIndex {
  /** Absent where every document may have an earlier version elsewhere. */
  readonly #seen: SeenIds | undefined
  readonly repeated = new LastVersions()
  /** Versions noted so far, which is the next ordinal. */
  count = 0

  /** @param expected about how many documents will come; `null`: each may have an earlier version elsewhere */
  constructor(expected: number | null = 0) {
    this.#seen = expected === null ? undefined : new SeenIds(expected)
  }

  /** Notes the next version of a document, and returns its ordinal. @throws TooManyRepeatedError */
  note(print: Fingerprint): number {
    const ordinal = this.count++
    if (!this.#seen || this.#seen.add(print)) this.#repeat(print, ordinal)
    return ordinal
  }

  /** Notes a deletion: earlier versions do not count. @throws TooManyRepeatedError */
  noteDeleted(print: Fingerprint): void {
    if (!this.#seen || this.#seen.has(print)) this.#repeat(print, DELETED)
  }

  isLast(print: Fingerprint, ordinal: number): boolean {
    return this.repeated.isLast(print, ordinal)
  }

  #repeat(print: Fingerprint, ordinal: number): void {
    if (this.repeated.size >= MAX_REPEATED) throw new TooManyRepeatedError(MAX_REPEATED)
    this.repeated.put(print, ordinal)
  }
}

/** Added to ordinals, so that no entry is 0. */
const SHIFT = 2

/** Holds the last versions of documents that have several: 12 bytes a slot, however long the id. */
export class LastVersions {
  readonly #table = new FingerprintTable(3)

  get size(): number {
    return this.#table.size
  }

  /** @param ordinal -1 when no version counts */
  put(print: Fingerprint, ordinal: number): void {
    this.#table.setWord(this.#table.place(print), 2, ordinal + SHIFT)
  }

  has(print: Fingerprint): boolean {
    return this.#table.isUsed(this.#table.find(print))
  }

  /** Returns whether a version is the one that counts. */
  isLast(print: Fingerprint, ordinal: number): boolean {
    if (this.size === 0) return true
    const word = this.#table.word(this.#table.find(print), 2)
    return word === 0 || word === ordinal + SHIFT
  }
}
