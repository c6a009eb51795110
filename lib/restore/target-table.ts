import type { Revision } from '../couch/database.js'
import { fingerprint } from '../ids/fingerprint.js'
import { FingerprintTable } from '../ids/fingerprint-table.js'

/** Documents that a table holds at a time: about 11 MiB. Larger restores are done in partitions. */
export const TABLE_DOCUMENTS = 500_000

const WORDS = 4
const SEEN = 0x80000000
const USED = 0x40000000
const WRITTEN = 0x20000000
const CHANGED = 0x10000000
const LEFT = 0x08000000
const STATE_BITS = 0x07ffffff

/** `absent`: the database has no such document. */
export type Comparison = 'absent' | 'same' | 'other'

/**
 * Holds a database's documents in 16 bytes each: 64 bits of a keyed hash of the id, 59 bits of one of the
 * state, which is the revision or the content. States can only be compared.
 */
export class TargetTable {
  readonly #table: FingerprintTable
  #unconfirmed = 0

  constructor(expected: number) {
    this.#table = new FingerprintTable(WORDS, expected)
  }

  get size(): number {
    return this.#table.size
  }

  set(id: string, state: string): void {
    this.#set(id, state, 0)
  }

  /** Compares a document's state with `state`, and marks the document as seen. */
  compare(id: string, state: string | undefined): Comparison {
    const at = this.#find(id)
    if (!this.#table.isUsed(at)) return 'absent'
    this.#mark(at, SEEN)
    return state !== undefined && this.#isAt(at, state) ? 'same' : 'other'
  }

  /**
   * Notes that a document was written at revision `rev`; {@link confirm} has to follow.
   * @param rev `undefined` where it is not known: nothing confirms the write then
   * @param changed whether it was written over another version
   */
  noteWritten(id: string, rev: string | undefined, changed: boolean): void {
    if ((this.#set(id, rev ?? '', SEEN | WRITTEN | (changed ? CHANGED : 0)) & WRITTEN) === 0)
      this.#unconfirmed++
  }

  /**
   * Notes that the database shows a document at `rev`, which confirms a write of that revision.
   * @param alone there is no other leaf; what was created has to be alone
   */
  confirm(id: string, rev: string, alone: boolean): void {
    const at = this.#find(id)
    if (!this.#has(at, WRITTEN) || !this.#isAt(at, rev)) return
    if (!alone && !this.#has(at, CHANGED)) return
    this.#table.setWord(at, 3, this.#table.word(at, 3) & ~WRITTEN)
    this.#unconfirmed--
  }

  /** Notes that a document is at the state it is to have, and was left as it is. */
  noteLeft(id: string): void {
    this.#mark(this.#find(id), LEFT)
  }

  /** Notes that the database shows a document at `rev`. One that was left at another has to be confirmed. */
  doubt(id: string, rev: string | undefined): void {
    const at = this.#find(id)
    if (!this.#has(at, LEFT) || this.#has(at, WRITTEN)) return
    if (rev !== undefined && this.#isAt(at, rev)) return
    this.#mark(at, WRITTEN | CHANGED)
    this.#unconfirmed++
  }

  wasLeft(id: string): boolean {
    return this.#has(this.#find(id), LEFT)
  }

  get unconfirmed(): number {
    return this.#unconfirmed
  }

  isUnconfirmed(id: string): boolean {
    return this.#has(this.#find(id), WRITTEN)
  }

  wasChanged(id: string): boolean {
    return this.#has(this.#find(id), CHANGED)
  }

  /** Returns whether `state` is what was noted last of a document. */
  isAt(id: string, state: string): boolean {
    const at = this.#find(id)
    return this.#table.isUsed(at) && this.#isAt(at, state)
  }

  /**
   * Returns which of a document's `conflicts` go: all if it was created, else those that this restore wrote.
   * @param own those that this restore is known to have written
   */
  toRemove(id: string, conflicts: readonly string[], own: readonly string[]): Revision[] {
    const created = !this.wasChanged(id)
    return conflicts
      .filter((rev) => created || own.includes(rev) || this.isAt(id, rev))
      .map((rev) => ({ id, rev }))
  }

  has(id: string): boolean {
    return this.#table.isUsed(this.#find(id))
  }

  wasSeen(id: string): boolean {
    return this.#has(this.#find(id), SEEN)
  }

  /** @returns what was noted before */
  #set(id: string, state: string, flags: number): number {
    const at = this.#table.place(fingerprint(id))
    const before = this.#table.word(at, 3)
    const { h, l } = fingerprint(state)
    this.#table.setWord(at, 2, h)
    this.#table.setWord(at, 3, USED | flags | (l & STATE_BITS))
    return before
  }

  #isAt(at: number, state: string): boolean {
    const { h, l } = fingerprint(state)
    return this.#table.word(at, 2) === h >>> 0 && (this.#table.word(at, 3) & STATE_BITS) === (l & STATE_BITS)
  }

  #mark(at: number, flags: number): void {
    this.#table.setWord(at, 3, this.#table.word(at, 3) | flags)
  }

  #find(id: string): number {
    return this.#table.find(fingerprint(id))
  }

  #has(at: number, flag: number): boolean {
    return this.#table.isUsed(at) && (this.#table.word(at, 3) & flag) !== 0
  }
}

/** Returns which of `count` partitions a document is in, independently of the table's slots. */
export const partitionOf = (id: string, count: number): number =>
  count === 1 ? 0 : (fingerprint(id).h >>> 0) % count
