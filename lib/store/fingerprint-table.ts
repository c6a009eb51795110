import type { Fingerprint } from './fingerprint.js'

/** Share of the slots that is in use before the table doubles. */
const LOAD = 0.75
const FEWEST_SLOTS = 1024

/**
 * A hash table with open addressing, by fingerprints: two words for the fingerprint and as many more as its user wants
 * for each entry. A slot is free as long as its last word is 0, which the user must not leave it.
 */
export class FingerprintTable {
  /** All slots. Another array after {@link place}. */
  words: Uint32Array
  readonly #width: number
  #slots: number
  #size = 0

  /**
   * @param width words of an entry
   * @param expected about how many entries there will be
   */
  constructor(width: number, expected = 0) {
    this.#width = width
    this.#slots = Math.max(FEWEST_SLOTS, Math.ceil(expected / LOAD))
    this.words = new Uint32Array(this.#slots * width)
  }

  get size(): number {
    return this.#size
  }

  /** Returns the offset of an entry's first word, or of the free slot where it would stand. */
  find({ h, l }: Fingerprint): number {
    const low = l >>> 0
    let slot = Math.floor((low / 2 ** 32) * this.#slots)
    for (;;) {
      const at = slot * this.#width
      if (!this.isUsed(at) || (this.words[at] === h >>> 0 && this.words[at + 1] === low)) return at
      slot = slot + 1 === this.#slots ? 0 : slot + 1
    }
  }

  isUsed(at: number): boolean {
    return this.words[at + this.#width - 1] !== 0
  }

  /** Returns the offset of an entry, which is made where there is none: the caller fills its words. */
  place(print: Fingerprint): number {
    if (this.#size + 1 > this.#slots * LOAD) this.#grow()
    const at = this.find(print)
    if (!this.isUsed(at)) {
      this.#size++
      this.words[at] = print.h
      this.words[at + 1] = print.l
    }
    return at
  }

  #grow(): void {
    const old = this.words
    const width = this.#width
    this.#slots *= 2
    this.words = new Uint32Array(this.#slots * width)
    for (let at = 0; at < old.length; at += width) {
      if (old[at + width - 1] === 0) continue
      this.words.set(old.subarray(at, at + width), this.find({ h: old[at], l: old[at + 1] }))
    }
  }
}
