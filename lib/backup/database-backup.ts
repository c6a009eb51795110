import type { DatabaseSummary } from '../../types/backups.js'
import type { LogicalDatabase } from '../../types/databases.js'
import { shownName } from '../bytes/cut-text.js'
import { attachmentBytes, inlineAttachments } from '../couch/attachments.js'
import type { CouchDatabase, DatabaseInfo, DatabaseSettings } from '../couch/database.js'
import {
  DocumentReader,
  isReadFailure,
  type ReadDocument,
  type ReadFailure
} from '../couch/document-reader.js'
import { CouchError, isMissing, isTooLarge } from '../couch/errors.js'
import { type FeedPosition, readFeed } from '../couch/feed.js'
import { ReplicasWatch } from '../couch/replicas.js'
import type { Wanted } from '../couch/requests.js'
import { collectUpTo } from '../couch/response.js'
import { type Change, type RowDocument, rowDocument } from '../couch/rows.js'
import { SourceWatch } from '../couch/source-watch.js'
import { DamagedBackupError } from '../errors.js'
import { VersionIndex } from '../ids/version-index.js'
import {
  type DocumentBytes,
  documentSteps,
  isDesign,
  LARGE_DOCUMENT,
  withoutRevisionMembers
} from '../json/document.js'
import { toldExcluded } from '../own-documents.js'
import type { BaseDocuments } from '../repository/base.js'
import type { LineFacts } from '../repository/chunk-writer.js'
import type { DatabaseWriter } from '../repository/database-writer.js'
import { largeBackupsIn } from '../repository/legacy-backups.js'
import type { RunningBackup } from '../repository/running-backup.js'
import { inTurns, inTurnsIfLong, type Steps, turnAfter } from '../waits/steps.js'
import { chooseBase, type EarlierBackup, type FullReason, identityOf } from './base-choice.js'
import {
  goneFailure,
  nameUnreadable,
  RefusedLines,
  tooLargeFailure,
  UnreadDocuments,
  unreadableError
} from './unreadable.js'

/** Bytes of a document with attachments of unknown sizes that is put together in memory. */
const LARGE_LINE = 2 * LARGE_DOCUMENT
/** Documents that are read in one request. */
const BATCH = 100
/** Bytes of a batch, bodies and attachments, unless one document has more. */
const BATCH_BYTES = 2 * 1024 * 1024
/** Bytes of batches that are being read or wait to be written, unless one batch has more. */
const BYTES_IN_FLIGHT = 3 * BATCH_BYTES
/** Further rounds of the feed for revisions that vanished while they were to be read. */
const ROUNDS_FOR_VANISHED = 5
/** Further attempts at a database that became another one while it was read. */
const READ_AGAIN = 3

interface DatabaseBackupOptions {
  source: CouchDatabase
  backup: RunningBackup
  database: LogicalDatabase
  excludeTypes: ReadonlySet<string>
  /** Whether a document that cannot be read is left out and named, or ends the backup. */
  onUnreadable: 'report' | 'fail'
  earlier: EarlierBackup
  /** Called with the number of documents stored so far, and the bytes of their JSON. */
  onProgress(documents: number, bytes: number): void
}

/** A document that is to be read with its attachments. */
interface WantedDocument {
  rev: string
  conflicted: boolean
}

interface Batch {
  wanted: ReadonlyMap<string, WantedDocument>
  /** Bytes of memory for the documents. */
  bytes: number
  rows: Promise<ReadDocument[]>
}

/**
 * Backs up a database at one update sequence. Starts over when the database is created again or purged meanwhile, and
 * when the base turns out to be damaged. The summary of a missing database says so.
 * @throws CouchError, and the reason of the client's signal
 */
