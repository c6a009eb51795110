import { ToldFields } from '../format/told-fields.js'
import { bodyDifferences } from '../json/differences.js'
import { inTurns } from '../waits/steps.js'
import { type ChangedFields, Decider } from './decider.js'
import type { DecidedWrite, Decision, Deletion } from './decision.js'
import { headOf, type LiveDocument, type SourceDocument } from './source.js'

/** Decides, and knows which members of a changed document differ, for those who are told of each change. */
export class NamingDecider extends Decider {
  readonly #fields = new WeakMap<Decision, ChangedFields>()

  override fieldsOf(decision: Decision): ChangedFields {
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
