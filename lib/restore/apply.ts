import { BulkBody, type BulkResult } from '../couch/bulk-body.js'
import { documentSteps } from '../json/document.js'
import { inTurns, turnAfter } from '../waits/steps.js'
import { BulkWriter, RequestsInFlight, type Write } from './bulk-writer.js'
import {
  type BaseRevision,
  bytesOn,
  type DecidedWrite,
  type Deletion,
  type DocumentDecision,
  type Failure,
  NO_BASE
} from './decision.js'
import { DocumentBatch } from './document-batch.js'
import type { LargeDocument } from './large-document.js'
import { LargeWriter } from './large-writer.js'
import type { Plan } from './plan.js'
import { isLarge, type SourceDocument } from './source.js'
import type { Tally } from './tally.js'
import type { CurrentDocument } from './target.js'
import { WriteRequests } from './write-requests.js'

/** How often a document is written, or deleted, when others change it meanwhile. */
export const ATTEMPTS = 5
/** Documents whose current version is read at once, after a conflict. */
const LOOK_BATCH = 100

interface Attempt {
  id: string
  action: DecidedWrite['action']
  base: BaseRevision
  attempt: number
}

/** An attempt after which the document may not be what was written. */
type Doubtful<A extends Attempt> = A & {
  /** The revision that fewer than the majority of copies took; absent after a conflict. */
  accepted?: string
}

type BulkAttempt = Attempt & Write

/** Carries out the decisions of a plan on one partition of a database. */
export class Applier {
  readonly plan: Plan
  readonly tally: Tally
  readonly #inFlight = new RequestsInFlight()
  readonly #requests: WriteRequests
  readonly #large: LargeWriter
  /** Writes with revisions that the database makes, and with those that documents have. */
  readonly #bulk: { made: BulkWriter<BulkAttempt>; kept: BulkWriter<BulkAttempt> }
  readonly #doubtful = new DocumentBatch<Doubtful<BulkAttempt>>(LOOK_BATCH)

