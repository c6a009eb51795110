import { BulkBody, type BulkResult } from '../couch/bulk-body.js'
import type { CouchDatabase, Revision } from '../couch/database.js'
import { documentSteps } from '../json/document.js'
import { inTurns, turnAfter } from '../waits/steps.js'
import { BulkWriter, RequestsInFlight, type Write } from './bulk-writer.js'
import type { Decider } from './decider.js'
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
import { isLarge, type SourceDocument } from './source.js'
import type { Tally } from './tally.js'
import { COMPARE_BATCH, type CurrentDocument } from './target.js'
import { WriteLog } from './write-log.js'
import { WriteRequests } from './write-requests.js'

/** How often a document is written, or deleted, when others change it meanwhile. */
export const ATTEMPTS = 5

interface WriteAttempt {
  id: string
  action: DecidedWrite['action']
  base: BaseRevision
  attempt: number
}

/** An attempt after which the document may not be what was written. */
type Doubtful<A extends WriteAttempt> = A & {
  /** The revision that fewer than the majority of replicas took; absent after a conflict. */
  accepted?: string
}

type BulkWriteAttempt = WriteAttempt & Write

/** Carries out decisions on one partition of a database, which it alone is given to write to. */
export class Applier {
  readonly db: CouchDatabase
  readonly decider: Decider
  readonly tally: Tally
  readonly log: WriteLog
  readonly #inFlight = new RequestsInFlight()
  readonly #requests: WriteRequests
  readonly #large: LargeWriter
  /** Writes with revisions that the database makes, and with those that documents have. */
  readonly #bulk: { made: BulkWriter<BulkWriteAttempt>; kept: BulkWriter<BulkWriteAttempt> }
  readonly #doubtful = new DocumentBatch<Doubtful<BulkWriteAttempt>>(COMPARE_BATCH)

