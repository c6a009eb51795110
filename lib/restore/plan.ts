import type { LogicalDatabase } from '../../types/databases.js'
import type { RowDocument } from '../couch/rows.js'
import { type DocumentBytes, InvalidDocumentError } from '../json/document.js'
import { inTurns, inTurnsIfLong, sharedTurn, turnAfter } from '../waits/steps.js'
import { hasStub } from './check-attachments.js'
import type { Decider } from './decider.js'
import {
  create,
  type Deletion,
  type DocumentDecision,
  type Failure,
  fails,
  type NewBase,
  NO_BASE
} from './decision.js'
import { DocumentBatch } from './document-batch.js'
import { contentPrint } from './same-content.js'
import type { Scope } from './scope.js'
import { headOf, isLarge, type RestoreSource, type SourceDocument } from './source.js'
import { COMPARE_BATCH, readOrProblem, type TargetView } from './target.js'
import { partitionOf, type State, TABLE_DOCUMENTS, TargetTable } from './target-table.js'

/** Documents asked for in one request where a scan does not show them: most are not there. */
const LOOK_UP_BATCH = 500
/** Documents asked about in one `_revs_diff`. */
const DIFF_BATCH = 1000
/** Characters of ids that are asked for at once, unless one has more. */
const MAX_IDS = 1024 * 1024

const LACKS_DATA = { error: 'missing_stub', reason: 'an attachment has no data in the upload' }

export interface PlanOptions {
  source: RestoreSource
  database: LogicalDatabase
  /** The documents that it may write or delete. */
  scope: Scope
  /** Types of documents that are never restored. */
  internalTypes: ReadonlySet<string>
  /** Ids of documents that it must not delete: those that could not be backed up. */
  keepIds: ReadonlySet<string>
  /** Called with the bytes of each group of documents that is decided on. */
  onRead?(bytes: number): void
}

/** One part of a restore, which bounds what is held of the target. */
interface Partition {
  index: number
  of: number
  documents: number
}

/** The question that decides on a document: revisions that the target ever had, or its current content. */
type Question = { ask: 'revisions' | 'content' }

/** A decision that needs no look at the target's document, or the question that leads to one. */
type FirstDecision = Exclude<DocumentDecision, { action: 'change' }> | Question

/** Divides a database. Written documents are held as well, until they have been confirmed. */
export function partitionsOf(target: TargetView, { source, database }: PlanOptions): Partition[] {
  const written = target.isReplicated || source.proof === 'revision' ? source.count(database) : 0
  const documents = Math.max(target.documents, written)
  const of = Math.max(1, Math.ceil(documents / TABLE_DOCUMENTS))
  return Array.from({ length: of }, (_, index) => ({ index, of, documents: Math.ceil(documents / of) }))
}

/** Compares a backup with one partition of a database, and decides on each document. Writes nothing. */
export class RestorePlan<T = unknown> {
  readonly #table: TargetTable
  readonly #decider: Decider<T>
  readonly #target: TargetView
  readonly #options: PlanOptions
  readonly #partition: Partition
  readonly #batches: Record<Question['ask'], DocumentBatch<DocumentBytes>>