  constructor(plan: Plan, tally: Tally) {
    const { db } = plan.target
    this.plan = plan
    this.tally = tally
    this.#requests = new WriteRequests(db)
    this.#large = new LargeWriter(db, this.#requests)
    const writer = (newEdits: boolean) =>
      new BulkWriter<BulkAttempt>(db, newEdits, this.#inFlight, this.#requests, (attempt, result) => {
        const doubtful = this.#judge(attempt, result, result.accepted === true)
        if (doubtful) this.#doubtful.add(doubtful)
      })
    this.#bulk = { made: writer(true), kept: writer(false) }
  }

  /**
   * Begins to carry out decisions, whose memory may be used again then; {@link finish} waits for the writes.
   * @throws CouchError when the database cannot be worked with
   */
  async apply(decisions: readonly DocumentDecision[]): Promise<void> {
    for (const decision of decisions) {
      if (this.#doubtful.full) await this.finish()
      if ('document' in decision) {
        await this.tally.announce(decision.id, decision.action)
        await this.#write(decision, decision.document, 1)
      } else this.tally.tell(decision)
    }
  }

  /** Waits until everything is written, and writes again what others changed meanwhile. */
  async finish(): Promise<void> {
    for (;;) {
      await this.#bulk.kept.flush()
      await this.#bulk.made.flush()
      await this.#inFlight.finish()
      const doubtful = this.#doubtful.take()
      if (doubtful.length === 0) return
      for (let i = 0; i < doubtful.length; i += LOOK_BATCH)
        await this.#lookAtAll(doubtful.slice(i, i + LOOK_BATCH))
    }
  }

  async settle(): Promise<void> {
    await this.#inFlight.settle()
  }

  async #write({ id, action, base }: Omit<Attempt, 'attempt'>, document: SourceDocument, attempt: number) {
    if (isLarge(document)) return this.#writeLarge({ id, action, base, attempt }, document)
    const { bytes } = document
    if (base.kind === 'kept') return this.#bulk.kept.add({ id, action, base, attempt, bytes })
    const spliced = await inTurns(bytesOn(base, document))
    await turnAfter(spliced)
    await this.#bulk.made.add({ id, action, base, attempt, bytes: spliced })
  }

  async #writeLarge(first: Attempt, document: LargeDocument): Promise<void> {
    let attempt: Attempt | undefined = first
    while (attempt) {
      const result = await this.#large.write(document, attempt.base)
      // The answer does not always tell how many copies took it.
      const doubtful: Doubtful<Attempt> | undefined = this.#judge(
        attempt,
        result,
        this.plan.target.isReplicated
      )
      attempt = doubtful && (await this.#look(doubtful, document, await this.plan.target.read(doubtful.id)))
    }
  }

  /**
   * Counts a document that was written, or cannot be; `few`: only some copies may have taken it.
   * @returns the attempt after which the document has to be looked at
   */
  #judge<A extends Attempt>(attempt: A, result: BulkResult, few: boolean): Doubtful<A> | undefined {
    const { id, base } = attempt
    const { error, reason = '' } = result
    const rev = base.kind === 'kept' ? base.rev : result.rev
    if (error === undefined) {
      if (few) return { ...attempt, accepted: rev }
      this.#countWritten(attempt, rev)
    } else if (error === 'conflict' && attempt.attempt < ATTEMPTS) return attempt
    else this.tally.fail({ id, error, reason })
    return undefined
  }

  /** @param rev `undefined` where the answer does not tell it */
  #countWritten({ action, id, base }: Attempt, rev: string | undefined): void {
    this.tally.count(action)
    // A single copy refuses to make a revision beside another; of several, each decides by itself.
    if (action === 'create' && base.kind !== 'kept' && !this.plan.target.isReplicated) return
    this.plan.table.noteWritten(id, rev, action === 'change')
  }

  async #lookAtAll(attempts: readonly Doubtful<BulkAttempt>[]): Promise<void> {
    const byId = new Map(attempts.map((attempt) => [attempt.id, attempt]))
    for await (const found of this.plan.target.current([...byId.keys()])) {
      const attempt = byId.get(found.id)
      if (!attempt) continue
      const document = await inTurns(documentSteps(attempt.bytes))
      const next = await this.#look(attempt, document, found)
      if (next) await this.#write(next, document, next.attempt)
    }
  }

  /**
   * Looks at a document that others changed, whose reply was lost, or that only few copies took.
   * @returns the next attempt, unless the document is there or cannot be written
   */
  async #look(
    { accepted, ...last }: Doubtful<Attempt>,
    document: SourceDocument,
    found: CurrentDocument
  ): Promise<Attempt | undefined> {
    const { id, action, attempt } = last
    const live = found.state === 'live' ? found.document : undefined
    const stands = live && (live.rev === accepted || (await this.plan.target.isSame(document, live)))
    // A revision that few copies took and that does not show would become a conflict. Refused if no leaf.
    if (found.state !== 'unreadable' && accepted !== undefined && accepted !== live?.rev)
      await this.plan.target.delete([{ id, rev: accepted }])
    if (stands) {
      this.#countWritten(last, live.rev)
      // The copy that the feed is read from may not know these. What cannot be deleted shows then.
      await this.plan.target.delete(this.plan.table.toRemove(id, found.conflicts, []))
    } else if (found.state === 'reserved' || found.state === 'unreadable') {
      this.tally.fail({ id, error: found.state, reason: found.reason })
    } else if (attempt >= ATTEMPTS) this.tally.fail(writtenAgain(id))
    else return { id, action, base: live ? { kind: 'over', rev: live.rev } : NO_BASE, attempt: attempt + 1 }
    return undefined
  }

  /** Writes one document, once. */
  async writeNow(document: SourceDocument, base: BaseRevision): Promise<BulkResult> {
    if (isLarge(document)) return this.#large.write(document, base)
    const { id } = document
    const body = BulkBody.of(base.kind !== 'kept', [await inTurns(bytesOn(base, document))])
    const { answer, refusal } = await this.#requests.send(1, () => this.plan.target.db.once.writeBulk(body))
    return answer?.results[0] ?? { id, error: refusal?.error, reason: refusal?.reason }
  }

  /** Deletes documents with all their revisions, and reads them back. */
  async delete(decisions: readonly (Deletion | Failure)[]): Promise<void> {
    let left = this.#deletionsIn(decisions)
    for (const { id } of left) await this.tally.announce(id, 'delete')
    let refusals = new Map<string, BulkResult>()
    for (let attempt = 1; left.length > 0 && attempt <= ATTEMPTS; attempt++) {
      const revisions = left.flatMap(({ id, revisions }) => revisions.map((rev) => ({ id, rev })))
      refusals = new Map((await this.plan.target.delete(revisions)).map((refusal) => [refusal.id, refusal]))
      const found = await this.plan.deletionsOf(left.map(({ id }) => id))
      const there = new Set(found.map(({ id }) => id))
      for (const { id } of left) if (!there.has(id)) this.tally.count('delete')
      left = this.#deletionsIn(found)
    }
    for (const { id } of left) {
      const { error = 'conflict', reason = 'the document is there again after each deletion' } =
        refusals.get(id) ?? {}
      this.tally.fail({ id, error, reason })
    }
  }

  #deletionsIn(decisions: readonly (Deletion | Failure)[]): Deletion[] {
    return decisions.filter((decision) => {
      if (decision.action === 'fail') this.tally.fail(decision)
      return decision.action === 'delete'
    })
  }
}

export const writtenAgain = (id: string): Omit<Failure, 'action'> => ({
  id,
  error: 'conflict',
  reason: 'somebody else writes it again and again'
})
