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
type Comparison = 'absent' | 'same' | 'other'

/**
 * What a database holds, by id, in 16 bytes a document: 64 bits of a keyed hash of the id, 59 bits of one of the
 * document's state, which is its revision or its content. Only whether a state is the same can be asked.
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
   * @param changed it was written over another version
   */
  noteWritten(id: string, rev: string | undefined, changed: boolean): void {
    if ((this.#set(id, rev ?? '', SEEN | WRITTEN | (changed ? CHANGED : 0)) & WRITTEN) === 0)
      this.#unconfirmed++
  }

  /**
   * Notes that the database shows a document at `rev`, which confirms a write when it is the revision written.
   * @param alone there is no other leaf; what was created has to be alone
   */
  confirm(id: string, rev: string, alone: boolean): void {
    const at = this.#find(id)
    if (!this.#has(at, WRITTEN) || !this.#isAt(at, rev)) return
    if (!alone && !this.#has(at, CHANGED)) return
    this.#table.setWord(at, 3, this.#table.word(at, 3) & ~WRITTEN)
    this.#unconfirmed--
  }

  /** Notes that a document was left as it is, since it is at the state it is to have. */
  noteLeft(id: string): void {
    this.#mark(this.#find(id), LEFT)
  }

  /** Notes that the database shows a document at `rev`; one that was left, and is not at it, has to be confirmed. */
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

  /** Returns whether a document was written over another version. */
  wasChanged(id: string): boolean {
    return this.#has(this.#find(id), CHANGED)
  }

  /** Returns whether `state` is what was noted last of a document. */
  isAt(id: string, state: string): boolean {
    const at = this.#find(id)
    return this.#table.isUsed(at) && this.#isAt(at, state)
  }

  /**
   * Returns the revisions beside a document that go: all where it was created, else those that this restore has written.
   * @param conflicts revisions that conflict with the one that shows
   * @param own those of them that are known to be written by this restore
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

  /** Returns whether {@link compare} was called with this id. */
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

/** Returns which of `count` partitions a document belongs to. Partitions do not depend on the table's slots. */
export const partitionOf = (id: string, count: number): number =>
  count === 1 ? 0 : (fingerprint(id).h >>> 0) % count
