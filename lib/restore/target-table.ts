import { fingerprint } from '../ids/fingerprint.js'
import { MARKS, StateTable } from './state-table.js'

/** Documents that a table holds at a time: about 11 MiB. Larger restores are done in partitions. */
export const TABLE_DOCUMENTS = 500_000

const [SEEN] = MARKS

/** What a document is compared by. */
export type State = { rev: string } | { print: string }

/** `absent`: the database has no such document. */
export type Comparison = 'absent' | 'same' | 'other'

/** What a database held, by id, when the restore began. */
export class TargetTable {
  readonly #states: StateTable

  constructor(expected: number) {
    this.#states = new StateTable(expected)
  }

  get size(): number {
    return this.#states.size
  }

  set(id: string, state: State): void {
    this.#states.set(id, textOf(state), 0)
  }

  /** Compares a document's state with `state`, and marks the document as seen. */
  compare(id: string, state: State | undefined): Comparison {
    const at = this.#states.find(id)
    if (at === undefined) return 'absent'
    this.#states.mark(at, SEEN, true)
    return state && this.#states.isAt(at, textOf(state)) ? 'same' : 'other'
  }

  has(id: string): boolean {
    return this.#states.find(id) !== undefined
  }

  /** Returns whether {@link compare} was called with this id. */
  wasSeen(id: string): boolean {
    const at = this.#states.find(id)
    return at !== undefined && this.#states.has(at, SEEN)
  }
}

/** A revision has a dash, which no print has: the two are never the same. */
const textOf = (state: State): string => ('rev' in state ? state.rev : state.print)

/** Returns which of `count` partitions a document belongs to. Partitions do not depend on the table's slots. */
export const partitionOf = (id: string, count: number): number =>
  count === 1 ? 0 : (fingerprint(id).h >>> 0) % count
