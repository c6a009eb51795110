import type { DatabaseSummary } from '../../types/backups.js'
import type { LogicalDatabase } from '../../types/databases.js'
import { attachmentBytes, inlineAttachments } from '../couch/attachments.js'
import { settleCopies } from '../couch/copies.js'
import type { CouchDatabase, DatabaseInfo, DatabaseSettings, Revision } from '../couch/database.js'
import {
  DocumentReader,
  isReadFailure,
  type ReadDocument,
  type ReadFailure
} from '../couch/document-reader.js'
import { CouchError, isMissing, isNotFound, isTooLarge } from '../couch/errors.js'
import { type FeedPosition, readFeed } from '../couch/feed.js'
import type { Change } from '../couch/rows.js'
import { SourceWatch } from '../couch/source-watch.js'
import { CopyIndex } from '../ids/copy-index.js'
import { OrdinalSet } from '../ids/ordinal-set.js'
import { type DocumentBytes, documentSteps, isDesign, withoutRevisionMembers } from '../json/document.js'
import { toldExcluded } from '../own-documents.js'
import type { DatabaseWriter } from '../repository/database-writer.js'
import type { StoredDatabase } from '../repository/layout.js'
import { headerRevisions, type Repository } from '../repository/repository.js'
import { inTurns, inTurnsIfLong, type Steps, turnAfter } from '../waits/steps.js'
import {
  goneFailure,
  nameUnreadable,
  RefusedLines,
  tooLargeFailure,
  UnreadDocuments,
  unreadableError
} from './unreadable.js'

/** A document whose attachments take more is never whole in memory. */
export const LARGE_DOCUMENT = 4 * 1024 * 1024
/** Bytes of a document with attachments of unknown sizes that is put together in memory. */
const LARGE_LINE = 2 * LARGE_DOCUMENT
/** Documents asked for in one `_bulk_get`. */
const BATCH = 100
/** Bytes of them, bodies and attachments, unless one has more. */
const BATCH_BYTES = 2 * 1024 * 1024
/** Bytes of batches being read, or read and not yet written, unless one batch has more. */
const BYTES_IN_FLIGHT = 3 * BATCH_BYTES
/** Bytes of earlier backups, inside documents, from which it pays to leave them out of the feed. */
const LEGACY_BYTES = 16 * 1024 * 1024
/** Further rounds of the feed for revisions that vanished while they were to be read. */
const ROUNDS_FOR_VANISHED = 5
/** Further attempts at a database that became another one while it was read. */
const READ_AGAIN = 3

export interface DatabaseBackupOptions {
  source: CouchDatabase
  repository: Repository
  /** Id of the backup. */
  backup: string
  database: LogicalDatabase
  excludeTypes: ReadonlySet<string>
  /** Whether a document that cannot be read is left out and named, or ends the backup. */
  onUnreadable: 'report' | 'fail'
  /** Called as documents are stored, with their number so far. */
  onProgress(documents: number): void
}

export interface DatabaseBackupResult {
  summary: DatabaseSummary
  /** Absent when there is no such database. */
  stored?: StoredDatabase
}

/** A document that is to be read with its attachments. */
interface WantedDocument {
  rev: string
  conflicted: boolean
}

interface Batch {
  /** By id. */
  wanted: ReadonlyMap<string, WantedDocument>
  /** Memory that it takes when it has been read. */
  bytes: number
  rows: Promise<ReadDocument[]>
}

/**
 * Backs up one database as it is at one update sequence. One that was created again meanwhile, or from which documents
 * were purged, is read again from its start. One that does not exist has no documents, and the summary says so.
 * @throws CouchError, and whatever ends the client's signal
 */
export async function backupDatabase(options: DatabaseBackupOptions): Promise<DatabaseBackupResult> {
  const { source, repository, backup: id, database } = options
  const watch = new SourceWatch(source)
  let firstChunk = 0
  for (let attempt = 1; ; attempt++) {
    const backup = new DatabaseBackup(options, watch, firstChunk)
    const result = await backup.run()
    if (result) return result
    const error = new CouchError(`database "${source.name}"`, {
      error: 'changed',
      reason:
        'it was deleted and created again, documents were purged, or its sequences went back while it was read'
    })
    if (attempt > READ_AGAIN) throw error
    source.client.settings.onRetry?.({ attempt, waitMs: 0, error })
    // Nothing will refer to what was stored so far.
    await repository.parts.remove(id, database)
    // The ids before may be those of chunks that come late.
    firstChunk = backup.nextChunk
  }
}

