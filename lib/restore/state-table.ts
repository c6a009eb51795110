import { fingerprint } from '../ids/fingerprint.js'
import { FingerprintTable } from '../ids/fingerprint-table.js'

const WORDS = 4
const USED = 0x80000000
/** The state is known. */
const KNOWN = 0x40000000
const STATE_BITS = 0x07ffffff

/** Bits beside a state, to which a table gives a meaning. */
export const MARKS = [0x20000000, 0x10000000, 0x08000000] as const

/**
 * Keeps states of documents by id, in 16 bytes each: 64 bits of a keyed hash of the id, 59 of one of the
 * state, and three marks. Only whether a state is the same can be asked. Places are valid until the next
 * {@link put}; a document that is not there has no marks and no state.
 */
export class StateTable {
  readonly #table: FingerprintTable

  /** @param expected about how many documents there will be */
  constructor(expected: number) {
    this.#table = new FingerprintTable(WORDS, expected)
  }

  get size(): number {
    return this.#table.size
  }

  has(id: string): boolean {
    return this.isUsed(this.find(id))
  }

  /** @param state `undefined` where it is not known: it is the same as no other */
  protected put(id: string, state: string | undefined, marks: number): void {
    const at = this.#table.place(fingerprint(id))
    const { h, l } = state === undefined ? { h: 0, l: 0 } : fingerprint(state)
    this.#table.setWord(at, 2, h)
    this.#table.setWord(at, 3, USED | (state === undefined ? 0 : KNOWN) | marks | (l & STATE_BITS))
  }

  protected find(id: string): number {
    return this.#table.find(fingerprint(id))
  }

  protected isUsed(at: number): boolean {
    return this.marked(at, USED)
  }

  protected isAt(at: number, state: string): boolean {
    if (!this.marked(at, KNOWN)) return false
    const { h, l } = fingerprint(state)
    return this.#table.word(at, 2) === h >>> 0 && (this.#table.word(at, 3) & STATE_BITS) === (l & STATE_BITS)
  }

  protected marked(at: number, mark: number): boolean {
    return (this.#table.word(at, 3) & mark) !== 0
  }

  protected mark(at: number, mark: number, set: boolean): void {
    const word = this.#table.word(at, 3)
    this.#table.setWord(at, 3, set ? word | mark : word & ~mark)
  }
}
