import { inTurns } from '../waits/steps.js'
import {
  create,
  type DecisionBeside,
  type Deletion,
  type Failure,
  fails,
  type NewBase,
  NO_BASE
} from './decision.js'
import type { Scope } from './scope.js'
import type { LiveDocument, SourceDocument } from './source.js'
import type { CurrentDocument, TargetView } from './target.js'

/** Compares a document with the target's while both are in memory. A document to be deleted is compared with `undefined`. */
type Compare<T> = (document: SourceDocument | undefined, current: LiveDocument) => Promise<T | undefined>

/** Decides on single documents by what the target has now: when planned, and after each conflict. */
export class Decider<T = unknown> {
  readonly target: TargetView
  readonly #keepTypes: ReadonlySet<string>
  readonly #scope: Scope
  readonly #compare: Compare<T> | undefined

  /**
   * @param keepTypes types of documents that are not deleted @param scope what may be deleted
   * @param compare makes what decisions tell of a document that is to be changed or deleted
   */
  constructor(target: TargetView, keepTypes: ReadonlySet<string>, scope: Scope, compare?: Compare<T>) {
    this.target = target
    this.#keepTypes = keepTypes
    this.#scope = scope
    this.#compare = compare
  }

  /** @param base what the document is written on where the target never had it */
  async beside(document: SourceDocument, found: CurrentDocument, base: NewBase): Promise<DecisionBeside<T>> {
    const { id } = found
    switch (found.state) {
      case 'absent':
        return create(document, base)
      case 'deleted':
        return create(document, NO_BASE)
      case 'live': {
        const { document: current } = found
        if (await this.target.isSame(document, current)) return { action: 'leave', id, why: 'compared' }
        const compared = await this.#compare?.(document, current)
        return { action: 'change', id, document, base: { kind: 'over', rev: current.rev }, compared }
      }
      default:
        return fails(id, found.state, found.reason)
    }
  }

  /** Finds the live revisions of documents that are to be deleted, and are there. */
  async deletions(ids: readonly string[]): Promise<(Deletion<T> | Failure)[]> {
    const decisions: (Deletion<T> | Failure)[] = []
    if (ids.length === 0) return decisions
    for await (const found of this.target.current(ids)) {
      const { id, state, conflicts } = found
      if (state === 'unreadable') decisions.push(fails(id, state, found.reason))
      if (state !== 'live') continue
      const { rev, type } = found.document
      if (type !== undefined && this.#keepTypes.has(type)) continue
      if (!(await inTurns(this.#scope.holds(found.document)))) continue
      const compared = await this.#compare?.(undefined, found.document)
      decisions.push({ action: 'delete', id, revisions: [rev, ...conflicts], compared })
    }
    return decisions
  }
}