class DatabaseBackup {
  readonly #options: DatabaseBackupOptions
  readonly #reader: DocumentReader
  readonly #writer: DatabaseWriter
  #copies = new CopyIndex(0)
  /** Ordinals of copies that had conflicts. Those that are not the last are taken out at the end. */
  readonly #conflicted = new OrdinalSet()
  /** Documents with small attachments by id, waiting to be read with them. */
  #waiting = new Map<string, WantedDocument>()
  /** Bytes that these will take when they have been read. */
  #waitingBytes = 0
  readonly #batches: Batch[] = []
  #bytesInFlight = 0
  readonly #watch: SourceWatch
  readonly #position: FeedPosition = { since: '0' }
  /** Revisions by id of earlier backups that are not worth being read, where the feed is read without documents. */
  #earlierBackups: ReadonlyMap<string, string> | undefined
  /** Documents that could not be read. A later row of the feed may replace or delete them. */
  readonly #unread = new UnreadDocuments()
  /** Documents that were too large to be stored: their lines hold nothing. */
  readonly #refused = new RefusedLines(({ id, ordinal }) => this.#copies.isLast(id, ordinal))

  constructor(options: DatabaseBackupOptions, watch: SourceWatch, firstChunk: number) {
    this.#options = options
    this.#watch = watch
    const { source, repository, backup, database } = options
    this.#reader = new DocumentReader(source)
    this.#writer = repository.writer({
      backup,
      database,
      first: firstChunk,
      onRefused: (line) => this.#refused.add(line)
    })
  }

  get nextChunk(): number {
    return this.#writer.next
  }

  /** @returns `null` when the database became another one while it was read */
  async run(): Promise<DatabaseBackupResult | null> {
    const startTimestamp = Date.now()
    const beganAt = performance.now()
    const position = this.#position
    try {
      const info = await this.#watch.begin()
      if (!info) return { summary: missingSummary(startTimestamp, this.#options) }
      const copies = await settleCopies(this.#options.source, info)
      if (!(await this.#readSource(info))) return null
      await this.#writer.endDocuments()
      this.#giveUp()
      const dropped = await this.#writer.supersede(this.#copies.repeated, (ordinal) =>
        this.#conflicted.delete(ordinal)
      )
      const { stored, rawBytes, storedBytes } = await this.#writer.finish()
      return {
        stored,
        summary: {
          start_timestamp: startTimestamp,
          // The clock may have been set meanwhile.
          finish_timestamp: startTimestamp + Math.round(performance.now() - beganAt),
          last_sequence: position.since,
          doc_count: this.#copies.copies - dropped,
          ...settingsOf(info),
          // Nothing is said where a read by any of the copies shows all.
          ...(copies !== 'agree' && { copies }),
          excluded_types: toldExcluded(this.#options.excludeTypes),
          conflict_count: this.#conflicted.size,
          raw_bytes: rawBytes,
          stored_bytes: storedBytes,
          ...this.#unreadable()
        }
      }
    } finally {
      await this.#writer.settle()
    }
  }

  /** @returns whether the database is still the one that `info` told of */
  async #readSource({ doc_count: expected }: DatabaseInfo): Promise<boolean> {
    this.#copies = new CopyIndex(expected)
    try {
      this.#earlierBackups = await this.#largeBackups()
      await this.#readToEnd()
    } catch (error) {
      if (await this.#watch.explains(error, this.#position.since)) return false
      throw error
    }
    return !(await this.#watch.changed(this.#position.since))
  }

  async #readToEnd(): Promise<void> {
    const includeDocs = this.#earlierBackups === undefined
    for (let round = 1; ; round++) {
      for await (const changes of readFeed(this.#options.source, this.#position, { includeDocs }))
        await this.#addAll(changes)
      await this.#drain()
      if (this.#unread.size === 0 || round > ROUNDS_FOR_VANISHED) break
    }
    await this.#readAgain()
  }

  /**
   * Finds out whether the database holds athena's backups that would be read, up to 8 MB each, and dropped every time.
   * @returns revisions by id of all backups; `undefined` when they are small
   */
  async #largeBackups(): Promise<Map<string, string> | undefined> {
    const backups = await headerRevisions(this.#options.source)
    return (await this.#areLarge(backups)) ? this.#onlyExcluded(backups) : undefined
  }

  async #areLarge(revisions: readonly Revision[]): Promise<boolean> {
    let bytes = 0
    for (const { id } of revisions) {
      try {
        bytes += (await this.#options.source.size(id)) ?? LEGACY_BYTES
      } catch (error) {
        if (!(error instanceof CouchError)) throw error
        // One whose size cannot be told must not be read with the others.
        if (!isNotFound(error)) bytes += LEGACY_BYTES
      }
      if (bytes >= LEGACY_BYTES) return true
    }
    return false
  }

  /** Leaves out documents of the console that have the id of a backup. */
  async #onlyExcluded(revisions: readonly Revision[]): Promise<Map<string, string>> {
    const { source, excludeTypes } = this.#options
    const excluded = new Map<string, string>()
    for (const { id, rev } of revisions) {
      const type = await source.type(id)
      if (type !== undefined && excludeTypes.has(type)) excluded.set(id, rev)
    }
    return excluded
  }

  /** Adds rows with documents as they come; those that have none are fetched together. */
  async #addAll(changes: readonly Change[]): Promise<void> {
    const bare: Change[] = []
    for (const change of changes) {
      const leftOut = change.deleted || this.#earlierBackups?.get(change.id) === change.rev
      if (!leftOut && change.doc === null) {
        bare.push(change)
        continue
      }
      const pending = this.#add(leftOut ? { ...change, deleted: true } : change)
      if (pending) await pending
      const pause = change.doc && turnAfter(change.doc)
      if (pause) await pause
    }
    for (let i = 0; i < bare.length; i += BATCH) await this.#fetch(bare.slice(i, i + BATCH))
  }

  /** @returns a promise only when there is something to wait for: most documents just go into the chunk */
  #add(change: Change): Promise<void> | undefined {
    const { id, rev, doc } = change
    if (this.#isPending(id)) return this.#drain().then(() => this.#add(change))
    this.#unread.delete(id)
    if (change.deleted || doc === null) {
      this.#copies.noteDeleted(id)
      return undefined
    }
    return this.#addFetched(id, rev, doc)
  }

  /** Fetches and adds the documents of rows that came without. */
  async #fetch(changes: readonly (Revision & { branched?: boolean })[]): Promise<void> {
    const revisions = new Map(changes.map(({ id, rev }) => [id, rev]))
    // Only the database knows which of several leaves wins, and how many conflict with it.
    const wanted = changes.map(({ id, rev, branched }) => (branched ? { id } : { id, rev }))
    for await (const found of this.#reader.read(wanted, { attachments: false })) {
      const { id, doc, conflicts, failure } = found
      // First, since it may find that the revision before has gone.
      if (this.#isPending(id)) await this.#drain()
      this.#unread.delete(id)
      const rev = revisions.get(id) as string
      if (failure) this.#noteUnread(id, rev, failure)
      else await this.#addFetched(id, rev, doc, conflicts.length > 0)
    }
  }

  /** @param told the database has told of conflicts beside the document */
  #addFetched(id: string, rev: string, doc: Uint8Array | null, told = false): Promise<void> | undefined {
    return thenOrNow(this.#readRow(id, rev, doc), (document) => this.#addRead(document, told))
  }

  #addRead(document: DocumentBytes | null, told: boolean): Promise<void> | undefined {
    if (!document) return undefined
    if (document.type !== undefined && this.#options.excludeTypes.has(document.type)) {
      this.#copies.noteDeleted(document.id)
      return undefined
    }
    const conflicted = told || document.conflicts > 0
    if (!document.attachments) return this.#write(document, conflicted)
    return this.#addWithAttachments(document, conflicted)
  }

  /** @returns `null` when it is not the living document that was asked for: it is unread then */
  #readRow(id: string, rev: string, doc: Uint8Array | null) {
    return inTurnsIfLong(doc ?? NOTHING, this.#rowSteps(id, rev, doc))
  }

  *#rowSteps(id: string, rev: string, doc: Uint8Array | null): Steps<DocumentBytes | null> {
    try {
      const document = doc && (yield* documentSteps(doc))
      // One that was deleted since the row was read: a later row says so.
      if (!document || document.deleted) throw goneFailure(id)
      if (document.id === id) return document
      throw new CouchError('_changes', { error: 'bad_answer', reason: 'a row holds another document' })
    } catch (error) {
      if (!isReadFailure(error)) throw error
      this.#noteUnread(id, rev, error)
      return null
    }
  }

  async #addWithAttachments(document: DocumentBytes, conflicted: boolean): Promise<void> {
    const attached = await inTurns(attachmentBytes(document))
    if (attached === undefined) return this.#readAlone(document, conflicted)
    if (attached > LARGE_DOCUMENT) return this.#writeLarge(document, conflicted)
    // Attachments come as base64.
    const bytes = document.bytes.length + Math.ceil((attached * 4) / 3)
    if (this.#waiting.size >= BATCH || this.#waitingBytes + bytes > BATCH_BYTES) await this.#dispatch()
    // Not the bytes: they are read again, and a hundred bodies may take any amount.
    this.#waiting.set(document.id, { rev: document.rev as string, conflicted })
    this.#waitingBytes += bytes
  }

  #isPending(id: string): boolean {
    return this.#waiting.has(id) || this.#batches.some(({ wanted }) => wanted.has(id))
  }

  /** Starts to read the waiting documents with their attachments. */
  async #dispatch(): Promise<void> {
    if (this.#waiting.size === 0) return
    // Before they are read: what is being read is bounded, unless one document takes more.
    while (this.#batches.length > 0 && this.#bytesInFlight + this.#waitingBytes > BYTES_IN_FLIGHT)
      await this.#writeBatch()
    const revisions = [...this.#waiting].map(([id, { rev }]) => ({ id, rev }))
    const rows = collectRows(this.#reader.read(revisions, { attachments: true }))
    // Awaited when they are written; a backup that fails before does not ask any more.
    rows.catch(() => undefined)
    this.#batches.push({ wanted: this.#waiting, bytes: this.#waitingBytes, rows })
    this.#bytesInFlight += this.#waitingBytes
    this.#waiting = new Map()
    this.#waitingBytes = 0
  }

  async #writeBatch(): Promise<void> {
    const batch = this.#batches.shift()
    if (!batch) return
    for (const { id, doc, failure } of await batch.rows) {
      const { rev, conflicted } = batch.wanted.get(id) as WantedDocument
      if (failure) await this.#withoutBatch(id, { rev, conflicted }, failure)
      else {
        const document = await this.#readRow(id, rev, doc)
        if (document) await this.#write(document, conflicted)
      }
    }
    this.#bytesInFlight -= batch.bytes
  }

  /** Reads one by one the attachments of a document that the database does not send with them. */
  async #withoutBatch(id: string, { rev, conflicted }: WantedDocument, failure: ReadFailure): Promise<void> {
    for await (const found of this.#reader.read([{ id, rev }], { attachments: false })) {
      if (found.failure) return this.#noteUnread(id, rev, failure)
      const document = await this.#readRow(id, rev, found.doc)
      if (document) await this.#readAlone(document, conflicted)
    }
  }

  /** Writes everything that waits, so that the next document comes after it. */
  async #drain(): Promise<void> {
    await this.#dispatch()
    while (this.#batches.length > 0) await this.#writeBatch()
  }

  #write(document: DocumentBytes, conflicted: boolean): Promise<void> | undefined {
    const ordinal = this.#copies.note(document.id)
    if (conflicted) this.#conflicted.add(ordinal)
    if (ordinal % 1000 === 999) this.#options.onProgress(this.#copies.copies)
    const design = isDesign(document.id)
    const plain = inTurnsIfLong(document.bytes, withoutRevisionMembers(document))
    return thenOrNow(plain, (bytes) => this.#writer.add(bytes, design))
  }

  /** Reads a document whose attachments may be of any size, though little is told of them. */
  async #readAlone(document: DocumentBytes, conflicted: boolean): Promise<void> {
    const { source } = this.#options
    const plain = await inTurns(plainDocument(document))
    let whole: Buffer | null
    try {
      whole = await source.client.retry(() => collect(inlineAttachments(source, plain), LARGE_LINE))
    } catch (error) {
      return this.#noteFailure(plain, error)
    }
    if (whole === null) return this.#writeLarge(document, conflicted)
    return this.#write(await inTurns(documentSteps(whole)), conflicted)
  }

  async #writeLarge(document: DocumentBytes, conflicted: boolean): Promise<void> {
    const { id } = document
    const { source } = this.#options
    const plain = await inTurns(plainDocument(document))
    /** Why reading failed in the last attempt. */
    let failure: unknown
    const open = async function* () {
      failure = undefined
      try {
        yield* inlineAttachments(source, plain)
      } catch (error) {
        failure = error
        throw error
      }
    }
    try {
      await this.#writer.addLarge({ id, design: isDesign(id) }, open)
    } catch (error) {
      if (failure !== undefined) return this.#noteFailure(plain, failure)
      if (!isTooLarge(error)) throw error
      return this.#noteUnread(id, plain.rev as string, tooLargeFailure(id, error))
    }
    const ordinal = this.#copies.note(id)
    if (conflicted) this.#conflicted.add(ordinal)
    this.#options.onProgress(this.#copies.copies)
  }

  /** Notes a document that could not be read. @throws `error` when the database does not answer at all */
  async #noteFailure({ id, rev }: DocumentBytes, error: unknown): Promise<void> {
    if (!isReadFailure(error)) throw error
    if (isMissing(error)) return this.#noteUnread(id, rev as string, goneFailure(id))
    await this.#reader.confirmAnswers(error)
    this.#noteUnread(id, rev as string, error)
  }

  #noteUnread(id: string, rev: string, failure: ReadFailure): void {
    this.#unread.set(id, { rev, failure })
  }

  /** Asks once more for what could not be read: the fault may have passed. */
  async #readAgain(): Promise<void> {
    const unread = [...this.#unread].map(([id, { rev }]) => ({ id, rev }))
    for (let i = 0; i < unread.length; i += BATCH) await this.#fetch(unread.slice(i, i + BATCH))
    await this.#drain()
  }

  /** Leaves out what is still unread, an earlier copy with it. @throws CouchError when nothing may be left out */
  #giveUp(): void {
    for (const { id, error } of this.#refused.last) this.#noteUnread(id, '', tooLargeFailure(id, error))
    if (this.#unread.size === 0) return
    if (this.#options.onUnreadable === 'fail') throw unreadableError(this.#unread)
    for (const [id] of this.#unread) this.#copies.noteDeleted(id)
  }

  #unreadable(): Pick<DatabaseSummary, 'unreadable' | 'unreadable_count'> {
    const { size } = this.#unread
    return size > 0 ? { unreadable_count: size, unreadable: nameUnreadable(this.#unread) } : {}
  }
}

const NOTHING = new Uint8Array(0)

/** Hands a value on when it is there: now where nobody has to wait for it. */
const thenOrNow = <T>(
  value: T | Promise<T>,
  next: (value: T) => Promise<void> | undefined
): Promise<void> | undefined => (value instanceof Promise ? value.then(next) : next(value))

/** Reads a document without members that describe revisions. */
function* plainDocument(document: DocumentBytes): Steps<DocumentBytes> {
  return yield* documentSteps(yield* withoutRevisionMembers(document))
}

async function collectRows<T>(rows: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const row of rows) all.push(row)
  return all
}

/** Summarizes a database that does not exist. */
const missingSummary = (now: number, { excludeTypes }: DatabaseBackupOptions): DatabaseSummary => ({
  start_timestamp: now,
  finish_timestamp: now,
  last_sequence: '0',
  doc_count: 0,
  missing: true,
  excluded_types: toldExcluded(excludeTypes),
  conflict_count: 0,
  raw_bytes: 0,
  stored_bytes: 0
})

/** Returns what a restore needs to create the database again, where the server tells. */
function settingsOf({ props, cluster }: DatabaseInfo): DatabaseSettings {
  return {
    ...(props && { partitioned: props.partitioned === true }),
    ...(cluster?.q !== undefined && { q: cluster.q })
  }
}

/** Returns all bytes of a stream, or `null` when there are more than `limit`. */
async function collect(pieces: AsyncIterable<Uint8Array>, limit: number): Promise<Buffer | null> {
  const all: Uint8Array[] = []
  let size = 0
  for await (const piece of pieces) {
    size += piece.length
    if (size > limit) return null
    all.push(piece)
  }
  return Buffer.concat(all, size)
}