export async function backupDatabase(options: DatabaseBackupOptions): Promise<DatabaseSummary> {
  const { source, backup, database } = options
  const watch = new SourceWatch(source)
  const started = { timestamp: backup.now(), at: performance.now() }
  let firstChunk = 0
  let isBaseDamaged = false
  for (let attempt = 1; ; attempt++) {
    const info = await watch.begin()
    if (!info) return missingSummary(started.timestamp, options)
    const replicas = new ReplicasWatch(source, info)
    await replicas.settle()
    const base = isBaseDamaged ? 'damaged_base' : await chooseBase({ ...options, info })
    const run = new DatabaseBackup(options, { watch, replicas, info, base, firstChunk })
    let problem = becameAnother(source.name)
    try {
      const summary = await run.run()
      if (summary) return { ...timesOf(started), ...summary, ...toldReplicas(replicas) }
    } catch (error) {
      if (!(error instanceof DamagedBackupError) || isBaseDamaged) throw error
      isBaseDamaged = true
      problem = damagedBase(error)
    }
    if (attempt > READ_AGAIN) throw problem
    source.client.settings.onRetry?.({ attempt, waitMs: 0, error: problem })
    await backup.discard(database)
    // Chunks of this attempt may still be stored, late, under the ids before.
    firstChunk = run.nextChunk
  }
}

/** Returns when a database was read, even if the clock was set meanwhile. */
const timesOf = ({ timestamp, at }: { timestamp: number; at: number }) => ({
  start_timestamp: timestamp,
  finish_timestamp: timestamp + Math.round(performance.now() - at)
})

const toldReplicas = ({ state }: ReplicasWatch): Pick<DatabaseSummary, 'copies'> =>
  state === 'agree' ? {} : { copies: state }

const becameAnother = (name: string) =>
  new CouchError(`database "${name}"`, {
    error: 'changed',
    reason:
      'it was deleted and created again, documents were purged, or its sequences went back while it was read'
  })

const damagedBase = ({ id, message }: DamagedBackupError) =>
  new CouchError(`"${shownName(id)}"`, { error: 'damaged_base', reason: message })

interface DatabaseReading {
  watch: SourceWatch
  replicas: ReplicasWatch
  info: DatabaseInfo
  /** The base of the backup, or why it is a full one. */
  base: BaseDocuments | FullReason
  firstChunk: number
}