  private constructor(decider: Decider<T>, options: PlanOptions, partition: Partition) {
    const { target } = decider
    this.#table = new TargetTable(target.documents / partition.of)
    this.#decider = decider
    this.#target = target
    this.#options = options
    this.#partition = partition
    this.#batches = {
      revisions: new DocumentBatch(DIFF_BATCH),
      content: new DocumentBatch(target.isReplicated ? LOOK_UP_BATCH : COMPARE_BATCH)
    }
  }

  /** Scans what the target has. @throws CouchError when it cannot be read */
  static async make<T>(
    decider: Decider<T>,
    options: PlanOptions,
    partition: Partition
  ): Promise<RestorePlan<T>> {
    const plan = new RestorePlan(decider, options, partition)
    if (!decider.target.isEmpty) await plan.#scan()
    await decider.target.checkNodes()
    return plan
  }

  async #scan(): Promise<void> {
    for await (const rows of this.#target.rows(this.#options.source.proof)) {
      for (const { id, rev, doc } of rows) {
        // A turn after each group would be one for each document: CouchDB sends them one by one.
        const pause = sharedTurn()
        if (pause) await pause
        if (this.#holds(id) && this.#options.scope.mayHold(id))
          this.#table.set(id, doc ? await stateOf(rev, doc) : { rev })
      }
    }
  }

  #holds(id: string): boolean {
    return partitionOf(id, this.#partition.of) === this.#partition.index
  }

  /** Yields the backup's documents of this partition. A group is valid until the next is asked for. */
  async *documents(design: boolean): AsyncGenerator<SourceDocument[]> {
    const { source, database } = this.#options
    for await (const group of source.documents(database, design))
      yield group.filter((document) => this.#holds(headOf(document).id))
  }

  /** Decides on each design or other document once. A group is valid until the next is asked for. */
  async *decisions(design: boolean): AsyncGenerator<DocumentDecision<T>[]> {
    for await (const group of this.documents(design)) {
      const decided: DocumentDecision<T>[] = []
      this.#options.onRead?.(group.reduce((sum, document) => sum + headOf(document).bytes.length, 0))
      for (const document of group) {
        await sharedTurn()
        const decision = await this.#decideOn(document)
        if ('action' in decision) decided.push(decision)
        else {
          const asked = isLarge(document) ? [document] : this.#batches[decision.ask].put(document)
          if (asked) yield await this.#answer(decision, asked)
        }
        await turnAfter(headOf(document).bytes)
      }
      yield decided
    }
    for (const ask of ['revisions', 'content'] as const)
      yield await this.#answer({ ask }, this.#batches[ask].take())
  }

  #decideOn(document: SourceDocument): FirstDecision | Promise<FirstDecision> {
    const { scope, source } = this.#options
    const { bytes } = headOf(document)
    const decide = (inScope: boolean) => {
      if (!inScope) return this.#leaveOut(document)
      return source.proof === 'content'
        ? this.#decideClaimed(document)
        : this.#decide(document, revisionOf(document))
    }
    if (scope.isAll) return decide(true)
    const included = inTurnsIfLong(bytes, scope.includes(document))
    return typeof included === 'boolean' ? decide(included) : included.then(decide)
  }

  /** Leaves a document alone that is not in the scope, also where the target has it. */
  #leaveOut(document: SourceDocument): FirstDecision {
    const { id, deleted } = headOf(document)
    if (deleted) return { action: 'skip', id, why: 'deleted' }
    this.#table.compare(id, undefined)
    return { action: 'skip', id, why: 'left_out' }
  }

  /** Decides by content on a document that only claims its revision; large ones are compared alone. */
  async #decideClaimed(document: SourceDocument): Promise<FirstDecision> {
    if (isLarge(document) || document.deleted) return this.#decide(document, undefined)
    const state = this.#table.size === 0 ? undefined : { print: await inTurns(contentPrint(document)) }
    const lacksData = document.attachments !== undefined && (await inTurns(hasStub(document)))
    return this.#decide(document, state, lacksData ? LACKS_DATA : undefined)
  }

  /** Decides by the `state` that the table compares; `problem` is why the document cannot be restored. */
  #decide(
    document: SourceDocument,
    state: State | undefined,
    problem?: Pick<Failure, 'error' | 'reason'>
  ): FirstDecision {
    const { internalTypes } = this.#options
    const { id, type, deleted } = headOf(document)
    // A deletion is not looked up: `exact` deletes what the backup says is deleted.
    if (deleted) return { action: 'skip', id, why: 'deleted' }
    const found = this.#table.compare(id, state)
    if (type !== undefined && internalTypes.has(type)) return { action: 'skip', id, why: 'internal' }
    if (isLarge(document) && document.problem) return fails(id, 'not_restorable', document.problem.message)
    if (problem) return fails(id, problem.error, problem.reason)
    // One replica answers a scan. Most replicas are asked for what is missing, unless all agreed on nothing.
    if (found === 'absent' && (!this.#target.isReplicated || this.#target.isEmpty))
      return this.#decideAbsent(document)
    if (found !== 'same' || this.#target.replicas !== 'agree') return { ask: 'content' }
    return { action: 'leave', id, why: 'scanned', rev: state && 'rev' in state ? state.rev : undefined }
  }

  #decideAbsent(document: SourceDocument): FirstDecision {
    const base = this.#baseOfNew(document)
    const askRevisions = base.kind === 'kept' && !this.#target.isEmpty && this.#target.hasDeletions
    return askRevisions ? { ask: 'revisions' } : create(document, base)
  }

  /** Returns the base of a document new to the target. A claimed revision may stand for other content. */
  #baseOfNew(document: SourceDocument): NewBase {
    const { rev } = headOf(document)
    return this.#options.source.proof === 'revision' && rev !== undefined ? { kind: 'kept', rev } : NO_BASE
  }

  async #answer({ ask }: Question, documents: readonly SourceDocument[]): Promise<DocumentDecision<T>[]> {
    if (documents.length === 0) return []
    return ask === 'revisions' ? this.#diff(documents) : this.#compare(documents)
  }

  /** Decides on documents that the target lacks: it never had their revision, or has deleted it. */
  async #diff(documents: readonly SourceDocument[]): Promise<ReturnType<typeof create>[]> {
    const revisions = documents.flatMap((document) => {
      const base = this.#baseOfNew(document)
      return base.kind === 'kept' ? [{ id: headOf(document).id, rev: base.rev }] : []
    })
    const never = await this.#target.neverHad(revisions)
    return documents.map((document) =>
      create(document, never.has(headOf(document).id) ? this.#baseOfNew(document) : NO_BASE)
    )
  }

  /** Decides on documents that the target has in another state, or may have. */
  async #compare(documents: readonly SourceDocument[]): Promise<DocumentDecision<T>[]> {
    const byId = new Map(documents.map((document) => [headOf(document).id, document]))
    const decisions: DocumentDecision<T>[] = []
    for await (const found of this.#target.current([...byId.keys()])) {
      const document = byId.get(found.id)
      if (document) decisions.push(await this.#decider.beside(document, found, this.#baseOfNew(document)))
    }
    return decisions
  }

  /** Finds older documents that the backup does not hold. Call it after all {@link decisions}. */
  async *deletions(): AsyncGenerator<(Deletion<T> | Failure)[]> {
    if (this.#target.isEmpty || this.#table.allSeen) return
    let ids: string[] = []
    let characters = 0
    for await (const rows of this.#target.rows('revision')) {
      for (const { id } of rows) {
        if (!this.#mayDelete(id)) continue
        ids.push(id)
        characters += id.length
        if (ids.length < COMPARE_BATCH && characters < MAX_IDS) continue
        yield await this.#decider.deletions(ids)
        ids = []
        characters = 0
      }
    }
    yield await this.#decider.deletions(ids)
  }

  /** Returns whether `exact` deletes an id. Documents written since the restore began are left. */
  #mayDelete(id: string): boolean {
    const { scope, keepIds } = this.#options
    if (!this.#holds(id) || !this.#table.has(id) || this.#table.wasSeen(id)) return false
    return scope.note(id) && !keepIds.has(id)
  }
}

/** Returns what the table compares of a target's document: its content, or revision if that is unreadable. */
async function stateOf(rev: string, doc: RowDocument): Promise<State> {
  const document = await readOrProblem(doc)
  return document instanceof InvalidDocumentError ? { rev } : { print: await inTurns(contentPrint(document)) }
}

function revisionOf(document: SourceDocument): State | undefined {
  const { rev } = headOf(document)
  return rev === undefined ? undefined : { rev }
}
