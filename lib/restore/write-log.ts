import type { Revision } from '../couch/database.js'
import type { Counted } from './decision.js'
import { MARKS, StateTable } from './state-table.js'

const [UNCONFIRMED, CHANGED, LEFT] = MARKS
const MARKS_OF = { create: UNCONFIRMED, change: UNCONFIRMED | CHANGED, leave: LEFT } as const

/**
 * Keeps the documents that a restore has written, with their revisions, until a feed or look confirms them.
 * Documents left after a scan stand in it as well where another replica may know better; a look is due when the
 * feed shows another revision of them.
 */
export class WriteLog extends StateTable {
  /** Documents that have to be looked at. */
  unconfirmed = 0

  /** Notes a document once. @param rev `undefined`: the feed will not confirm it */
  note(id: string, counted: Counted, rev: string | undefined): void {
    this.put(id, rev, MARKS_OF[counted])
    if (counted !== 'leave') this.unconfirmed++
  }

  /** Notes what the feed shows, `undefined` for a deletion. @param alone without other leaves */
  shows(id: string, rev: string | undefined, alone: boolean): void {
    const at = this.find(id)
    const left = this.marked(at, LEFT)
    const stands = rev !== undefined && this.isAt(at, rev) && (alone || this.marked(at, CHANGED | LEFT))
    if (!(stands || left) || this.marked(at, UNCONFIRMED) === !stands) return
    this.mark(at, UNCONFIRMED, !stands)
    this.unconfirmed += stands ? -1 : 1
  }

  isUnconfirmed(id: string): boolean {
    return this.marked(this.find(id), UNCONFIRMED)
  }

  /** Returns how a document was counted. One that is not noted was created where the database had none. */
  countedAs(id: string): Counted {
    const at = this.find(id)
    if (this.marked(at, LEFT)) return 'leave'
    return this.marked(at, CHANGED) ? 'change' : 'create'
  }

  /** Returns whether `rev` is the revision that was noted of a document. */
  isOf(id: string, rev: string): boolean {
    return this.isAt(this.find(id), rev)
  }

  /** Returns the conflicts to remove: all of a created document, else those that this restore wrote. */
  toRemove(id: string, conflicts: readonly string[], own: readonly string[] = []): Revision[] {
    const created = this.countedAs(id) === 'create'
    return conflicts
      .filter((rev) => created || own.includes(rev) || this.isOf(id, rev))
      .map((rev) => ({ id, rev }))
  }
}
