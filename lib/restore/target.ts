import { allRows } from '../couch/all-rows.js'
import { type CouchDatabase, type DatabaseInfo, isReplicated, type Revision } from '../couch/database.js'
import { DocumentReader, isReadFailure, type ReadDocument } from '../couch/document-reader.js'
import { CouchError } from '../couch/errors.js'
import { type NodesUp, nodesUp, noneStarted } from '../couch/nodes.js'
import { type ReplicasState, settleReplicas } from '../couch/replicas.js'
import type { FoundDocument, Row, RowDocument } from '../couch/rows.js'
import { type DocumentBytes, documentSteps, InvalidDocumentError } from '../json/document.js'
import { inTurns, turnAfter } from '../waits/steps.js'
import { compareContent, sameAttachments, sameLarge, sameLargeAttachments } from './same-content.js'
import { isLarge, isLive, type LiveDocument, type SourceDocument } from './source.js'

/** Documents whose current versions are read in one request, to be compared. */
export const COMPARE_BATCH = 100
const RESERVED = 'the database keeps its backups by this id: give the document another one'

/** `absent`: no revision at all. `reserved`: the backups' own, untouched. `unreadable`: nothing is known. */
export type CurrentDocument = Pick<FoundDocument, 'id' | 'conflicts'> &
  (
    | { state: 'live'; document: LiveDocument }
    | { state: 'absent' | 'deleted' }
    | { state: 'reserved' | 'unreadable'; reason: string }
  )

/** A database as it was when the restore began. */
interface FoundTarget {
  info: DatabaseInfo
  replicas: ReplicasState
  /** The nodes that were up before the replicas were asked. */
  nodes: NodesUp | null
  /** The update sequence before the replicas were asked to agree. */
  begun?: DatabaseInfo['update_seq']
}

/** Returns whether the document of this id and type belongs to the backups. */
export type IsOwn = (id: string, type: string | undefined) => boolean

/** A database as a restore finds it, to be read only. */
export class TargetView {
  readonly #db: CouchDatabase
  readonly #found: FoundTarget
  readonly #isOwn: IsOwn
  readonly #reader: DocumentReader

  private constructor(db: CouchDatabase, found: FoundTarget, isOwn: IsOwn) {
    this.#db = db
    this.#found = found
    this.#isOwn = isOwn
    this.#reader = new DocumentReader(db)
  }

  /** Looks at a database, if any, and waits for its replicas to agree. @throws CouchError */
  static async find(db: CouchDatabase, isOwn: IsOwn): Promise<TargetView | null> {
    const info = await db.find()
    if (!info) return null
    const nodes = isReplicated(info) ? await nodesUp(db.client) : null
    const replicas = await settleReplicas(db, info)
    // A replica that lagged may have told the counts.
    const settled = isReplicated(info) ? await db.info() : info
    return new TargetView(db, { info: settled, replicas, nodes, begun: info.update_seq }, isOwn)
  }

  /** @param info what a database tells that has just been created; `undefined` where there is none */
  static ofNothing(db: CouchDatabase, isOwn: IsOwn, info?: DatabaseInfo): TargetView {
    const empty = { ...info, doc_count: 0, doc_del_count: 0 }
    return new TargetView(db, { info: empty, replicas: 'agree', nodes: null }, isOwn)
  }

  /** Whether no replica has documents, living or deleted. */
  get isEmpty(): boolean {
    return this.documents === 0 && !this.hasDeletions && this.#found.replicas === 'agree'
  }

  get documents(): number {
    return this.#found.info.doc_count
  }

  /** Documents were deleted, or the server does not tell. */
  get hasDeletions(): boolean {
    return this.#found.info.doc_del_count !== 0
  }

