import { setImmediate as turn } from 'node:timers/promises'
import type { DatabaseRestoreCounts, RestoreFailure, SettingsChange } from '../../types/backups.js'
import type { LogicalDatabase } from '../../types/databases.js'
import { allRows } from '../couch/all-rows.js'
import type { BulkResult } from '../couch/bulk-body.js'
import { BulkBody } from '../couch/bulk-body.js'
import { type CopiesState, settleCopies } from '../couch/copies.js'
import { type CouchDatabase, type DatabaseInfo, isReplicated, type Revision } from '../couch/database.js'
import {
  DocumentReader,
  isReadFailure,
  type ReadDocument,
  type ReadFailure
} from '../couch/document-reader.js'
import { CouchError } from '../couch/errors.js'
import { readFeed } from '../couch/feed.js'
import { type NodesUp, nodesUp, noneStarted } from '../couch/nodes.js'
import { SourceWatch } from '../couch/source-watch.js'
import {
  type DocumentBytes,
  documentSteps,
  InvalidDocumentError,
  readDocument,
  withRevision
} from '../json/document.js'
import { inTurns, sharedTurn, turnAfter } from '../waits/steps.js'
import { BulkWriter, Lanes, type Write } from './bulk-writer.js'
import { deleteDocuments, deleteLeaves, leavesToDelete } from './delete-documents.js'
import type { LargeDocument } from './large-document.js'
import { type BaseRevision, LargeWriter } from './large-writer.js'
import { Refusals } from './refusals.js'
import { compareContent, contentPrint, hasStub, sameAttachments } from './same-content.js'
import { sameLarge } from './same-large.js'
import { isLarge, type RestoreSource, type SourceDocument } from './source.js'
import { partitionOf, TABLE_DOCUMENTS, TargetTable } from './target-table.js'
import { Waiting } from './waiting.js'

/** Documents whose current version is read at once, to be compared. */
const COMPARE_BATCH = 100
/** Characters of ids that are asked for at once, unless one has more. */
const MAX_IDS = 1024 * 1024
/** The same where each document that a scan does not show is asked for: most are not there. */
const LOOK_UP_BATCH = 500
/** Documents asked about in one `_revs_diff`. */
const DIFF_BATCH = 1000
/** How often a document is written again because somebody else changed it meanwhile. */
const CONFLICT_ATTEMPTS = 5
const RESERVED = 'the database keeps its backups by this id: give the document another one'
const WRITTEN_AGAIN = 'somebody else writes it again and again'

export interface DatabaseRestoreOptions {
  source: RestoreSource
  target: CouchDatabase
  database: LogicalDatabase
  skip: ReadonlySet<string>
  /** Types of documents that are never restored. */
  internalTypes: ReadonlySet<string>
  /** Whether the target's document of this id and type belongs to the backups: it is neither written over nor deleted. */
  isOwn(id: string, type: string | undefined): boolean
  /** Ids of documents that hold a console's settings. */
  settings: ReadonlySet<string>
  /** Told of one of {@link settings} before it is written or deleted, or would be. */
  onSettings(id: string, change: SettingsChange['change']): Promise<void>
  /** Types of documents that `exact` must not delete: what backups leave out, and transactions. */
  keepTypes: ReadonlySet<string>
  /** Ids of documents that it must not delete: those that could not be backed up. */
  keepIds: ReadonlySet<string>
  dryRun: boolean
  exact: boolean
  counts: DatabaseRestoreCounts
  onFailure(failure: RestoreFailure): void
}

type DocumentCount = 'created' | 'changed' | 'unchanged'

interface PendingWrite extends Write {
  /** Its own revision. */
  rev?: string
  /** What to count it as. */
  as: 'created' | 'changed'
  attempt: number
  /** The revision that fewer than the majority of copies took. */
  accepted?: string
}

/** A database as a restore finds it. */
interface Target {
  info: DatabaseInfo
  copies: CopiesState
  /** The nodes that were up before the copies were asked. */
  nodes: NodesUp | null
  /** The update sequence before the copies were asked to agree. */
  begun?: DatabaseInfo['update_seq']
}

/**
 * Brings one database to what the backup holds: writes what is missing or differs, leaves the rest. `counts` tells
 * what was done as it goes.
 *
 * @returns what was known of the database's copies, by which documents were found that the backup does not hold
 * @throws CouchError when the database cannot be worked with; single documents that fail are counted instead
 */
