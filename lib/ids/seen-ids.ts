import type { Fingerprint } from './fingerprint.js'

const HASHES = 7
const BITS_PER_ID = 32
const SMALLEST = 2 ** 16
const LARGEST = 2 ** 27
/** Size of each filter relative to the one before. */
const GROWTH = 4

/** Tells which ids may have been added before: Bloom filters of 8 KiB to 27 MiB, for four million. */
export class SeenIds {
  readonly #filters: BloomFilter[]

  constructor(expected: number) {
    let bits = SMALLEST
    while (bits < expected * BITS_PER_ID && bits < LARGEST) bits *= 2
    this.#filters = [new BloomFilter(bits)]
  }

  has(print: Fingerprint): boolean {
    return this.#filters.some((filter) => filter.has(print))
  }

  /** Adds an id. @returns whether it may have been added before */
  add(print: Fingerprint): boolean {
    const newest = this.#withRoom()
    for (const filter of this.#filters) if (filter !== newest && filter.has(print)) return true
    return newest.add(print)
  }

  #withRoom(): BloomFilter {
    const newest = this.#filters[this.#filters.length - 1]
    if (!newest.full || newest.bits >= LARGEST) return newest
    const larger = new BloomFilter(Math.min(newest.bits * GROWTH, LARGEST))
    this.#filters.push(larger)
    return larger
  }
}

class BloomFilter {
  readonly bits: number
  readonly #filter: Uint8Array
  readonly #mask: number
  #size = 0

  /** @param bits a power of two */
  constructor(bits: number) {
    this.bits = bits
    this.#filter = new Uint8Array(bits / 8)
    this.#mask = bits - 1
  }

  get full(): boolean {
    return this.#size * BITS_PER_ID >= this.bits
  }

  has({ h, l }: Fingerprint): boolean {
    for (let i = 0; i < HASHES; i++) {
      const bit = (l + Math.imul(i, h | 1)) & this.#mask
      if ((this.#filter[bit >>> 3] & (1 << (bit & 7))) === 0) return false
    }
    return true
  }

  /** Adds an id. @returns whether it may have been added before */
  add({ h, l }: Fingerprint): boolean {
    let known = true
    for (let i = 0; i < HASHES; i++) {
      const bit = (l + Math.imul(i, h | 1)) & this.#mask
      const flag = 1 << (bit & 7)
      if ((this.#filter[bit >>> 3] & flag) !== 0) continue
      known = false
      this.#filter[bit >>> 3] |= flag
    }
    if (!known) this.#size++
    return known
  }
}
