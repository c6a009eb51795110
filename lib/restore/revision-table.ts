import { type Fingerprint, fingerprint } from '../store/fingerprint.js'

/** Documents of a target whose revisions are held at a time: about 20 MiB. Larger targets are done in partitions. */
export const TABLE_DOCUMENTS = 500_000

const WORDS = 7
const SEEN = 0x80000000
const GENERATION = 0x7fffffff
const DIGEST = /^[0-9a-f]{32}$/

/**
 * Current revisions of a database's documents by id, in 28 bytes each: a 64-bit fingerprint of the id, the generation
 * and the 128-bit digest of the revision. Revisions of another form are kept beside.
 */
export class RevisionTable {
  #words: Uint32Array
  #mask: number
  #size = 0
  readonly #others = new Map<string, string>()

  /** @param expected about how many documents there will be */
  constructor(expected: number) {
    let slots = 1024
    while (slots * 0.7 < expected) slots *= 2
    this.#words = new Uint32Array(slots * WORDS)
    this.#mask = slots - 1
  }

  get size(): number {
    return this.#size
  }

  set(id: string, rev: string): void {
    if ((this.#size + 1) * WORDS > this.#words.length * 0.75) this.#grow()
    const print = fingerprint(id)
    const at = this.#find(print)
    if (!this.#isUsed(at)) this.#size++
    const dash = rev.indexOf('-')
    const digest = rev.slice(dash + 1)
    const words = this.#words
    words[at] = print.h
    words[at + 1] = print.l
    words[at + 2] = Number(rev.slice(0, dash)) & GENERATION
    if (DIGEST.test(digest)) {
      for (let i = 0; i < 4; i++) words[at + 3 + i] = Number.parseInt(digest.slice(i * 8, i * 8 + 8), 16)
      this.#others.delete(id)
    } else {
      words.fill(0, at + 3, at + 7)
      this.#others.set(id, rev)
    }
  }

  /** The revision of a document, `undefined` when the database has none; marks it as seen. */
  see(id: string): string | undefined {
    const at = this.#find(fingerprint(id))
    if (!this.#isUsed(at)) return undefined
    this.#words[at + 2] |= SEEN
    const other = this.#others.get(id)
    if (other !== undefined) return other
    let rev = `${this.#words[at + 2] & GENERATION}-`
    for (let i = 3; i < 7; i++) rev += this.#words[at + i].toString(16).padStart(8, '0')
    return rev
  }

  has(id: string): boolean {
    return this.#isUsed(this.#find(fingerprint(id)))
  }

  /** Whether {@link see} was called with this id. */
  wasSeen(id: string): boolean {
    const at = this.#find(fingerprint(id))
    return this.#isUsed(at) && (this.#words[at + 2] & SEEN) !== 0
  }

  #find({ h, l }: Fingerprint): number {
    let slot = l & this.#mask
    for (;;) {
      const at = slot * WORDS
      if (!this.#isUsed(at) || (this.#words[at] === h && this.#words[at + 1] === l)) return at
      slot = (slot + 1) & this.#mask
    }
  }

  /** A revision's generation is never 0. */
  #isUsed(at: number): boolean {
    return (this.#words[at + 2] & GENERATION) !== 0
  }

  #grow(): void {
    const old = this.#words
    this.#words = new Uint32Array(old.length * 2)
    this.#mask = this.#words.length / WORDS - 1
    for (let at = 0; at < old.length; at += WORDS) {
      if ((old[at + 2] & GENERATION) === 0) continue
      this.#words.set(old.subarray(at, at + WORDS), this.#find({ h: old[at], l: old[at + 1] }))
    }
  }
}

/** Which of `count` partitions a document belongs to. Independent of the table's slots. */
export const partitionOf = (id: string, count: number): number =>
  count === 1 ? 0 : (fingerprint(id).h >>> 0) % count
