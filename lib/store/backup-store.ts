import { createHash } from 'node:crypto'
import type { LogicalDatabase } from '../../types/databases.js'
import { BulkBody } from '../couch/bulk-body.js'
import type { CouchDatabase } from '../couch/database.js'
import { CouchError, isConflict, isNotFound } from '../couch/errors.js'
import { asCouchError, STORED_DEPTH } from '../couch/json-rows.js'
import {
  type JsonAction,
  type JsonKind,
  type JsonPath,
  JsonScanner,
  type JsonVisitor
} from '../json/scanner.js'
import { DamagedBackupError } from './chunk-reader.js'
import type { ChunkEntry, HeaderDocument, ManifestDocument, StoredDatabase, StoredHeader } from './layout.js'
import { BACKUP_RANGE, BACKUP_TYPE, isBackupId, MANIFEST_TYPE, manifestId, partRanges } from './names.js'

/** Chunk entries of a database that a header holds (about 300 bytes each); older ones move to manifest documents. */
const MANIFEST_CHUNKS = 1000
/** Parts deleted in one `_bulk_docs`. */
const DELETIONS = 500
/** Bytes of captured members: headers of this package stay far below. */
const MAX_HEAD = 16 * 1024 * 1024

/** A backup as athena wrote it: one document with the documents inside. Held without them. */
export interface LegacyHeader {
  _id: string
  _rev: string
  in_progress?: boolean
  error?: unknown
  dbs: Record<string, Record<string, unknown>>
  _attachments?: StoredHeader['_attachments']
  [member: string]: unknown
}

export type LoadedBackup = { kind: 'chunks'; header: StoredHeader } | { kind: 'legacy'; header: LegacyHeader }

/** The documents a backup consists of, in the database that keeps backups. */
export class BackupStore {
  readonly db: CouchDatabase

  constructor(db: CouchDatabase) {
    this.db = db
  }

  /** Ids of all backups, oldest first. */
  async list(): Promise<string[]> {
    const ids: string[] = []
    try {
      await this.db.client.retry(async () => {
        ids.length = 0
        for await (const rows of this.db.allDocs(BACKUP_RANGE)) for (const { id } of rows) ids.push(id)
      })
    } catch (error) {
      // A database that the first backup will create. A 404 of anything but CouchDB says nothing.
      if (isNotFound(error) && error.error === 'not_found') return []
      throw error
    }
    const stamp = (id: string) => BigInt(id.slice(BACKUP_RANGE.from.length))
    return ids.filter(isBackupId).sort((a, b) => (stamp(a) < stamp(b) ? -1 : 1))
  }

