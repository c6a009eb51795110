import type { FoundChange } from '../../types/restores.js'
import { ToldFields } from '../format/told-fields.js'
import { bodyDifferences } from '../json/differences.js'
import { inTurns } from '../waits/steps.js'
import { Decider } from './decider.js'
import type { DecidedWrite, Decision, Deletion } from './decision.js'
import { headOf, type LiveDocument, type SourceDocument } from './source.js'

type Fields = Pick<FoundChange, 'fields' | 'fields_truncated'>

/** Decides, and knows which members of a changed document differ, for those who are told of each change. */
export class NamingDecider extends Decider {
  readonly #fields = new WeakMap<Decision, Fields>()

  /** Returns the members that differ; nothing but for a changed document. */
  fieldsOf(decision: Decision): Fields {
    return this.#fields.get(decision) ?? {}
  }

  protected override async compared(
    decision: DecidedWrite | Deletion,
    document: SourceDocument | undefined,
    current: LiveDocument
  ): Promise<void> {
    if (decision.action !== 'change' || !document) return
    const told = new ToldFields(false)
    const find = bodyDifferences(current, headOf(document), (name, one, other) => told.add(name, one, other))
    // Attachments are looked at only where the body says the same.
    if (await inTurns(find)) told.add('_attachments', undefined, undefined)
    this.#fields.set(decision, {
      fields: told.names,
      ...(told.truncated && { fields_truncated: true as const })
    })
  }
}