/** Reads one database and stores its documents, in one attempt. */
class DatabaseBackup {
  readonly #options: DatabaseBackupOptions
  readonly #reading: DatabaseReading
  readonly #base: BaseDocuments | undefined
  readonly #reader: DocumentReader
  readonly #writer: DatabaseWriter
  readonly #versions: VersionIndex
  /** Bytes of the documents that were stored. */
  #bytes = 0
  /** Documents with small attachments, by id, that wait to be read with them. */
  #waiting = new Map<string, WantedDocument>()
  /** Bytes that the waiting documents will take. */
  #waitingBytes = 0
  readonly #batches: Batch[] = []
  #bytesInFlight = 0
  readonly #position: FeedPosition
  /** Revisions by id of legacy backups to skip, when the feed is read without documents. */
  #legacyBackups: ReadonlyMap<string, string> | undefined
  /** Documents that could not be read, unless a later row of the feed replaces or deletes them. */
  readonly #unread = new UnreadDocuments()
  /** Documents that were too large to be stored: their lines hold nothing. */
  readonly #refused = new RefusedLines(({ id, ordinal }) =>
    this.#versions.isLast(this.#writer.print(id), ordinal)
  )

  constructor(options: DatabaseBackupOptions, reading: DatabaseReading) {
    const { source, backup, database, earlier } = options
    const { base, firstChunk: first } = reading
    this.#options = options
    this.#reading = reading
    this.#base = typeof base === 'string' ? undefined : base
    this.#reader = new DocumentReader(source)
    this.#writer = backup.writer({
      database,
      first,
      base: this.#base,
      waste: earlier.waste,
      onRefused: (line) => this.#refused.add(line)
    })
    // The base may hold a version of any document that comes.
    this.#versions = new VersionIndex(this.#base ? null : reading.info.doc_count)
    this.#position = { since: this.#base?.since ?? '0' }
  }

  get nextChunk(): number {
    return this.#writer.next
  }

  /**
   * Reads and stores the database. @returns `null` when it became another one while it was read
   * @throws DamagedBackupError when the base turns out to be damaged
   */
  async run(): Promise<Omit<DatabaseSummary, 'start_timestamp' | 'finish_timestamp'> | null> {
    const { info, base } = this.#reading
    const { source, excludeTypes } = this.#options
    try {
      if (!(await this.#readSource())) return null
      await this.#writer.endDocuments()
      this.#giveUp()
      const stored = await this.#writer.finish(this.#versions.repeated, identityOf(source, info))
      return {
        last_sequence: this.#position.since,
        doc_count: stored.documents,
        ...settingsOf(info),
        excluded_types: toldExcluded(excludeTypes),
        conflict_count: stored.conflicts,
        raw_bytes: stored.rawBytes,
        stored_bytes: stored.storedBytes,
        ...(typeof base === 'string' ? { full_reason: base } : { base: base.backup }),
        new_chunks: stored.newChunks,
        reused_chunks: stored.reusedChunks,
        added_bytes: stored.addedBytes,
        wasted_bytes: stored.wastedBytes,
        ...this.#unreadable()
      }
    } finally {
      await this.#writer.settle()
    }
  }

  /** Reads the database. @returns whether it is still the one whose reading began */
  async #readSource(): Promise<boolean> {
    const { watch } = this.#reading
    try {
      // Only a feed from its start may hold many large backups.
      if (!this.#base)
        this.#legacyBackups = await largeBackupsIn(this.#options.source, this.#options.excludeTypes)
      await this.#readToEnd()
    } catch (error) {
      if (await watch.explains(error, this.#position.since)) return false
      throw error
    }
    return !(await watch.changed(this.#position.since))
  }

  async #readToEnd(): Promise<void> {
    do await this.#readFeed()
    while (await this.#reading.replicas.settledAgain())
    await this.#readLeftOut()
    await this.#readAgain()
  }

  async #readFeed(): Promise<void> {
    const includeDocs = this.#legacyBackups === undefined
    for (let round = 1; ; round++) {
      for await (const changes of readFeed(this.#options.source, this.#position, { includeDocs }))
        await this.#addAll(changes)
      await this.#drain()
      if (this.#unread.size === 0 || round > ROUNDS_FOR_VANISHED) break
    }
  }

  /** Fetches the documents that the base could not read and that no row of the feed has named. */
  async #readLeftOut(): Promise<void> {
    const { unreadable = [] } = this.#base ?? {}
    const ids = unreadable.filter(
      (id) => !this.#versions.repeated.has(this.#writer.print(id)) && !this.#unread.has(id)
    )
    // Without a revision: the one that wins now is read.
    const wanted = ids.map((id) => ({ id }))
    for (let i = 0; i < wanted.length; i += BATCH) await this.#fetch(wanted.slice(i, i + BATCH))
    await this.#drain()
  }

  /** Adds rows with documents as they come; those that have none are fetched together. */
  async #addAll(changes: readonly Change[]): Promise<void> {
    const bare: Change[] = []
    for (const change of changes) {
      const leftOut = change.deleted || this.#legacyBackups?.get(change.id) === change.rev
      if (!leftOut && change.doc === null) {
        bare.push(change)
        continue
      }
      const pending = this.#add(leftOut ? { ...change, deleted: true } : change)
      if (pending) await pending
      const pause = change.doc instanceof Uint8Array && turnAfter(change.doc)
      if (pause) await pause
    }
    for (let i = 0; i < bare.length; i += BATCH) await this.#fetch(bare.slice(i, i + BATCH))
  }

  /** Adds a row. @returns a promise only where there is something to wait for, which is rare */
  #add(change: Change): Promise<void> | undefined {
    const { id, rev, doc } = change
    if (this.#isPending(id)) return this.#drain().then(() => this.#add(change))
    this.#unread.delete(id)
    if (change.deleted || doc === null) {
      this.#versions.noteDeleted(this.#writer.print(id))
      return undefined
    }
    return this.#addFetched(id, rev, doc)
  }

  /** Fetches the documents of rows that came without, and adds them. */
  async #fetch(changes: readonly (Wanted & { branched?: boolean })[]): Promise<void> {
    const revisions = new Map(changes.map(({ id, rev }) => [id, rev]))
    // Only the database knows which of several leaves wins, and how many conflict with it.
    const wanted = changes.map(({ id, rev, branched }) => (branched ? { id } : { id, rev }))
    for await (const found of this.#reader.read(wanted, { attachments: false })) {
      const { id, doc, conflicts, failure } = found
      // Drain first: it may find that the previous revision is gone.
      if (this.#isPending(id)) await this.#drain()
      this.#unread.delete(id)
      const rev = revisions.get(id)
      if (failure) this.#noteUnread(id, rev, failure)
      else await this.#addFetched(id, rev, doc, conflicts.length > 0)
    }
  }

  /** Adds a document of a row. @param told whether the database has told of conflicts beside the document */
  #addFetched(
    id: string,
    rev: string | undefined,
    doc: RowDocument | null,
    told = false
  ): Promise<void> | undefined {
    return thenOrNow(this.#readRow(id, rev, doc), (document) => this.#addRead(document, told))
  }

  #addRead(document: DocumentBytes | null, told: boolean): Promise<void> | undefined {
    if (!document) return undefined
    if (document.type !== undefined && this.#options.excludeTypes.has(document.type)) {
      this.#versions.noteDeleted(this.#writer.print(document.id))
      return undefined
    }
    const conflicted = told || document.conflicts > 0
    if (!document.attachments) return this.#write(document, conflicted)
    return this.#addWithAttachments(document, conflicted)
  }

  /** Reads a row's document. @returns `null` after noting it as unread */
  #readRow(id: string, rev: string | undefined, doc: RowDocument | null) {
    return inTurnsIfLong(doc instanceof Uint8Array ? doc : NOTHING, this.#rowSteps(id, rev, doc))
  }

  *#rowSteps(id: string, rev: string | undefined, doc: RowDocument | null): Steps<DocumentBytes | null> {
    try {
      const document = doc && (yield* rowDocument(doc))
      // If the document was deleted since the row was read, a later row says so.
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
    // Keep only the revision: a hundred bodies may take any amount, and are read again with the attachments.
    this.#waiting.set(document.id, { rev: document.rev as string, conflicted })
    this.#waitingBytes += bytes
  }

  #isPending(id: string): boolean {
    return this.#waiting.has(id) || this.#batches.some(({ wanted }) => wanted.has(id))
  }

  /** Starts to read the waiting documents with their attachments. */
  async #dispatch(): Promise<void> {
    if (this.#waiting.size === 0) return
    // Wait before reading starts, so that what is in flight stays bounded.
    while (this.#batches.length > 0 && this.#bytesInFlight + this.#waitingBytes > BYTES_IN_FLIGHT)
      await this.#writeBatch()
    const revisions = [...this.#waiting].map(([id, { rev }]) => ({ id, rev }))
    const rows = collectRows(this.#reader.read(revisions, { attachments: true }))
    // Handle the rejection now: a backup that fails earlier never awaits this batch.
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

  /** Reads a document's attachments one by one, since the database does not send them with it. */
  async #withoutBatch(id: string, { rev, conflicted }: WantedDocument, failure: ReadFailure): Promise<void> {
    for await (const found of this.#reader.read([{ id, rev }], { attachments: false })) {
      if (found.failure) return this.#noteUnread(id, rev, failure)
      const document = await this.#readRow(id, rev, found.doc)
      if (document) await this.#readAlone(document, conflicted)
    }
  }

  async #drain(): Promise<void> {
    await this.#dispatch()
    while (this.#batches.length > 0) await this.#writeBatch()
  }

  #write(document: DocumentBytes, conflicted: boolean): Promise<void> | undefined {
    const facts = this.#factsOf(document.id, conflicted)
    const ordinal = this.#versions.note(facts.print)
    this.#bytes += document.bytes.length
    if (ordinal % 1000 === 999) this.#options.onProgress(this.#versions.count, this.#bytes)
    const plain = inTurnsIfLong(document.bytes, withoutRevisionMembers(document))
    return thenOrNow(plain, (bytes) => this.#writer.add(bytes, facts))
  }

  /** Reads a document whose attachments may be of any size. */
  async #readAlone(document: DocumentBytes, conflicted: boolean): Promise<void> {
    const { source } = this.#options
    const plain = await inTurns(plainDocument(document))
    let whole: Buffer | null
    try {
      whole = await source.client.retry(() => collectUpTo(inlineAttachments(source, plain), LARGE_LINE))
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
    const facts = this.#factsOf(id, conflicted)
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
      await this.#writer.addLarge(id, facts, open)
    } catch (error) {
      if (failure !== undefined) return this.#noteFailure(plain, failure)
      if (!isTooLarge(error)) throw error
      return this.#noteUnread(id, plain.rev, tooLargeFailure(id, error))
    }
    this.#versions.note(facts.print)
    this.#bytes += plain.bytes.length
    this.#options.onProgress(this.#versions.count, this.#bytes)
  }

  #factsOf(id: string, conflicted: boolean): LineFacts {
    return { print: this.#writer.print(id), design: isDesign(id), conflicted }
  }

  /** Notes a document that could not be read. @throws `error` if it is no read failure, or nothing answers at all */
  async #noteFailure({ id, rev }: DocumentBytes, error: unknown): Promise<void> {
    if (!isReadFailure(error)) throw error
    if (isMissing(error)) return this.#noteUnread(id, rev, goneFailure(id))
    await this.#reader.confirmAnswers(error)
    this.#noteUnread(id, rev, error)
  }

  #noteUnread(id: string, rev: string | undefined, failure: ReadFailure): void {
    this.#unread.set(id, { rev, failure })
  }

  /** Asks once more for unread documents: the fault may have passed. */
  async #readAgain(): Promise<void> {
    const unread = [...this.#unread].map(([id, { rev }]) => ({ id, rev }))
    for (let i = 0; i < unread.length; i += BATCH) await this.#fetch(unread.slice(i, i + BATCH))
    await this.#drain()
  }

  /** Drops all versions of the documents that are still unread. @throws CouchError when none may be left out */
  #giveUp(): void {
    for (const { id, error } of this.#refused.last)
      this.#noteUnread(id, undefined, tooLargeFailure(id, error))
    if (this.#unread.size === 0) return
    if (this.#options.onUnreadable === 'fail') throw unreadableError(this.#unread)
    for (const [id] of this.#unread) this.#versions.noteDeleted(this.#writer.print(id))
  }

  #unreadable(): Pick<DatabaseSummary, 'unreadable' | 'unreadable_count'> {
    const { size } = this.#unread
    return size > 0 ? { unreadable_count: size, unreadable: nameUnreadable(this.#unread) } : {}
  }
}

const NOTHING = new Uint8Array(0)

/** Calls `next` with a value, at once unless the value is a promise. */
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

const missingSummary = (now: number, { excludeTypes }: DatabaseBackupOptions): DatabaseSummary => ({
  start_timestamp: now,
  finish_timestamp: now,
  last_sequence: '0',
  doc_count: 0,
  missing: true,
  excluded_types: toldExcluded(excludeTypes),
  conflict_count: 0,
  raw_bytes: 0,
  stored_bytes: 0,
  new_chunks: 0,
  reused_chunks: 0,
  added_bytes: 0,
  wasted_bytes: 0
})

/** Returns the settings with which a restore creates the database, as far as the server tells them. */
function settingsOf({ props, cluster }: DatabaseInfo): DatabaseSettings {
  return {
    ...(props && { partitioned: props.partitioned === true }),
    ...(cluster?.q !== undefined && { q: cluster.q })
  }
}
