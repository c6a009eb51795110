import { setImmediate as turn } from 'node:timers/promises'
import type { DatabaseRestoreCounts, RestoreFailure } from '../../types/backups.js'
import type { LogicalDatabase } from '../../types/databases.js'
import { BulkBody } from '../couch/bulk-body.js'
import type { BulkResult, CouchDatabase, DatabaseInfo, Revision } from '../couch/database.js'
import { CouchError } from '../couch/errors.js'
import { type DocumentBytes, readDocument, withRevision } from '../json/document.js'
import { BulkWriter, Lanes, type Write } from './bulk-writer.js'
import type { LargeDocument } from './large-document.js'
import { partitionOf, RevisionTable, TABLE_DOCUMENTS } from './revision-table.js'
import { compareContent, sameAttachments, sizeOfAttachments } from './same-content.js'
import { isLarge, type RestoreSource, type SourceDocument } from './source.js'
import { Waiting } from './waiting.js'

/** Documents whose current version is read at once, to be compared. */
const COMPARE_BATCH = 100
/** Documents asked about in one `_revs_diff`. */
const DIFF_BATCH = 1000
/** Rows of `_all_docs` in one request: a fault re-reads less than this. */
const SCAN_PAGE = 10_000
/** How often a document is written again because somebody else changed it meanwhile. */
const CONFLICT_ATTEMPTS = 5

export interface DatabaseRestoreOptions {
  source: RestoreSource
  target: CouchDatabase
  database: LogicalDatabase
  skip: ReadonlySet<string>
  /** Types of documents that are never restored. */
  internalTypes: ReadonlySet<string>
  /** Whether the target's document of this id and type belongs to the backups: it is neither written over nor deleted. */
  isOwn(id: string, type: string | undefined): boolean
  /** Types of documents that `exact` must not delete: what backups leave out, and transactions. */
  keepTypes: ReadonlySet<string>
  dryRun: boolean
  exact: boolean
  counts: DatabaseRestoreCounts
  onFailure(failure: RestoreFailure): void
}

interface PendingWrite extends Write {
  /** What to count it as. */
  as: 'created' | 'changed'
  attempt: number
}

/**
 * Brings one database to what the backup holds: writes what is missing or differs, leaves the rest. `counts` tells
 * what was done as it goes.
 *
 * @throws CouchError when the database cannot be worked with; single documents that fail are counted instead
 */
export async function restoreDatabase(options: DatabaseRestoreOptions): Promise<void> {
  const { target, dryRun } = options
  let info: DatabaseInfo = { doc_count: 0, doc_del_count: 0 }
  try {
    info = await target.info()
  } catch (error) {
    if (!(error instanceof CouchError) || error.status !== 404) throw error
    if (!dryRun) await target.ensure(options.source.settings(options.database))
  }
  await new DatabaseRestore(options, info).run()
}

class DatabaseRestore {
  readonly #options: DatabaseRestoreOptions
  /** The target has no documents, living or deleted. */
  readonly #empty: boolean
  readonly #deletions: boolean
  readonly #partitions: number
  /** Documents of the target in one partition, about. */
  readonly #expected: number
  readonly #lanes = new Lanes()
  readonly #edits: BulkWriter<PendingWrite>
  readonly #copies: BulkWriter<PendingWrite>
  #table = new RevisionTable(0)
  readonly #conflicts = new Waiting<PendingWrite>(COMPARE_BATCH)
  readonly #toCompare = new Waiting<DocumentBytes>(COMPARE_BATCH)
  readonly #toDiff = new Waiting<DocumentBytes>(DIFF_BATCH)

  constructor(options: DatabaseRestoreOptions, info: DatabaseInfo) {
    this.#options = options
    this.#empty = info.doc_count === 0 && info.doc_del_count === 0
    this.#deletions = info.doc_del_count !== 0
    this.#partitions = Math.max(1, Math.ceil(info.doc_count / TABLE_DOCUMENTS))
    this.#expected = Math.ceil(info.doc_count / this.#partitions)
    const onResult = (write: PendingWrite, result: BulkResult) => this.#onResult(write, result)
    this.#edits = new BulkWriter(options.target, true, this.#lanes, onResult)
    this.#copies = new BulkWriter(options.target, false, this.#lanes, onResult)
  }

