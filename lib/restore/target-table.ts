import { type Fingerprint, fingerprint } from '../ids/fingerprint.js'
import { MARKS, StateTable } from './state-table.js'

/** Documents that a table holds at a time: about 11 MiB. Larger restores are done in partitions. */
export const TABLE_DOCUMENTS = 500_000

const [SEEN] = MARKS

/** The state by which a document is compared. */
export type State = { rev: string } | { print: string }

/** `absent`: the database has no such document. */
export type StateComparison = 'absent' | 'same' | 'other'

/** The state of each document of a database, by id, when the restore began. */
export class TargetTable extends StateTable {
  #seen = 0

  /** Whether every document was compared. */
  get allSeen(): boolean {
    return this.#seen === this.size
  }

  set(id: string, state: State): void {
    this.put(id, textOf(state), 0)
  }

  /** Compares a document's state with `state`, and marks the document as seen. */
  compare(id: string, state: State | undefined): StateComparison {
    const at = this.find(id)
    if (!this.isUsed(at)) return 'absent'
    if (!this.marked(at, SEEN)) this.#seen++
    this.mark(at, SEEN, true)
    return state && this.isAt(at, textOf(state)) ? 'same' : 'other'
  }

  wasSeen(id: string): boolean {
    return this.marked(this.find(id), SEEN)
  }
}

/** A revision has a dash, which no print has: the two are never the same. */
const textOf = (state: State): string => ('rev' in state ? state.rev : state.print)

/** Returns which of `count` partitions a document belongs to, independent of the table's slots. */
export const partitionOf = (id: string, count: number): number =>
  count === 1 ? 0 : partitionOfPrint(fingerprint(id), count)

export const partitionOfPrint = ({ h }: Fingerprint, count: number): number => (h >>> 0) % count
