import type { BulkResult } from '../couch/bulk-body.js'
import { readFeed } from '../couch/feed.js'
import type { DocumentBytes } from '../json/document.js'
import { sharedTurn, turnAfter } from '../waits/steps.js'
import { type Applier, ATTEMPTS, writtenAgain } from './apply.js'
import { type Failure, NO_BASE } from './decision.js'
import { DocumentBatch } from './document-batch.js'
import { COMPARE_BATCH, type Plan } from './plan.js'
import { headOf, isLarge, type SourceDocument } from './source.js'
import type { Tally } from './tally.js'
import type { CurrentDocument } from './target.js'

/** How a document was counted before it is confirmed. */
type Counted = 'create' | 'change' | 'leave'

/**
 * Reads back what was written. CouchDB takes a document with its own revision whatever there is, from other
 * writers too: two versions make a conflict, which either may win, and a deletion hides what is behind it.
 */
export class Confirmation {
  readonly #applier: Applier
  readonly #plan: Plan
  readonly #tally: Tally

  constructor(applier: Applier) {
    this.#applier = applier
    this.#plan = applier.plan
    this.#tally = applier.tally
  }

  /** Writes again what does not show. @param since the update sequence before the target was scanned */
  async run(since: string): Promise<void> {
    const { table } = this.#plan
    if (table.unconfirmed === 0 && !this.#plan.target.isReplicated) return
    await this.#readFeed(since)
    if (table.unconfirmed === 0) return
    for (const design of [false, true]) await this.#confirmAll(design)
  }

  async #readFeed(since: string): Promise<void> {
    const { table } = this.#plan
    for await (const changes of readFeed(this.#plan.target.db, { since }, { includeDocs: false })) {
      for (const { id, rev, deleted, branched } of changes) {
        if (!deleted) table.confirm(id, rev, !branched)
        // The copy that was scanned may not have known what had become of it.
        table.doubt(id, deleted ? undefined : rev)
      }
    }
  }

  async #confirmAll(design: boolean): Promise<void> {
    const batch = new DocumentBatch<DocumentBytes>(COMPARE_BATCH)
    for await (const group of this.#plan.documents(design)) {
      for (const document of group) {
        await sharedTurn()
        const { id, bytes } = headOf(document)
        if (this.#plan.table.isUnconfirmed(id)) {
          if (isLarge(document)) await this.#makeStand(document)
          else await this.#confirm(batch.put(document))
        }
        await turnAfter(bytes)
      }
    }
    await this.#confirm(batch.take())
  }

  /** Looks for what the feed did not show: one of several copies has sent the feed, so it may be there. */
  async #confirm(documents: readonly DocumentBytes[] = []): Promise<void> {
    if (documents.length === 0) return
    const left = new Map(documents.map((document) => [document.id, document]))
    for await (const found of this.#plan.target.current([...left.keys()]))
      if (this.#stands(found)) left.delete(found.id)
    for (const document of left.values()) await this.#makeStand(document)
  }

  /** Returns whether a document is as it was written, with nothing beside it that must go. */
  #stands(found: CurrentDocument): boolean {
    const { table } = this.#plan
    const { id, conflicts } = found
    return (
      found.state === 'live' &&
      table.isAt(id, found.document.rev) &&
      table.toRemove(id, conflicts, []).length === 0
    )
  }

  /** Makes a document the version that shows, and corrects its count: as written, or as the same. */
  async #makeStand(document: SourceDocument): Promise<void> {
    const counted = this.#countedAs(headOf(document).id)
    const outcome = await this.#writeUntilAlone(document, counted)
    this.#tally.uncount(counted)
    if (typeof outcome === 'string') this.#tally.count(outcome)
    else this.#tally.fail(outcome)
  }

  #countedAs(id: string): Counted {
    if (this.#plan.table.wasLeft(id)) return 'leave'
    return this.#plan.table.wasChanged(id) ? 'change' : 'create'
  }

  /**
   * Writes a document until it shows. What was created must be the only version; of conflicts that were there
   * before, only what this restore has written goes.
   * @returns how to count the document, or why it could not be written
   */
  async #writeUntilAlone(
    document: SourceDocument,
    counted: Counted
  ): Promise<Counted | Omit<Failure, 'action'>> {
    const { id } = headOf(document)
    const { table } = this.#plan
    const own: string[] = []
    let action = counted
    let failure = writtenAgain(id)
    for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
      const found = await this.#plan.target.read(id)
      const { state, conflicts } = found
      if (state === 'unreadable' || state === 'reserved') return { id, error: state, reason: found.reason }
      const live = state === 'live' ? found.document : undefined
      const same = live && (table.isAt(id, live.rev) || (await this.#plan.target.isSame(document, live)))
      const others = table.toRemove(id, conflicts, own)
      if (same && others.length === 0) return action
      if (!same && action === 'leave') {
        action = live ? 'change' : 'create'
        await this.#tally.announce(id, action)
      }
      const base = live ? ({ kind: 'over', rev: live.rev } as const) : NO_BASE
      const result: BulkResult | undefined = same
        ? (await this.#plan.target.delete(others))[0]
        : await this.#applier.writeNow(document, base)
      if (result?.rev !== undefined) own.push(result.rev)
      if (result?.error !== undefined && result.error !== 'conflict')
        failure = { id, error: result.error, reason: result.reason ?? '' }
    }
    return failure
  }
}
