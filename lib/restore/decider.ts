import type { FoundChange } from '../../types/restores.js'
import { inTurns } from '../waits/steps.js'
import {
  create,
  type DecidedWrite,
  type Decision,
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

/** The members of a document that differ, as they are told. */
export type ChangedFields = Pick<FoundChange, 'fields' | 'fields_truncated'>

/** Decides on single documents by what the target has now: when planned, and after each conflict. */
export class Decider {
  readonly target: TargetView
  readonly #keepTypes: ReadonlySet<string>
  readonly #scope: Scope

  /** @param keepTypes types of documents that are not deleted @param scope what may be deleted */
  constructor(target: TargetView, keepTypes: ReadonlySet<string>, scope: Scope) {
    this.target = target
    this.#keepTypes = keepTypes
    this.#scope = scope
  }

  /** @param base what the document is written on where the target never had it */
  async beside(document: SourceDocument, found: CurrentDocument, base: NewBase): Promise<DecisionBeside> {
    const { id } = found
    switch (found.state) {
      case 'absent':
        return create(document, base)
      case 'deleted':
        return create(document, NO_BASE)
      case 'live': {
        if (await this.target.isSame(document, found.document))
          return { action: 'leave', id, why: 'compared' }
        const base = { kind: 'over', rev: found.document.rev } as const
        const change: DecidedWrite = { action: 'change', id, document, base }
        await this.compared(change, document, found.document)
        return change
      }
      default:
        return fails(id, found.state, found.reason)
    }
  }

  /** Finds the live revisions of documents that are to be deleted, and are there. */
  async deletions(ids: readonly string[]): Promise<(Deletion | Failure)[]> {
    const decisions: (Deletion | Failure)[] = []
    if (ids.length === 0) return decisions
    for await (const found of this.target.current(ids)) {
      const { id, state, conflicts } = found
      if (state === 'unreadable') decisions.push(fails(id, state, found.reason))
      if (state !== 'live') continue
      const { rev, type } = found.document
      if (type !== undefined && this.#keepTypes.has(type)) continue
      if (!(await inTurns(this.#scope.holds(found.document)))) continue
      const deletion: Deletion = { action: 'delete', id, revisions: [rev, ...conflicts] }
      await this.compared(deletion, undefined, found.document)
      decisions.push(deletion)
    }
    return decisions
  }

  /** Returns the members of a changed document that differ, when they are to be told. */
  fieldsOf(_decision: Decision): ChangedFields {
    return {}
  }

  /** Receives the documents of a decision while they are in memory. A decider that only compares overrides it. */
  protected async compared(
    _decision: DecidedWrite | Deletion,
    _document: SourceDocument | undefined,
    _current: LiveDocument
  ): Promise<void> {}
}