  /** Reads a backup's header, in bounded memory also where the documents are inside. `null`: there is none. */
  async load(id: string): Promise<LoadedBackup | null> {
    try {
      const head = await this.db.client.retry(() => this.#readHead(id))
      if (head._id !== id || typeof head._rev !== 'string' || head.type !== BACKUP_TYPE) return null
      if (head.storage) return { kind: 'chunks', header: head as unknown as StoredHeader }
      return { kind: 'legacy', header: { ...head, dbs: head.dbs ?? {} } as LegacyHeader }
    } catch (error) {
      if (isNotFound(error)) return null
      throw error
    }
  }

  /** @returns whether the id was free */
  async create(id: string, header: HeaderDocument): Promise<boolean> {
    try {
      await this.db.put({ ...header, _id: id })
      return true
    } catch (error) {
      if (!isConflict(error)) throw error
      // A conflict with ourselves: the reply to the write was lost.
      const existing = await this.db.get<HeaderDocument>(id)
      return existing?.storage?.instance === header.storage.instance
    }
  }

  /**
   * Changes a header, keeping its attachments, again after each conflict with an appended attachment.
   * @param change returns `null` to leave it as it is
   * @throws CouchError with `not_found` when the header is gone
   */
  async update(id: string, change: (header: HeaderDocument) => HeaderDocument | null): Promise<void> {
    await this.db.modify<HeaderDocument>(id, (current) => {
      if (!current)
        throw new CouchError(id, { status: 404, error: 'not_found', reason: 'the backup was deleted' })
      return change(current)
    })
  }

  /** Moves chunk entries to manifest documents when there are too many for the header. */
  async relieve(id: string, database: LogicalDatabase, stored: StoredDatabase): Promise<void> {
    while (stored.chunks.length > MANIFEST_CHUNKS) {
      const chunks = stored.chunks.slice(0, MANIFEST_CHUNKS)
      const entries = JSON.stringify(chunks)
      const manifest: ManifestDocument = { type: MANIFEST_TYPE, backup_id: id, database, entries }
      const name = manifestId(id, database, stored.manifests.length)
      try {
        await this.db.put({ ...manifest, _id: name })
      } catch (error) {
        if (!isConflict(error)) throw error
        const existing = await this.db.get<ManifestDocument>(name)
        if (existing?.entries !== entries) throw error
      }
      stored.manifests.push({ id: name, chunks: chunks.length, sha256: sha256(entries) })
      stored.chunks = stored.chunks.slice(MANIFEST_CHUNKS)
    }
  }

  /**
   * Entries of all chunks that hold documents of one database, in order.
   * @throws DamagedBackupError
   */
  async chunks(stored: StoredDatabase): Promise<ChunkEntry[]> {
    const all: ChunkEntry[] = []
    for (const { id, sha256: digest } of stored.manifests) {
      const manifest = await this.db.get<ManifestDocument>(id)
      if (!manifest) throw new DamagedBackupError(id, 'is missing')
      if (typeof manifest.entries !== 'string' || sha256(manifest.entries) !== digest) {
        throw new DamagedBackupError(id, 'is damaged: its digest differs')
      }
      for (const entry of JSON.parse(manifest.entries) as ChunkEntry[]) all.push(entry)
    }
    for (const entry of stored.chunks) all.push(entry)
    return all
  }

  /**
   * Checks that every chunk is in the database at the revision that was written.
   * @throws DamagedBackupError
   */
  async checkPresence(id: string, entries: readonly ChunkEntry[]): Promise<void> {
    const present = await this.#parts(id)
    for (const entry of entries) {
      if (present.get(entry.id) !== entry.rev) throw new DamagedBackupError(entry.id, 'is missing')
    }
  }

  /** Whether there is a chunk or a manifest of a backup. */
  async hasParts(id: string): Promise<boolean> {
    return this.db.client.retry(async () => {
      let found = 0
      for (const range of partRanges(id)) {
        for await (const rows of this.db.allDocs({ ...range, limit: 1 })) found += rows.length
      }
      return found > 0
    })
  }

  /** Deletes the chunks and manifests of a backup. */
  async removeParts(id: string): Promise<void> {
    const parts = [...(await this.#parts(id))]
    for (let i = 0; i < parts.length; i += DELETIONS) {
      const deletions = parts
        .slice(i, i + DELETIONS)
        .map(([_id, _rev]) => Buffer.from(JSON.stringify({ _id, _rev, _deleted: true })))
      await this.db.bulkDocs(BulkBody.of(true, deletions))
    }
  }

  async #parts(id: string): Promise<Map<string, string>> {
    return this.db.client.retry(async () => {
      const parts = new Map<string, string>()
      for (const range of partRanges(id)) {
        for await (const rows of this.db.allDocs(range)) for (const row of rows) parts.set(row.id, row.rev)
      }
      return parts
    })
  }

  async #readHead(
    id: string
  ): Promise<Record<string, unknown> & { dbs?: Record<string, Record<string, unknown>> }> {
    const response = await this.db.client.streamOnce({
      path: [this.db.name, id],
      query: { att_encoding_info: true }
    })
    const visitor = new HeadVisitor()
    const scanner = new JsonScanner(visitor, { maxDepth: STORED_DEPTH })
    try {
      for await (const chunk of response.body) scanner.write(chunk)
      scanner.end()
    } catch (error) {
      throw asCouchError(error)
    }
    return visitor.head
  }
}

/** Keeps the members of a backup's header, except the documents of a legacy one. */
class HeadVisitor implements JsonVisitor {
  readonly head: Record<string, unknown> & { dbs?: Record<string, Record<string, unknown>> } =
    Object.create(null)
  #pieces: Buffer[] = []
  #size = 0

  begin(path: JsonPath, kind: JsonKind): JsonAction {
    if (path.length === 0) return 'enter'
    if (path[0] !== 'dbs') return 'stream'
    if (path.length < 3 && kind === 'object') {
      if (path.length === 1) this.head.dbs = {}
      else (this.head.dbs as Record<string, unknown>)[path[1]] = {}
      return 'enter'
    }
    return path[2] === 'docs' || path[2] === 'compressed_docs' ? 'skip' : 'stream'
  }

  bytes(piece: Uint8Array): void {
    this.#size += piece.length
    if (this.#size > MAX_HEAD) {
      throw new CouchError('backup header', { error: 'bad_answer', reason: 'it is too large' })
    }
    this.#pieces.push(Buffer.from(piece))
  }

  end(path: JsonPath): void {
    if (this.#pieces.length === 0) return
    const value: unknown = JSON.parse(Buffer.concat(this.#pieces).toString())
    this.#pieces = []
    if (path.length === 1) this.head[path[0]] = value
    else if (path.length === 3)
      (this.head.dbs as Record<string, Record<string, unknown>>)[path[1]][path[2]] = value
  }
}

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex')