  /** @param expected about how many documents will be written */
  constructor(db: CouchDatabase, decider: Decider, tally: Tally, expected: number) {
    this.db = db
    this.decider = decider
    this.tally = tally
    this.log = new WriteLog(expected)
    this.#requests = new WriteRequests(db)
    this.#large = new LargeWriter(db, this.#requests)
    const writer = (newEdits: boolean) =>
      new BulkWriter<BulkWriteAttempt>(db, newEdits, this.#inFlight, this.#requests, (attempt, result) => {
        const doubtful = this.#judge(attempt, result, result.accepted === true)
        if (doubtful) this.#doubtful.add(doubtful)
      })
    this.#bulk = { made: writer(true), kept: writer(false) }
  }

  /** Begins to carry out decisions, whose memory is then free; {@link finish} waits. @throws CouchError */
  async apply(decisions: readonly DocumentDecision[]): Promise<void> {
    for (const decision of decisions) {
      if (this.#doubtful.full) await this.finish()
      if ('document' in decision) {
        await this.tally.announce(decision.id, decision.action)
        await this.#write(decision, decision.document, 1)
        continue
      }
      // Another replica may have known it changed: the feed tells later.
      if (decision.action === 'leave' && decision.why === 'scanned' && this.decider.target.isReplicated)
        this.log.note(decision.id, 'leave', decision.rev)
      this.tally.tell(decision)
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
      for (let i = 0; i < doubtful.length; i += COMPARE_BATCH)
        await this.#lookAtAll(doubtful.slice(i, i + COMPARE_BATCH))
    }
  }

  async settle(): Promise<void> {
    await this.#inFlight.settle()
  }

  async #write(
    { id, action, base }: Omit<WriteAttempt, 'attempt'>,
    document: SourceDocument,
    attempt: number
  ) {
    if (isLarge(document)) return this.#writeLarge({ id, action, base, attempt }, document)
    const { bytes } = document
    if (base.kind === 'kept') return this.#bulk.kept.add({ id, action, base, attempt, bytes })
    const spliced = await inTurns(bytesOn(base, document))
    await turnAfter(spliced)
    await this.#bulk.made.add({ id, action, base, attempt, bytes: spliced })
  }

  async #writeLarge(first: WriteAttempt, document: LargeDocument): Promise<void> {
    let attempt: WriteAttempt | undefined = first
    while (attempt) {
      const result = await this.#large.write(document, attempt.base)
      // The answer does not always tell how many replicas took it.
      const doubtful: Doubtful<WriteAttempt> | undefined = this.#judge(
        attempt,
        result,
        this.decider.target.isReplicated
      )
      attempt =
        doubtful && (await this.#look(doubtful, document, await this.decider.target.read(doubtful.id)))
    }
  }

  /** Counts a document; `few`: only some replicas took it. @returns the attempt if a look is due */
  #judge<A extends WriteAttempt>(attempt: A, result: BulkResult, few: boolean): Doubtful<A> | undefined {
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
  #countWritten({ action, id, base }: WriteAttempt, rev: string | undefined): void {
    this.tally.count(action)
    // Where nothing was, the database refuses a second revision; of several replicas, each by itself.
    if (action === 'create' && base.kind !== 'kept' && !this.decider.target.isReplicated) return
    this.log.note(id, action, rev)
  }

  async #lookAtAll(attempts: readonly Doubtful<BulkWriteAttempt>[]): Promise<void> {
    const byId = new Map(attempts.map((attempt) => [attempt.id, attempt]))
    for await (const found of this.decider.target.current([...byId.keys()])) {
      const attempt = byId.get(found.id)
      if (!attempt) continue
      const document = await inTurns(documentSteps(attempt.bytes))
      const next = await this.#look(attempt, document, found)
      if (next) await this.#write(next, document, next.attempt)
    }
  }

  /** Looks at a doubtful document. @returns the next attempt, unless it is there or cannot be written */
  async #look(
    { accepted, ...last }: Doubtful<WriteAttempt>,
    document: SourceDocument,
    found: CurrentDocument
  ): Promise<WriteAttempt | undefined> {
    const { id, action, attempt } = last
    const rev = found.state === 'live' ? found.document.rev : undefined
    const isAccepted = accepted !== undefined && accepted === rev
    const decision = isAccepted ? undefined : await this.decider.beside(document, found, NO_BASE)
    // A hidden revision that few replicas took would come up as a conflict. Refused where it is no leaf.
    if (found.state !== 'unreadable' && accepted !== undefined && !isAccepted)
      await deleteAll(this.db, [{ id, rev: accepted }])
    if (decision === undefined || decision.action === 'leave') {
      this.#countWritten(last, rev)
      // The replica that the feed is read from may not know of them. Revisions that cannot be deleted show then.
      await deleteAll(this.db, this.log.toRemove(id, found.conflicts))
    } else if (decision.action === 'fail') this.tally.fail(decision)
    else if (attempt >= ATTEMPTS) this.tally.fail(writtenAgain(id))
    else return { id, action, base: decision.base, attempt: attempt + 1 }
    return undefined
  }

  /** Writes one document, once. */
  async writeNow(document: SourceDocument, base: BaseRevision): Promise<BulkResult> {
    if (isLarge(document)) return this.#large.write(document, base)
    const { id } = document
    const body = BulkBody.of(base.kind !== 'kept', [await inTurns(bytesOn(base, document))])
    const { answer, refusal } = await this.#requests.send(1, () => this.db.once.writeBulk(body))
    return answer?.results[0] ?? { id, error: refusal?.error, reason: refusal?.reason }
  }

  /** Deletes documents with all their revisions, and reads them back. */
  async delete(decisions: readonly (Deletion | Failure)[]): Promise<void> {
    let left = this.#deletionsIn(decisions)
    for (const { id } of left) await this.tally.announce(id, 'delete')
    let refusals = new Map<string, BulkResult>()
    for (let attempt = 1; left.length > 0 && attempt <= ATTEMPTS; attempt++) {
      const revisions = left.flatMap(({ id, revisions }) => revisions.map((rev) => ({ id, rev })))
      refusals = new Map((await deleteAll(this.db, revisions)).map((refusal) => [refusal.id, refusal]))
      const found = await this.decider.deletions(left.map(({ id }) => id))
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

/** Deletes single revisions. @returns those that could not be deleted */
export const deleteAll = async (db: CouchDatabase, revisions: readonly Revision[]): Promise<BulkResult[]> =>
  (await db.deleteRevisions(revisions)).filter(({ error }) => error !== undefined)

export const writtenAgain = (id: string): Omit<Failure, 'action'> => ({
  id,
  error: 'conflict',
  reason: 'somebody else writes it again and again'
})