export async function restoreDatabase(options: DatabaseRestoreOptions): Promise<CopiesState> {
  const found = await findTarget(options)
  return new DatabaseRestore(options, found).run()
}

async function findTarget(options: DatabaseRestoreOptions): Promise<Target> {
  const { target, dryRun } = options
  const info = await target.find()
  if (!info) return { info: await createTarget(options, dryRun), copies: 'agree', nodes: null }
  const nodes = isReplicated(info) ? await nodesUp(target.client) : null
  const copies = await settleCopies(target, info)
  // A copy that lagged may have told the counts.
  return { info: isReplicated(info) ? await target.info() : info, copies, nodes, begun: info.update_seq }
}

async function createTarget(
  { target, source, database }: DatabaseRestoreOptions,
  dryRun: boolean
): Promise<DatabaseInfo> {
  const empty = { doc_count: 0, doc_del_count: 0 }
  if (dryRun) return empty
  await target.ensure(source.about(database))
  return { ...(await target.info()), ...empty }
}

class DatabaseRestore {
  readonly #options: DatabaseRestoreOptions
  /** The target has no documents, living or deleted, on any copy. */
  readonly #empty: boolean
  /** Each shard has several copies, which may answer a request differently. */
  readonly #replicated: boolean
  #copies: CopiesState
  readonly #nodes: NodesUp | null
  /** The update sequence that the target told first. */
  readonly #begun: DatabaseInfo['update_seq']
  readonly #deletions: boolean
  readonly #partitions: number
  /** Documents in one partition, about. */
  readonly #expected: number
  readonly #reader: DocumentReader
  readonly #lanes = new Lanes()
  readonly #refusals: Refusals
  readonly #large: LargeWriter
  readonly #edits: BulkWriter<PendingWrite>
  readonly #replicas: BulkWriter<PendingWrite>
  #table = new TargetTable(0)
  readonly #conflicts = new Waiting<PendingWrite>(COMPARE_BATCH)
  readonly #toCompare: Waiting<DocumentBytes>
  readonly #toDiff = new Waiting<DocumentBytes>(DIFF_BATCH)
  readonly #toSettle = new Waiting<DocumentBytes>(COMPARE_BATCH)

  constructor(options: DatabaseRestoreOptions, { info, copies, nodes, begun }: Target) {
    const { source, target, database } = options
    this.#options = options
    this.#empty = info.doc_count === 0 && info.doc_del_count === 0 && copies === 'agree'
    this.#replicated = isReplicated(info)
    this.#copies = copies
    this.#nodes = nodes
    this.#begun = begun
    this.#toCompare = new Waiting(this.#replicated ? LOOK_UP_BATCH : COMPARE_BATCH)
    this.#deletions = info.doc_del_count !== 0
    // What is written is held as well, until it has been confirmed.
    const written = this.#replicated || source.proof === 'revision' ? source.count(database) : 0
    const documents = Math.max(info.doc_count, written)
    this.#partitions = Math.max(1, Math.ceil(documents / TABLE_DOCUMENTS))
    this.#expected = Math.ceil(documents / this.#partitions)
    this.#reader = new DocumentReader(target)
    this.#refusals = new Refusals(target)
    this.#large = new LargeWriter(target, this.#refusals)
    const onResult = (write: PendingWrite, result: BulkResult) => this.#onResult(write, result)
    this.#edits = new BulkWriter(target, true, this.#lanes, this.#refusals, onResult)
    this.#replicas = new BulkWriter(target, false, this.#lanes, this.#refusals, onResult)
  }

