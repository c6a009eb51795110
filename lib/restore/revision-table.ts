import { type Fingerprint, fingerprint } from '../store/fingerprint.js'

/** Documents of a target whose revisions are held at a time: about 11 MiB. Larger targets are done in partitions. */
export const TABLE_DOCUMENTS = 500_000

const WORDS = 4
const LOAD = 0.75
const SEEN = 0x80000000
const USED = 0x40000000
const REV_BITS = 0x3fffffff

/** `absent`: the database has no such document. */
export type Comparison = 'absent' | 'same' | 'other'

/**
 * Current revisions of a database's documents by id, in 16 bytes each: 64 bits of a keyed hash of the id, 62 bits of
 * one of the revision. Only whether a revision is the same can be asked.
 */
export class RevisionTable {
  #words: Uint32Array
  #slots: number
  #size = 0

  /** @param expected about how many documents there will be */
  constructor(expected: number) {
    this.#slots = Math.max(1024, Math.ceil(expected / LOAD))
    this.#words = new Uint32Array(this.#slots * WORDS)
  }

  get size(): number {
    return this.#size
  }

  set(id: string, rev: string): void {
    if (this.#size + 1 > this.#slots * LOAD) this.#grow()
    const print = fingerprint(id)
    const at = this.#find(print)
    if (!this.#isUsed(at)) this.#size++
    const revPrint = fingerprint(rev)
    this.#words[at] = print.h
    this.#words[at + 1] = print.l
    this.#words[at + 2] = revPrint.h
    this.#words[at + 3] = USED | (revPrint.l & REV_BITS)
  }

  /** How a document's current revision compares with `rev`. Marks the document as seen. */
  compare(id: string, rev: string | undefined): Comparison {
    const at = this.#find(fingerprint(id))
    if (!this.#isUsed(at)) return 'absent'
    this.#words[at + 3] |= SEEN
    if (rev === undefined) return 'other'
    const { h, l } = fingerprint(rev)
    const same = this.#words[at + 2] === h >>> 0 && (this.#words[at + 3] & REV_BITS) === (l & REV_BITS)
    return same ? 'same' : 'other'
  }

  has(id: string): boolean {
    return this.#isUsed(this.#find(fingerprint(id)))
  }

  /** Whether {@link compare} was called with this id. */
  wasSeen(id: string): boolean {
    const at = this.#find(fingerprint(id))
    return this.#isUsed(at) && (this.#words[at + 3] & SEEN) !== 0
  }

  #find({ h, l }: Fingerprint): number {
    const low = l >>> 0
    let slot = Math.floor((low / 2 ** 32) * this.#slots)
    for (;;) {
      const at = slot * WORDS
      if (!this.#isUsed(at) || (this.#words[at] === h >>> 0 && this.#words[at + 1] === low)) return at
      slot = slot + 1 === this.#slots ? 0 : slot + 1
    }
  }

  #isUsed(at: number): boolean {
    return (this.#words[at + 3] & USED) !== 0
  }

  #grow(): void {
    const old = this.#words
    this.#slots *= 2
    this.#words = new Uint32Array(this.#slots * WORDS)
    for (let at = 0; at < old.length; at += WORDS) {
      if ((old[at + 3] & USED) === 0) continue
      this.#words.set(old.subarray(at, at + WORDS), this.#find({ h: old[at], l: old[at + 1] }))
    }
  }
}

/** Which of `count` partitions a document belongs to. Independent of the table's slots. */
export const partitionOf = (id: string, count: number): number =>
  count === 1 ? 0 : (fingerprint(id).h >>> 0) % count
