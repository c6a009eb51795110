import type { BulkResult } from '../couch/bulk-body.js'
import { readFeed } from '../couch/feed.js'
import type { DocumentBytes } from '../json/document.js'
import { sharedTurn, turnAfter } from '../waits/steps.js'
import { type Applier, ATTEMPTS, deleteAll, writtenAgain } from './apply.js'
import { type Counted, type Failure, NO_BASE } from './decision.js'
import { DocumentBatch } from './document-batch.js'
import { headOf, isLarge, type SourceDocument } from './source.js'
import { COMPARE_BATCH, type CurrentDocument } from './target.js'

type DocumentsOf = (design: boolean) => AsyncIterable<SourceDocument[]>

/**
 * Reads back what was written. CouchDB takes a document with its own revision whatever there is, from other
 * writers too: two versions make a conflict, which either may win, and a deletion hides what is behind it.
 */
export class Confirmation {
  readonly #applier: Applier
  readonly #documents: DocumentsOf

  /** @param documents yields those of the backup again that were decided on */
  constructor(applier: Applier, documents: DocumentsOf) {
    this.#applier = applier
    this.#documents = documents
  }

  /** Writes again what does not show. @param since the update sequence before the target was scanned */
  async run(since: string): Promise<void> {
    const { log, decider } = this.#applier
    if (log.unconfirmed === 0 && !decider.target.isReplicated) return
    await this.#readFeed(since)
    if (log.unconfirmed === 0) return
    for (const design of [false, true]) await this.#confirmAll(design)
  }

  async #readFeed(since: string): Promise<void> {
    const { db, log } = this.#applier
    for await (const changes of readFeed(db, { since }, { includeDocs: false })) {
      for (const { id, rev, deleted, branched } of changes)
        log.shows(id, deleted ? undefined : rev, !branched)
    }
  }

  async #confirmAll(design: boolean): Promise<void> {
    const batch = new DocumentBatch<DocumentBytes>(COMPARE_BATCH)
    for await (const group of this.#documents(design)) {
      for (const document of group) {
        await sharedTurn()
        const { id, bytes } = headOf(document)
        if (this.#applier.log.isUnconfirmed(id)) {
          if (isLarge(document)) await this.#makeStand(document)
          else await this.#confirm(batch.put(document))
        }
        await turnAfter(bytes)
      }
    }
    await this.#confirm(batch.take())
  }

  /** Looks for what the feed did not show: one of several replicas has sent the feed, so it may be there. */
  async #confirm(documents: readonly DocumentBytes[] = []): Promise<void> {
    if (documents.length === 0) return
    const left = new Map(documents.map((document) => [document.id, document]))
    for await (const found of this.#applier.decider.target.current([...left.keys()]))
      if (this.#stands(found)) left.delete(found.id)
    for (const document of left.values()) await this.#makeStand(document)
  }

  /** Returns whether a document is as it was written, with nothing beside it that must go. */
  #stands(found: CurrentDocument): boolean {
    const { log } = this.#applier
    const { id, conflicts } = found
    return (
      found.state === 'live' && log.isOf(id, found.document.rev) && log.toRemove(id, conflicts).length === 0
    )
  }

  /** Makes a document the version that shows, and corrects its count: as written, or as the same. */
  async #makeStand(document: SourceDocument): Promise<void> {
    const { log, tally } = this.#applier
    const counted = log.countedAs(headOf(document).id)
    const outcome = await this.#writeUntilAlone(document, counted)
    tally.uncount(counted)
    if (typeof outcome === 'string') tally.count(outcome)
    else tally.fail(outcome)
  }

  /**
   * Writes a document until it shows. A created document must be the only version. Conflicts that were there
   * before stay, except those that this restore has written. @returns how to count it, or why it failed
   */
  async #writeUntilAlone(
    document: SourceDocument,
    counted: Counted
  ): Promise<Counted | Omit<Failure, 'action'>> {
    const { id } = headOf(document)
    const { db, decider, log, tally } = this.#applier
    const own: string[] = []
    let action = counted
    let failure = writtenAgain(id)
    for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
      const found = await decider.target.read(id)
      const stands = found.state === 'live' && log.isOf(id, found.document.rev)
      const decision = stands ? undefined : await decider.beside(document, found, NO_BASE)
      if (decision?.action === 'fail') return decision
      const write = decision?.action === 'leave' ? undefined : decision
      const others = log.toRemove(id, found.conflicts, own)
      if (!write && others.length === 0) return action
      if (write && action === 'leave') {
        action = write.action
        await tally.announce(id, action)
      }
      const result: BulkResult | undefined = write
        ? await this.#applier.writeNow(document, write.base)
        : (await deleteAll(db, others))[0]
      if (result?.rev !== undefined) own.push(result.rev)
      if (result?.error !== undefined && result.error !== 'conflict')
        failure = { id, error: result.error, reason: result.reason ?? '' }
    }
    return failure
  }
}