  /** @returns what was known of the copies */
  async run(): Promise<CopiesState> {
    const { target, dryRun, exact } = this.#options
    const watch = new SourceWatch(target)
    try {
      for (let partition = 0; partition < this.#partitions; partition++) {
        const since = dryRun ? '0' : this.#since(await watch.begin())
        this.#table = await this.#scan(partition)
        await this.#checkNodes()
        // Design documents last, so that indexes are built once.
        for (const design of [false, true]) await this.#restore(partition, design)
        await this.#confirmWrites(partition, since)
        if (exact && !this.#empty) await this.#deleteOthers(partition)
        if (!dryRun && (await watch.changed(since))) throw replaced(target)
      }
    } finally {
      await this.#lanes.settle()
    }
    return this.#copies
  }

  /** From where changes are read to confirm what was done: with several copies, from before they agreed. */
  #since(info: DatabaseInfo | null): string {
    if (!info) throw replaced(this.#options.target)
    const { update_seq: now = '0' } = info
    return String(this.#replicated ? (this.#begun ?? now) : now)
  }

  /** A node that was started during the scan may have answered it with what it had when it went down. */
  async #checkNodes(): Promise<void> {
    if (!this.#replicated || this.#empty || this.#copies !== 'agree') return
    if (!noneStarted(this.#nodes, await nodesUp(this.#options.target.client))) this.#copies = 'unchecked'
  }

  async #scan(partition: number): Promise<TargetTable> {
    const { target, source } = this.#options
    const table = new TargetTable(this.#expected)
    if (this.#empty) return table
    for await (const rows of allRows(target, source.proof)) {
      for (const row of rows) {
        if (partitionOf(row.id, this.#partitions) === partition)
          table.set(row.id, row.doc ? await stateOf(row.rev, row.doc) : row.rev)
      }
      await turn()
    }
    return table
  }

  async #restore(partition: number, design: boolean): Promise<void> {
    await this.#each(partition, design, (document) => this.#take(document))
    await this.#diff(this.#toDiff.take())
    await this.#compare(this.#toCompare.take())
    await this.#drainWrites()
  }

  async #each(
    partition: number,
    design: boolean,
    visit: (document: SourceDocument) => Promise<void> | undefined
  ): Promise<void> {
    const { source, database } = this.#options
    for await (const group of source.documents(database, design)) {
      for (const document of group) {
        await sharedTurn()
        const { id, bytes } = headOf(document)
        if (partitionOf(id, this.#partitions) !== partition) continue
        await visit(document)
        await turnAfter(bytes)
      }
    }
  }

  async #take(document: SourceDocument): Promise<void> {
    const { counts, source, skip, internalTypes } = this.#options
    const { id, rev, type, deleted } = headOf(document)
    counts.total++
    if (this.#conflicts.full) await this.#drainWrites()
    const skipped = skip.has(id)
    // Not looked up: `exact` deletes what the backup says is deleted.
    if (deleted) {
      counts.skipped++
      return
    }
    const state = source.proof === 'revision' ? rev : await this.#printOf(document)
    const current = this.#table.compare(id, state)
    if (skipped || (type !== undefined && internalTypes.has(type))) {
      counts.skipped++
    } else if (isLarge(document) && document.problem) {
      this.#fail(id, 'not_restorable', document.problem.message)
    } else if (!isLarge(document) && source.proof === 'content' && (await inTurns(hasStub(document)))) {
      this.#fail(id, 'missing_stub', 'an attachment has no data in the upload')
    } else if (current === 'absent' && this.#scanShowsAll) {
      return this.#takeAbsent(document)
    } else if (current === 'same' && this.#copies === 'agree') {
      counts.unchanged++
      if (this.#replicated) this.#table.noteLeft(id)
    } else {
      if (isLarge(document)) return this.#compare([document])
      const waited = this.#toCompare.put(document)
      if (waited) await this.#compare(waited)
    }
  }

  /**
   * Whether a document that the scan did not show is not there. Of several copies one answers a scan: what it does not
   * show is asked of the majority, unless all copies have just agreed that there is nothing.
   */
  get #scanShowsAll(): boolean {
    return !this.#replicated || this.#empty
  }

  async #takeAbsent(document: SourceDocument): Promise<void> {
    if (!this.#mayKeepRevision(document)) return this.#create(document, false)
    if (this.#empty || !this.#deletions) return this.#create(document, true)
    if (isLarge(document)) return this.#diff([document])
    const waited = this.#toDiff.put(document)
    if (waited) await this.#diff(waited)
  }

  /** A revision that is only claimed is not written: it would stand for other content elsewhere. */
  #mayKeepRevision(document: SourceDocument): boolean {
    return this.#options.source.proof === 'revision' && headOf(document).rev !== undefined
  }

  /** A large document is compared by itself. */
  async #printOf(document: SourceDocument): Promise<string | undefined> {
    return this.#table.size === 0 || isLarge(document) ? undefined : inTurns(contentPrint(document))
  }

  /** @param keepRevision the target never had this revision: it is written as it was */
  async #create(document: SourceDocument, keepRevision: boolean): Promise<void> {
    await this.#announce(headOf(document).id, 'created')
    if (this.#options.dryRun) {
      this.#options.counts.created++
      return
    }
    const { id, rev, bytes } = headOf(document)
    if (isLarge(document)) {
      return this.#writeLarge(document, keepRevision ? { keep: true } : { keep: false, rev: null }, 'created')
    }
    const write: PendingWrite = { id, rev, bytes, as: 'created', attempt: 1 }
    if (keepRevision) return this.#replicas.add(write)
    return this.#edits.add({ ...write, bytes: withRevision(document, null) })
  }

  /** Documents that the target does not have now: did it never have the revision, or was it deleted since? */
  async #diff(documents: readonly SourceDocument[]): Promise<void> {
    if (documents.length === 0) return
    const revisions = documents.map((document) => {
      const { id, rev } = headOf(document)
      return { id, rev: rev as string }
    })
    const never = await this.#options.target.revsDiff(revisions)
    for (const document of documents) await this.#create(document, never.has(headOf(document).id))
  }

  /** Documents that the target has in another state, or may have: writes those that say something else. */
  async #compare(waiting: readonly SourceDocument[]): Promise<void> {
    if (waiting.length === 0) return
    const documents = new Map(waiting.map((document) => [headOf(document).id, document]))
    const { counts, dryRun } = this.#options
    for await (const { id, doc, failure } of this.#current([...documents.keys()])) {
      const document = documents.get(id)
      if (!document) continue
      const current = liveDocument(doc)
      if (current) await turnAfter(current.bytes)
      if (failure) this.#failUnreadable(id, failure)
      else if (this.#isReserved(current)) this.#failReserved(id)
      // Where there is no revision at all, not even a deleted one, the target never had the backup's.
      else if (!current) await this.#create(document, doc === null && this.#mayKeepRevision(document))
      else if (await this.#isSame(document, current)) counts.unchanged++
      else {
        await this.#announce(id, 'changed')
        if (dryRun) counts.changed++
        else await this.#write(document, current.rev ?? null, 'changed', 1)
      }
    }
  }

  async #announce(id: string, change: SettingsChange['change']): Promise<void> {
    if (this.#options.settings.has(id)) await this.#options.onSettings(id, change)
  }

  /** @param current with stubs */
  async #isSame(document: SourceDocument, current: DocumentBytes): Promise<boolean> {
    if (isLarge(document)) return this.#isSameLarge(document, current)
    const comparison = await inTurns(compareContent(document, current))
    if (comparison !== 'unknown') return comparison === 'same'
    // What is read now is no larger than what is in memory already.
    const { id, rev } = current
    for await (const { doc } of this.#reader.read([{ id, rev }], { attachments: true }))
      return doc !== null && (await inTurns(sameAttachments(document, readDocument(doc))))
    return false
  }

  /** Attachments that cannot be read are not those of the backup. */
  async #isSameLarge(document: LargeDocument, current: DocumentBytes): Promise<boolean> {
    try {
      return await sameLarge(this.#options.target, document, current)
    } catch (error) {
      if (!isReadFailure(error)) throw error
      await this.#reader.confirmAnswers(error)
      return false
    }
  }

  /** Documents as the target has them now, with stubs. */
  async *#current(ids: readonly string[]): AsyncGenerator<ReadDocument> {
    const wanted = ids.map((id) => ({ id }))
    for await (const found of this.#reader.read(wanted, { attachments: false })) {
      const document = found.doc && (await readOrProblem(found.doc))
      if (found.doc) await turnAfter(found.doc)
      if (document instanceof InvalidDocumentError) yield { ...found, doc: null, failure: document }
      else yield found
    }
  }

  /** Writes a document over the revision `rev`. */
  async #write(
    document: SourceDocument,
    rev: string | null,
    as: PendingWrite['as'],
    attempt: number
  ): Promise<void> {
    if (isLarge(document)) return this.#writeLarge(document, { keep: false, rev }, as)
    await turnAfter(document.bytes)
    const bytes = withRevision(document, rev)
    await turnAfter(bytes)
    await this.#edits.add({ id: document.id, bytes, as, attempt })
  }

  async #drainWrites(): Promise<void> {
    for (;;) {
      await this.#replicas.flush()
      await this.#edits.flush()
      await this.#lanes.idle()
      const conflicts = this.#conflicts.take()
      if (conflicts.length === 0) return
      await this.#resolve(conflicts)
    }
  }

  #onResult(write: PendingWrite, result: BulkResult): void {
    if (result.accepted) this.#conflicts.add({ ...write, accepted: result.rev ?? write.rev })
    else if (!result.error) this.#count(write.as, write.id, result.rev, write.rev)
    else if (result.error === 'conflict' && write.attempt < CONFLICT_ATTEMPTS) {
      this.#conflicts.add({ ...write, accepted: undefined })
    } else this.#fail(write.id, result.error, result.reason ?? '')
  }

  /**
   * Somebody changed these meanwhile, they were written and the reply was lost, or fewer than the majority of copies took
   * them, and the others may hold another version.
   */
  async #resolve(conflicts: readonly PendingWrite[]): Promise<void> {
    for (let i = 0; i < conflicts.length; i += COMPARE_BATCH) {
      const writes = new Map(conflicts.slice(i, i + COMPARE_BATCH).map((write) => [write.id, write]))
      for await (const { id, doc, conflicts: others, failure } of this.#current([...writes.keys()])) {
        const write = writes.get(id)
        if (!write) continue
        const document = readDocument(write.bytes)
        const live = liveDocument(doc)
        if (!failure) await this.#withdraw(write, live)
        if (failure) this.#failUnreadable(id, failure)
        else if (this.#isReserved(live)) this.#failReserved(id)
        else if (live && (live.rev === write.accepted || (await this.#isSame(document, live)))) {
          this.#count(write.as, id, live.rev, undefined)
          // The copy that the feed is read from may not know of them. What cannot be deleted shows then.
          await deleteLeaves(this.#options.target, this.#toRemove(id, others, []))
        } else if (write.attempt >= CONFLICT_ATTEMPTS) this.#fail(id, 'conflict', WRITTEN_AGAIN)
        else await this.#write(document, live?.rev ?? null, write.as, write.attempt + 1)
      }
    }
  }

  /** Deletes a revision that few copies took and that does not show: it would come up as a conflict. */
  async #withdraw({ id, accepted }: Pick<PendingWrite, 'id' | 'accepted'>, live: DocumentBytes | null) {
    if (accepted === undefined || accepted === live?.rev) return
    // Refused where it is no leaf, which is as good.
    await deleteLeaves(this.#options.target, [{ id, rev: accepted }])
  }

  async #writeLarge(document: LargeDocument, wanted: BaseRevision, as: PendingWrite['as']): Promise<void> {
    const { id, rev } = document.head
    let base = wanted
    for (let attempt = 1; ; attempt++) {
      const { error, reason, rev: made } = await this.#large.write(document, base)
      const written = base.keep ? rev : made
      // The answer does not always tell how many copies took it.
      if (error === undefined && !this.#replicated) return this.#count(as, id, made, rev)
      if (error !== undefined && (error !== 'conflict' || attempt >= CONFLICT_ATTEMPTS))
        return this.#fail(id, error, reason ?? '')
      const { doc, conflicts, failure } = await this.#read(id)
      if (failure) return this.#failUnreadable(id, failure)
      const current = liveDocument(doc)
      if (error === undefined) await this.#withdraw({ id, accepted: written }, current)
      if (this.#isReserved(current)) return this.#failReserved(id)
      const stands = error === undefined && current?.rev === written
      if (current && (stands || (await this.#isSame(document, current)))) {
        this.#count(as, id, current.rev, undefined)
        if (this.#replicated) await deleteLeaves(this.#options.target, this.#toRemove(id, conflicts, []))
        return
      }
      if (attempt >= CONFLICT_ATTEMPTS) return this.#fail(id, 'conflict', WRITTEN_AGAIN)
      base = { keep: false, rev: current?.rev ?? null }
    }
  }

  async #read(id: string): Promise<ReadDocument> {
    for await (const found of this.#current([id])) return found
    throw new CouchError('_bulk_get', { error: 'bad_answer', reason: `no result for "${id}"` })
  }

  /**
   * @param made the revision that the database has made; `undefined` for one that is kept
   * @param kept the document's own
   */
  #count(as: PendingWrite['as'], id: string, made: string | undefined, kept: string | undefined): void {
    this.#options.counts[as]++
    // Where nothing was, the database itself refuses to make a revision beside another; of several copies each for itself.
    if (as === 'created' && made !== undefined && !this.#replicated) return
    this.#table.noteWritten(id, made ?? kept ?? '', as === 'changed')
  }

  /**
   * Reads back what was written. CouchDB takes a document with a revision of its own whatever there is, from a restore
   * and from replications beside it: two versions make a conflict, which either may win, and behind a deletion nothing
   * shows.
   */
  async #confirmWrites(partition: number, since: string): Promise<void> {
    if (this.#options.dryRun || (this.#table.unconfirmed === 0 && !this.#replicated)) return
    for await (const changes of readFeed(this.#options.target, { since }, { includeDocs: false })) {
      for (const { id, rev, deleted, branched } of changes) {
        if (!deleted) this.#table.confirm(id, rev, !branched)
        // The copy that was scanned may not have known what had become of it.
        this.#table.doubt(id, deleted ? undefined : rev)
      }
    }
    if (this.#table.unconfirmed === 0) return
    for (const design of [false, true]) {
      await this.#each(partition, design, (document) =>
        this.#table.isUnconfirmed(headOf(document).id) ? this.#settleSoon(document) : undefined
      )
      await this.#settleAll(this.#toSettle.take())
    }
  }

  /** What the feed did not show may stand all the same: one of several copies has sent it. */
  async #settleSoon(document: SourceDocument): Promise<void> {
    if (isLarge(document)) return this.#settle(document)
    const waited = this.#toSettle.put(document)
    if (waited) await this.#settleAll(waited)
  }

  async #settleAll(documents: readonly DocumentBytes[]): Promise<void> {
    if (documents.length === 0) return
    const left = new Map(documents.map((document) => [document.id, document]))
    for await (const found of this.#current([...left.keys()])) if (this.#stands(found)) left.delete(found.id)
    for (const document of left.values()) await this.#settle(document)
  }

  /** Whether a document is as it was written, and what is not to be beside it is not. */
  #stands({ id, doc, conflicts }: ReadDocument): boolean {
    const rev = liveDocument(doc)?.rev
    return rev !== undefined && this.#table.isAt(id, rev) && this.#toRemove(id, conflicts, []).length === 0
  }

  /** Leaves beside a document that go: all where it was created, else those that this restore has written. */
  #toRemove(id: string, conflicts: readonly string[], own: readonly string[]): Revision[] {
    const created = !this.#table.wasChanged(id)
    return conflicts
      .filter((rev) => created || own.includes(rev) || this.#table.isAt(id, rev))
      .map((rev) => ({ id, rev }))
  }

  /**
   * Makes a document the version that shows; it was counted before, as written, or as the same. What was created is to
   * be the only version. Of conflicts that were there before, only what this restore has written goes.
   */
  async #settle(document: SourceDocument): Promise<void> {
    const { target, counts } = this.#options
    const { id } = headOf(document)
    const as = this.#countedAs(id)
    let becomes: DocumentCount = as
    let refusal: BulkResult = { id, error: 'conflict', reason: WRITTEN_AGAIN }
    const own: string[] = []
    for (let attempt = 1; attempt <= CONFLICT_ATTEMPTS; attempt++) {
      const { doc, conflicts, failure } = await this.#read(id)
      if (failure) {
        refusal = { id, error: 'unreadable', reason: failure.message }
        break
      }
      const live = liveDocument(doc)
      if (this.#isReserved(live)) {
        refusal = { id, error: 'reserved', reason: RESERVED }
        break
      }
      const same =
        live !== null && (this.#table.isAt(id, live.rev ?? '') || (await this.#isSame(document, live)))
      const others = this.#toRemove(id, conflicts, own)
      if (same && others.length === 0) {
        counts[as]--
        counts[becomes]++
        return
      }
      if (!same && becomes === 'unchanged') {
        becomes = live ? 'changed' : 'created'
        await this.#announce(id, becomes)
      }
      const [result] = same
        ? await deleteLeaves(target, others)
        : [await this.#writeNow(document, live?.rev ?? null)]
      if (result?.rev !== undefined) own.push(result.rev)
      if (result?.error && result.error !== 'conflict') refusal = result
    }
    counts[as]--
    this.#fail(id, refusal.error ?? '', refusal.reason ?? '')
  }

  #countedAs(id: string): DocumentCount {
    if (this.#table.wasLeft(id)) return 'unchanged'
    return this.#table.wasChanged(id) ? 'changed' : 'created'
  }

  async #writeNow(document: SourceDocument, rev: string | null): Promise<BulkResult> {
    const { target } = this.#options
    if (isLarge(document)) return this.#large.write(document, { keep: false, rev })
    const body = BulkBody.of(true, [withRevision(document, rev)])
    const { answer, refusal } = await this.#refusals.send(1, () => target.once.writeBulk(body))
    return answer?.results[0] ?? { id: document.id, error: refusal?.error, reason: refusal?.reason }
  }

  #isReserved(current: DocumentBytes | null): boolean {
    return current !== null && this.#options.isOwn(current.id, current.type)
  }

  #failReserved(id: string): void {
    this.#fail(id, 'reserved', RESERVED)
  }

  /** What is there cannot be compared, and its revision is not known. */
  #failUnreadable(id: string, failure: ReadFailure): void {
    this.#fail(id, 'unreadable', `what the database has by this id cannot be read: ${failure.message}`)
  }

  #fail(id: string, error: string, reason: string): void {
    this.#options.counts.failed++
    this.#options.onFailure({ database: this.#options.database, id, error, reason })
  }

  async #deleteOthers(partition: number): Promise<void> {
    const { target, skip, keepIds } = this.#options
    let batch: string[] = []
    let characters = 0
    for await (const rows of allRows(target, 'revision')) {
      for (const { id } of rows) {
        if (partitionOf(id, this.#partitions) !== partition) continue
        // What was not there when the restore began was written since, by it or by others.
        if (!this.#table.has(id) || this.#table.wasSeen(id)) continue
        if (skip.has(id) || keepIds.has(id)) continue
        batch.push(id)
        characters += id.length
        if (batch.length < COMPARE_BATCH && characters < MAX_IDS) continue
        await this.#deleteBatch(batch)
        batch = []
        characters = 0
      }
    }
    await this.#deleteBatch(batch)
  }

  async #deleteBatch(ids: readonly string[]): Promise<void> {
    if (ids.length === 0) return
    const { target, keepTypes, counts, dryRun } = this.#options
    const keep = (current: DocumentBytes) =>
      this.#isReserved(current) || (current.type !== undefined && keepTypes.has(current.type))
    const settings = ids.filter((id) => this.#options.settings.has(id))
    for (const id of settings) {
      if ((await leavesToDelete(target, [id], keep)).size > 0) await this.#announce(id, 'deleted')
    }
    if (dryRun) {
      counts.deleted += (await leavesToDelete(target, ids, keep)).size
      return
    }
    const { deleted, failures } = await deleteDocuments(target, ids, keep)
    counts.deleted += deleted
    for (const { id, error, reason } of failures) this.#fail(id, error ?? '', reason ?? '')
  }
}

/** What was written before, or found to be there, is not. */
const replaced = ({ name }: CouchDatabase) =>
  new CouchError(`database "${name}"`, {
    error: 'changed',
    reason:
      'it was deleted and created again, or documents were purged, while it was restored; restore it again'
  })

const headOf = (document: SourceDocument): DocumentBytes => (isLarge(document) ? document.head : document)

/** @returns `null` when there is no document, or it is deleted */
function liveDocument(doc: Uint8Array | null): DocumentBytes | null {
  const document = doc && readDocument(doc)
  return document && !document.deleted ? document : null
}

/** What a document of the target is told by where its content is read; by its revision where that is none. */
async function stateOf(rev: string, doc: Uint8Array): Promise<string> {
  const document = await readOrProblem(doc)
  await turnAfter(doc)
  return document instanceof InvalidDocumentError ? rev : inTurns(contentPrint(document))
}

/** Reads a document that the database sends, or tells why not: CouchDB keeps revisions that it does not take back. */
async function readOrProblem(doc: Uint8Array): Promise<DocumentBytes | InvalidDocumentError> {
  try {
    return await inTurns(documentSteps(doc))
  } catch (error) {
    if (error instanceof InvalidDocumentError) return error
    throw error
  }
}
