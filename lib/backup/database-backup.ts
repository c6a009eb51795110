import type { DatabaseSummary } from '../../types/backups.js'
import type { LogicalDatabase } from '../../types/databases.js'
import type { Change, CouchDatabase, DatabaseInfo, DatabaseSettings, Revision } from '../couch/database.js'
import { CouchError, isNotFound } from '../couch/errors.js'
import { type DocumentBytes, idOf, readDocument, withoutRevisionMembers } from '../json/document.js'
import { linesOf, readChunk } from '../store/chunk-reader.js'
import { ChunkWriter } from '../store/chunk-writer.js'
import { CopyIndex } from '../store/copy-index.js'
import type { ChunkEntry, StoredDatabase } from '../store/layout.js'
import { BACKUP_RANGE, isBackupId, toldExcluded } from '../store/names.js'
import { attachmentBytes, inlineAttachments } from './attachments.js'
import { type FeedPosition, readFeed } from './feed.js'
import { SourceWatch } from './source-watch.js'

/** A document whose attachments take more is never whole in memory. */
export const LARGE_DOCUMENT = 4 * 1024 * 1024
/** Documents asked for in one `_bulk_get`. */
const BATCH = 100
/** Bytes of them, bodies and attachments, unless one has more. */
const BATCH_BYTES = 2 * 1024 * 1024
/** Batches being read at a time. */
const BATCHES_IN_FLIGHT = 3
/** Bytes of earlier backups, inside documents, from which it pays to leave them out of the feed. */
const LEGACY_BYTES = 16 * 1024 * 1024
/** Further rounds of the feed for revisions that vanished while they were to be read. */
const ROUNDS_FOR_VANISHED = 5
/** How often a database that became another one while it was read is read again. */
const READ_AGAIN = 3

export interface DatabaseBackupOptions {
  /** Database to read. */
  source: CouchDatabase
  /** Database that keeps the backup. */
  target: CouchDatabase
  backup: string
  database: LogicalDatabase
  excludeTypes: ReadonlySet<string>
  /** Deletes the chunks stored so far, which nothing will refer to. */
  discardChunks(): Promise<void>
  /** Called as documents are stored, with their number so far. */
  onProgress(documents: number): void
}

export interface DatabaseBackupResult {
  summary: DatabaseSummary
  stored: StoredDatabase
}

interface Batch {
  ids: Set<string>
  rows: Promise<{ id: string; doc: Uint8Array | null }[]>
}

/**
 * Backs up one database as it is at one update sequence. One that was created again meanwhile, or from which documents
 * were purged, is read again from its start.
 * @throws CouchError, and whatever ends the client's signal
 */
export async function backupDatabase(options: DatabaseBackupOptions): Promise<DatabaseBackupResult> {
  const { source } = options
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
    await options.discardChunks()
    // The ids before may be those of chunks that come late.
    firstChunk = backup.nextChunk
  }
}

class DatabaseBackup {
  readonly #options: DatabaseBackupOptions
  readonly #writer: ChunkWriter
  #copies = new CopyIndex(0)
  /** Ids of documents whose last copy had conflicts. */
  readonly #conflicted = new Set<string>()
  /** Revisions by id of documents with small attachments, waiting to be read with them. */
  #waiting = new Map<string, string | undefined>()
  /** What these will take when they have been read. */
  #waitingBytes = 0
  readonly #batches: Batch[] = []
  /** Ids of documents whose revision was gone: a later row of the feed must replace or delete them. */
  readonly #vanished = new Set<string>()
  readonly #watch: SourceWatch
  readonly #position: FeedPosition = { since: '0' }
  /** Revisions by id of earlier backups that are not worth being read, where the feed is read without documents. */
  #earlierBackups: ReadonlyMap<string, string> | undefined

  /** @param firstChunk number of the first chunk */
  constructor(options: DatabaseBackupOptions, watch: SourceWatch, firstChunk: number) {
    this.#options = options
    this.#watch = watch
    this.#writer = new ChunkWriter(options.target, options.backup, options.database, firstChunk)
  }

  /** Number of the chunk that would come next. */
  get nextChunk(): number {
    return this.#writer.next
  }