  get isReplicated(): boolean {
    return isReplicated(this.#found.info)
  }

  get replicas(): ReplicasState {
    return this.#found.replicas
  }

  /** Returns the update sequence of `now`; that from before the replicas agreed, where there are several. */
  sequenceBefore({ update_seq: now = '0' }: DatabaseInfo): string {
    return String(this.isReplicated ? (this.#found.begun ?? now) : now)
  }

  /** Notes whether a node was started since: it may have answered a scan with outdated documents. */
  async checkNodes(): Promise<void> {
    if (!this.isReplicated || this.isEmpty || this.#found.replicas !== 'agree') return
    if (!noneStarted(this.#found.nodes, await nodesUp(this.#db.client))) this.#found.replicas = 'unchecked'
  }

  /** Reads documents as they are now, with stubs. Each is valid until the next is asked for. */
  async *current(ids: readonly string[]): AsyncGenerator<CurrentDocument> {
    const wanted = ids.map((id) => ({ id }))
    for await (const found of this.#reader.read(wanted, { attachments: false })) yield this.#stateOf(found)
  }

  async read(id: string): Promise<CurrentDocument> {
    for await (const found of this.current([id])) return found
    throw new CouchError('_bulk_get', { error: 'bad_answer', reason: `no result for "${id}"` })
  }

  async #stateOf({ id, doc, conflicts, failure }: ReadDocument): Promise<CurrentDocument> {
    const unreadable = ({ message }: Error): CurrentDocument => ({
      id,
      conflicts,
      state: 'unreadable',
      reason: `what the database has by this id cannot be read: ${message}`
    })
    if (failure) return unreadable(failure)
    if (!doc) return { id, conflicts, state: 'absent' }
    const document = await readOrProblem(doc)
    if (document instanceof InvalidDocumentError) return unreadable(document)
    if (document.deleted) return { id, conflicts, state: 'deleted' }
    if (this.#isOwn(document.id, document.type)) return { id, conflicts, state: 'reserved', reason: RESERVED }
    if (!isLive(document)) return unreadable(new InvalidDocumentError('it has no revision'))
    return { id, conflicts, state: 'live', document }
  }

  /** Reads all ids and revisions, with `content` also the documents, see {@link allRows}. */
  rows(wanted: 'revision' | 'content'): AsyncGenerator<Row[]> {
    return allRows(this.#db, wanted)
  }

  /** Returns the ids of those revisions that the database never had. */
  neverHad(revisions: readonly Revision[]): Promise<Set<string>> {
    return this.#db.revsDiff(revisions)
  }

  async isSame(document: SourceDocument, current: LiveDocument): Promise<boolean> {
    if (isLarge(document)) return this.#read(() => sameLarge(this.#db, document, current))
    const comparison = await inTurns(compareContent(document, current))
    return comparison === 'unknown' ? this.hasSameAttachments(document, current) : comparison === 'same'
  }

  /** Compares attachments by their bytes, for which stubs do not tell enough. */
  async hasSameAttachments(document: SourceDocument, current: LiveDocument): Promise<boolean> {
    if (isLarge(document)) return this.#read(() => sameLargeAttachments(this.#db, document, current))
    // The document read now is no larger than those in memory already.
    const { id, rev } = current
    for await (const { doc } of this.#reader.read([{ id, rev }], { attachments: true }))
      return doc !== null && (await inTurns(sameAttachments(document, await inTurns(documentSteps(doc)))))
    return false
  }

  /** Attachments that cannot be read count as other ones. */
  async #read(compare: () => Promise<boolean>): Promise<boolean> {
    try {
      return await compare()
    } catch (error) {
      if (!isReadFailure(error)) throw error
      await this.#reader.confirmAnswers(error)
      return false
    }
  }
}

/** Reads a document that the database sends, or tells why not: CouchDB sends some that it does not take. */
export async function readOrProblem(doc: RowDocument): Promise<DocumentBytes | InvalidDocumentError> {
  if (!(doc instanceof Uint8Array)) return doc
  try {
    return await inTurns(documentSteps(doc))
  } catch (error) {
    if (error instanceof InvalidDocumentError) return error
    throw error
  } finally {
    await turnAfter(doc)
  }
}