  async run(): Promise<void> {
    try {
      for (let partition = 0; partition < this.#partitions; partition++) {
        this.#table = await this.#scan(partition)
        // Design documents last, so that indexes are built once.
        for (const design of [false, true]) await this.#restore(partition, design)
        if (this.#options.exact && !this.#empty) await this.#deleteOthers(partition)
      }
    } finally {
      await this.#lanes.settle()
    }
  }

  async #scan(partition: number): Promise<RevisionTable> {
    const { target } = this.#options
    const table = new RevisionTable(this.#expected)
    if (this.#empty) return table
    for await (const rows of allRevisions(target)) {
      for (const { id, rev } of rows) {
        if (partitionOf(id, this.#partitions) === partition) table.set(id, rev)
      }
    }
    return table
  }

  async #restore(partition: number, design: boolean): Promise<void> {
    const { source, database } = this.#options
    for await (const group of source.documents(database, design)) {
      for (const document of group) {
        const { id } = headOf(document)
        if (partitionOf(id, this.#partitions) === partition) await this.#take(document)
      }
      await turn()
    }
    await this.#diff(this.#toDiff.take())
    await this.#compare(this.#toCompare.take())
    await this.#drainWrites()
  }

  async #take(document: SourceDocument): Promise<void> {
    const { counts, skip, internalTypes } = this.#options
    const { id, rev, type, deleted } = headOf(document)
    counts.total++
    if (this.#conflicts.full) await this.#drainWrites()
    const current = this.#table.compare(id, rev)
    const internal = type !== undefined && internalTypes.has(type)
    if (skip.has(id) || internal || deleted) {
      counts.skipped++
    } else if (current === 'absent') {
      if (rev === undefined || this.#empty || !this.#deletions)
        return this.#create(document, rev !== undefined)
      if (isLarge(document)) return this.#diff([document])
      this.#toDiff.add(document)
      if (this.#toDiff.full) await this.#diff(this.#toDiff.take())
    } else if (current === 'same') {
      counts.unchanged++
    } else {
      if (isLarge(document)) return this.#compare([document])
      this.#toCompare.add(document)
      if (this.#toCompare.full) await this.#compare(this.#toCompare.take())
    }
  }

  /** @param keepRevision the target never had this revision: it is written as it was */
  async #create(document: SourceDocument, keepRevision: boolean): Promise<void> {
    if (this.#options.dryRun) {
      this.#options.counts.created++
      return
    }
    const { id, bytes } = headOf(document)
    if (isLarge(document)) return this.#writeLarge(document, keepRevision ? 'original' : null, 'created')
    const write: PendingWrite = { id, bytes, as: 'created', attempt: 1 }
    if (keepRevision) return this.#copies.add(write)
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

  /** Documents that the target has at another revision: writes those that say something else. */
  async #compare(waiting: readonly SourceDocument[]): Promise<void> {
    if (waiting.length === 0) return
    const documents = new Map(waiting.map((document) => [headOf(document).id, document]))
    const { target, counts, dryRun } = this.#options
    const ids = [...documents.keys()].map((id) => ({ id }))
    for await (const { id, doc } of target.bulkGet(ids, { attachments: false })) {
      const document = documents.get(id)
      if (!document) continue
      const current = doc && readDocument(doc)
      if (this.#isReserved(current)) this.#failReserved(id)
      else if (!current || current.deleted) await this.#create(document, false)
      else if (await this.#isSame(document, current)) counts.unchanged++
      else if (dryRun) counts.changed++
      else await this.#change(document, current.rev ?? null, 1)
    }
  }

  /** @param current with stubs */
  async #isSame(document: SourceDocument, current: DocumentBytes): Promise<boolean> {
    if (isLarge(document)) return compareContent(document.comparable, current) === 'same'
    const comparison = compareContent(document, current)
    if (comparison !== 'unknown') return comparison === 'same'
    // What is read now is then no larger than what is in memory already.
    if (sizeOfAttachments(document) !== sizeOfAttachments(current)) return false
    const { id, rev } = current
    for await (const { doc } of this.#options.target.bulkGet([{ id, rev }], { attachments: true }))
      return doc !== null && sameAttachments(document, readDocument(doc))
    return false
  }

  async #change(document: SourceDocument, rev: string | null, attempt: number): Promise<void> {
    if (isLarge(document)) return this.#writeLarge(document, rev, 'changed')
    const { id } = document
    await this.#edits.add({ id, bytes: withRevision(document, rev), as: 'changed', attempt })
  }

  async #drainWrites(): Promise<void> {
    for (;;) {
      await this.#copies.flush()
      await this.#edits.flush()
      await this.#lanes.idle()
      const conflicts = this.#conflicts.take()
      if (conflicts.length === 0) return
      await this.#resolve(conflicts)
    }
  }

  #onResult(write: PendingWrite, result: BulkResult): void {
    if (!result.error) this.#options.counts[write.as]++
    else if (result.error === 'conflict' && write.attempt < CONFLICT_ATTEMPTS) {
      this.#conflicts.add(write)
    } else this.#fail(write.id, result.error, result.reason ?? '')
  }

  /** Somebody changed these meanwhile, or they were written and the reply was lost. */
  async #resolve(conflicts: readonly PendingWrite[]): Promise<void> {
    for (let i = 0; i < conflicts.length; i += COMPARE_BATCH) {
      const writes = new Map(conflicts.slice(i, i + COMPARE_BATCH).map((write) => [write.id, write]))
      const ids = [...writes.keys()].map((id) => ({ id }))
      for await (const { id, doc } of this.#options.target.bulkGet(ids, { attachments: false })) {
        const write = writes.get(id)
        if (!write) continue
        const document = readDocument(write.bytes)
        const current = doc && readDocument(doc)
        const live = current && !current.deleted ? current : null
        if (this.#isReserved(current)) this.#failReserved(id)
        else if (live && (await this.#isSame(document, live))) this.#options.counts[write.as]++
        else await this.#change(document, live?.rev ?? null, write.attempt + 1)
      }
    }
  }

  async #writeLarge(document: LargeDocument, rev: string | null, as: 'created' | 'changed'): Promise<void> {
    const { head, parts } = document
    const { target, counts } = this.#options
    let base = rev
    for (let attempt = 1; ; attempt++) {
      const original = base === 'original'
      try {
        const bytes = original ? head.bytes : withRevision(head, base)
        await target.putWithAttachments(head.id, bytes, parts, { newEdits: !original })
        counts[as]++
        return
      } catch (error) {
        if (!(error instanceof CouchError) || error.retryable || error.status === 0) throw error
        if (error.status === 404) throw error
        if (error.status !== 409 || attempt >= CONFLICT_ATTEMPTS) {
          return this.#fail(head.id, error.error, error.reason)
        }
        const current = await target.get(head.id)
        base = current?._rev ?? null
      }
    }
  }

  #isReserved(current: DocumentBytes | null): boolean {
    return current !== null && this.#options.isOwn(current.id, current.type)
  }

  #failReserved(id: string): void {
    this.#fail(id, 'reserved', 'the database keeps its backups by this id: give the document another one')
  }

  #fail(id: string, error: string, reason: string): void {
    this.#options.counts.failed++
    this.#options.onFailure({ database: this.#options.database, id, error, reason })
  }

  async #deleteOthers(partition: number): Promise<void> {
    const { target, skip } = this.#options
    const batch: Revision[] = []
    for await (const rows of allRevisions(target)) {
      for (const revision of rows) {
        const { id } = revision
        if (partitionOf(id, this.#partitions) !== partition) continue
        // What was not there when the restore began was written since, by it or by others.
        if (!this.#table.has(id) || this.#table.wasSeen(id)) continue
        if (skip.has(id)) continue
        batch.push(revision)
      }
      while (batch.length >= COMPARE_BATCH) await this.#deleteBatch(batch.splice(0, COMPARE_BATCH))
    }
    await this.#deleteBatch(batch)
  }

  async #deleteBatch(revisions: readonly Revision[]): Promise<void> {
    if (revisions.length === 0) return
    const { target, keepTypes, counts, dryRun } = this.#options
    const deletions: Buffer[] = []
    for await (const { id, doc } of target.bulkGet(revisions, { attachments: false })) {
      const current = doc && readDocument(doc)
      if (!current?.rev || current.deleted) continue
      if (this.#isReserved(current) || (current.type !== undefined && keepTypes.has(current.type))) continue
      deletions.push(Buffer.from(JSON.stringify({ _id: id, _rev: current.rev, _deleted: true })))
    }
    if (dryRun) {
      counts.deleted += deletions.length
      return
    }
    if (deletions.length === 0) return
    for (const result of await target.bulkDocs(BulkBody.of(true, deletions))) {
      if (result.error) this.#fail(result.id, result.error, result.reason ?? '')
      else counts.deleted++
    }
  }
}

const headOf = (document: SourceDocument): DocumentBytes => (isLarge(document) ? document.head : document)

/** Ids and revisions of all documents, in pages. */
async function* allRevisions(db: CouchDatabase): AsyncGenerator<Revision[]> {
  const retrier = db.client.retrier()
  let last: string | undefined
  for (;;) {
    let rows = 0
    try {
      // The last document of the page before comes again, unless it was deleted meanwhile.
      for await (const page of db.allDocs({ from: last, limit: SCAN_PAGE })) {
        rows += page.length
        yield page[0].id === last ? page.slice(1) : page
        last = page[page.length - 1].id
      }
    } catch (error) {
      if (rows > 1) retrier.progressed()
      await retrier.failed(error)
      continue
    }
    if (rows < SCAN_PAGE) return
  }
}