  /** @returns `null` when the database became another one while it was read */
  async run(): Promise<DatabaseBackupResult | null> {
    const startTimestamp = Date.now()
    const position = this.#position
    try {
      const info = await this.#watch.begin()
      if (!(await this.#readSource(info))) return null
      const chunks = await this.#writer.flush()
      const { superseded, dropped } = await this.#storeSuperseded(chunks)
      const all = [...chunks, ...superseded]
      return {
        stored: { manifests: [], chunks, superseded },
        summary: {
          start_timestamp: startTimestamp,
          finish_timestamp: Date.now(),
          last_sequence: position.since,
          doc_count: this.#copies.copies - dropped,
          ...settingsOf(info),
          excluded_types: toldExcluded(this.#options.excludeTypes),
          conflict_count: this.#conflicted.size,
          raw_bytes: all.reduce((sum, chunk) => sum + chunk.raw, 0),
          stored_bytes: all.reduce((sum, chunk) => sum + chunk.stored, 0)
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
      for await (const changes of readFeed(this.#options.source, this.#position, { includeDocs })) {
        if (!includeDocs) await this.#fetchAndAdd(changes)
        else {
          for (const change of changes) {
            const pending = this.#add(change)
            if (pending) await pending
          }
        }
      }
      await this.#drain()
      if (this.#vanished.size === 0) return
      if (round > ROUNDS_FOR_VANISHED) this.#failForVanished()
    }
  }

  /**
   * Athena's backups of up to 8 MB each would be read, and dropped, with every backup.
   * @returns revisions by id of all backups; `undefined` when they are small
   */
  async #largeBackups(): Promise<Map<string, string> | undefined> {
    const { source } = this.#options
    const rows: Revision[] = []
    await source.client.retry(async () => {
      rows.length = 0
      for await (const page of source.allDocs(BACKUP_RANGE))
        rows.push(...page.filter(({ id }) => isBackupId(id)))
    })
    return (await this.#areLarge(rows)) ? this.#onlyExcluded(rows) : undefined
  }

  async #areLarge(revisions: readonly Revision[]): Promise<boolean> {
    let bytes = 0
    for (const { id } of revisions) {
      try {
        bytes += (await this.#options.source.size(id)) ?? LEGACY_BYTES
      } catch (error) {
        if (!isNotFound(error)) throw error
      }
      if (bytes >= LEGACY_BYTES) return true
    }
    return false
  }

  /** A document of the console may have the id of a backup. */
  async #onlyExcluded(revisions: readonly Revision[]): Promise<Map<string, string>> {
    const { source, excludeTypes } = this.#options
    const excluded = new Map<string, string>()
    for (const { id, rev } of revisions) {
      const type = (await source.type(id))?.type
      if (type !== undefined && excludeTypes.has(type)) excluded.set(id, rev)
    }
    return excluded
  }

  /** @returns a promise only when there is something to wait for: most documents just go into the chunk */
  #add(change: Change): Promise<void> | undefined {
    const { id, doc } = change
    this.#vanished.delete(id)
    this.#conflicted.delete(id)
    if (this.#isPending(id)) return this.#drain().then(() => this.#add(change))
    if (change.deleted) {
      this.#copies.noteDeleted(id)
      return undefined
    }
    if (doc === null) return this.#fetchOne(change).then((fetched) => this.#addFetched(id, fetched))
    return this.#addFetched(id, doc)
  }

  /** For feeds without documents. */
  async #fetchAndAdd(changes: readonly Change[]): Promise<void> {
    const live: Change[] = []
    for (const change of changes) {
      const leftOut = change.deleted || this.#earlierBackups?.get(change.id) === change.rev
      if (leftOut) await this.#add({ ...change, deleted: true })
      else live.push(change)
    }
    for (let i = 0; i < live.length; i += BATCH) {
      const batch = live.slice(i, i + BATCH)
      // Of a document with several leaves, the database tells which wins, and how many conflict with it.
      const wanted = batch.map(({ id, rev, branched }) => (branched ? { id } : { id, rev }))
      for await (const { id, doc, conflicts } of this.#options.source.bulkGet(wanted, {
        attachments: false
      })) {
        // First, since it may find that the revision before has gone.
        if (this.#isPending(id)) await this.#drain()
        this.#vanished.delete(id)
        this.#conflicted.delete(id)
        await this.#addFetched(id, doc)
        if (conflicts.length > 0) this.#conflicted.add(id)
      }
    }
  }

  async #fetchOne(change: Change): Promise<Uint8Array | null> {
    for await (const { doc } of this.#options.source.bulkGet([change], { attachments: false })) return doc
    return null
  }

  #addFetched(id: string, doc: Uint8Array | null): Promise<void> | undefined {
    if (doc === null) {
      this.#vanished.add(id)
      return undefined
    }
    const document = readDocument(doc)
    if (document.id !== id) {
      throw new CouchError('_changes', { error: 'bad_answer', reason: 'a row holds another document' })
    }
    if (document.deleted) {
      // Since the row was read: a later one says so.
      this.#vanished.add(id)
      return undefined
    }
    if (document.type !== undefined && this.#options.excludeTypes.has(document.type)) {
      this.#copies.noteDeleted(id)
      return undefined
    }
    if (document.conflicts > 0) this.#conflicted.add(id)
    if (!document.attachments) return this.#write(document)
    return this.#addWithAttachments(document)
  }

  async #addWithAttachments(document: DocumentBytes): Promise<void> {
    const attached = attachmentBytes(document)
    if (attached > LARGE_DOCUMENT) return this.#writeLarge(document)
    const bytes = document.bytes.length + attached
    if (this.#waiting.size >= BATCH || this.#waitingBytes + bytes > BATCH_BYTES) await this.#dispatch()
    // Not the bytes: they are read again, and a hundred bodies may take any amount.
    this.#waiting.set(document.id, document.rev)
    this.#waitingBytes += bytes
  }

  #isPending(id: string): boolean {
    return this.#waiting.has(id) || this.#batches.some((batch) => batch.ids.has(id))
  }

  /** Starts to read the waiting documents with their attachments. */
  async #dispatch(): Promise<void> {
    if (this.#waiting.size === 0) return
    const revisions = [...this.#waiting].map(([id, rev]) => ({ id, rev }))
    const rows = collectRows(this.#options.source.bulkGet(revisions, { attachments: true }))
    // Awaited when they are written; a backup that fails before does not ask any more.
    rows.catch(() => undefined)
    this.#batches.push({ ids: new Set(this.#waiting.keys()), rows })
    this.#waiting = new Map()
    this.#waitingBytes = 0
    while (this.#batches.length >= BATCHES_IN_FLIGHT) await this.#writeBatch()
  }

  async #writeBatch(): Promise<void> {
    const batch = this.#batches.shift()
    if (!batch) return
    for (const { id, doc } of await batch.rows) {
      if (doc === null) this.#vanished.add(id)
      else await this.#write(readDocument(doc))
    }
  }

  /** Writes everything that waits, so that the next document comes after it. */
  async #drain(): Promise<void> {
    await this.#dispatch()
    while (this.#batches.length > 0) await this.#writeBatch()
  }

  #write(document: DocumentBytes): Promise<void> | undefined {
    const ordinal = this.#copies.note(document.id)
    if (ordinal % 1000 === 999) this.#options.onProgress(this.#copies.copies)
    return this.#writer.add(withoutRevisionMembers(document), { design: isDesign(document.id) })
  }

  async #writeLarge(document: DocumentBytes): Promise<void> {
    const { id } = document
    const plain = readDocument(withoutRevisionMembers(document))
    try {
      await this.#writer.addLarge({ id, design: isDesign(id) }, () =>
        inlineAttachments(this.#options.source, plain)
      )
    } catch (error) {
      if (!isNotFound(error)) throw error
      this.#vanished.add(id)
      return
    }
    this.#copies.note(id)
    this.#options.onProgress(this.#copies.copies)
  }

  #failForVanished(): never {
    const [id] = this.#vanished
    throw new CouchError(`document "${id}"`, {
      error: 'missing',
      reason: 'the changes feed names a revision that the database does not have'
    })
  }

  /**
   * Stores which copies count, for documents that changed or went while the database was read.
   * @returns with the number of lines that do not count
   */
  async #storeSuperseded(
    chunks: readonly ChunkEntry[]
  ): Promise<{ superseded: ChunkEntry[]; dropped: number }> {
    const { repeated } = this.#copies
    if (repeated.size === 0) return { superseded: [], dropped: 0 }
    const copies = new Map<string, number>()
    const count = (id: string) => {
      if (repeated.has(id)) copies.set(id, (copies.get(id) ?? 0) + 1)
    }
    for (const chunk of chunks) {
      if (chunk.large !== undefined) count(chunk.large)
      else for (const line of linesOf(await readChunk(this.#options.target, chunk))) count(idOf(line))
    }
    let dropped = 0
    for (const [id, last] of repeated) {
      const superseded = (copies.get(id) ?? 0) - (last < 0 ? 0 : 1)
      if (superseded === 0) continue
      dropped += superseded
      await this.#writer.add(Buffer.from(JSON.stringify([id, last])))
    }
    return { superseded: await this.#writer.flush(), dropped }
  }
}

async function collectRows<T>(rows: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const row of rows) all.push(row)
  return all
}

/** What a restore needs to create the database again, where the server tells. */
function settingsOf({ props, cluster }: DatabaseInfo): DatabaseSettings {
  return {
    ...(props && { partitioned: props.partitioned === true }),
    ...(cluster?.q !== undefined && { q: cluster.q })
  }
}

const isDesign = (id: string) => id.startsWith('_design/')
