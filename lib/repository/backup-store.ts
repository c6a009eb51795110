import { createHash } from 'node:crypto'
import type { LogicalDatabase } from '../../types/databases.js'
import { inSharedTurns } from '../bytes/pieces.js'
import type { CouchClient } from '../couch/client.js'
import type { CouchDatabase, Revision } from '../couch/database.js'
import { CouchError, isConflict, isMissing } from '../couch/errors.js'
import { asCouchError, STORED_DEPTH } from '../couch/json-rows.js'
import { BackupDeletedError } from '../errors.js'
import { readDocument } from '../json/document.js'
import {
  type JsonAction,
  type JsonKind,
  type JsonPath,
  JsonScanner,
  type JsonVisitor
} from '../json/scanner.js'
import { Turns } from '../waits/turns.js'
import { DamagedBackupError } from './chunk-reader.js'
import type { ChunkEntry, HeaderDocument, ManifestDocument, StoredDatabase, StoredHeader } from './layout.js'
import {
  BACKUP_RANGE,
  BACKUP_TYPE,
  isBackupId,
  isOwnDocument,
  MANIFEST_TYPE,
  manifestId,
  partRanges,
  stampIn,
  TAKEN_IDS
} from './names.js'

/** Chunk entries of a database that a header holds (about 300 bytes each); older ones move to manifest documents. */
const MANIFEST_CHUNKS = 1000
/** Bytes of the largest request for each of them: entries of three databases are a small part of one. */
const REQUEST_SHARE = 2048
/** Parts read or deleted in one request. */
const PARTS_AT_A_TIME = 500
/** Documents whose type is asked for at a time. */
const TYPES_AT_A_TIME = 8
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

interface KnownDocument {
  /** Not known of a document that was not shown. */
  rev?: string
  /** It is a backup's header. */
  header: boolean
}

export type LoadedBackup = { kind: 'chunks'; header: StoredHeader } | { kind: 'legacy'; header: LegacyHeader }

/** The documents a backup consists of, in the database that keeps backups. */
export class BackupStore {
  readonly db: CouchDatabase
  readonly turns: Turns
  /** Documents in the range of headers, as of the last list. */
  #known = new Map<string, KnownDocument>()

  /** @param turns of those who change a header */
  constructor(db: CouchDatabase, turns = new Turns()) {
    this.db = db
    this.turns = turns
  }

  /** Returns the same store by another client. */
  on(client: CouchClient): BackupStore {
    return new BackupStore(this.db.on(client))
  }

  /**
   * Ids of all backups, oldest first. Those listed before are looked for by themselves where a replica does not show them.
   */
  async list(): Promise<string[]> {
    const rows = (await this.db.rows(BACKUP_RANGE)).filter(({ id }) => isBackupId(id))
    const shown = new Set(rows.map(({ id }) => id))
    const hidden = [...this.#known].filter(([id, { header }]) => header && !shown.has(id))
    const known = new Map<string, KnownDocument>()
    const look = async (id: string, rev?: string) =>
      known.set(id, { rev, header: await this.#isHeader(id, rev) })
    const asked: { id: string; rev?: string }[] = [...rows, ...hidden.map(([id]) => ({ id }))]
    for (let i = 0; i < asked.length; i += TYPES_AT_A_TIME)
      await Promise.all(asked.slice(i, i + TYPES_AT_A_TIME).map(({ id, rev }) => look(id, rev)))
    this.#known = known
    const headers = [...known].filter(([, { header }]) => header)
    const stamped = headers.map(([id]) => ({ id, stamp: stampIn(id) }))
    return stamped.sort((a, b) => (a.stamp < b.stamp ? -1 : 1)).map(({ id }) => id)
  }

  /** The id alone does not tell: a document of the console may have it. */
  async #isHeader(id: string, rev?: string): Promise<boolean> {
    const known = this.#known.get(id)
    return known && rev !== undefined && known.rev === rev
      ? known.header
      : (await this.db.type(id))?.type === BACKUP_TYPE
  }

  /** Reads a backup's header, in bounded memory also where the documents are inside. `null`: there is none. */
  async load(id: string): Promise<LoadedBackup | null> {
    try {
      const head = await this.db.readStream(id, readHead, { att_encoding_info: true })
      if (head._id !== id || typeof head._rev !== 'string' || head.type !== BACKUP_TYPE) return null
      if (head.storage) return { kind: 'chunks', header: head as unknown as StoredHeader }
      return { kind: 'legacy', header: { ...head, dbs: head.dbs ?? {} } as LegacyHeader }
    } catch (error) {
      if (isMissing(error)) return null
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
   * @throws BackupDeletedError when the header is gone, or another document is in its place
   */
  async update(id: string, change: (header: HeaderDocument) => HeaderDocument | null): Promise<void> {
    const modify = () =>
      this.db.modify<HeaderDocument>(id, (current) => {
        if (current?.type !== BACKUP_TYPE) throw new BackupDeletedError(id)
        return change(current)
      })
    await this.turns.take(id, modify)
  }

  /** Moves chunk entries to manifest documents when there are too many for the header. */
  async relieve(id: string, database: LogicalDatabase, stored: StoredDatabase): Promise<void> {
    let index = stored.manifests.length
    const most = Math.min(MANIFEST_CHUNKS, Math.floor(this.db.client.size.bytes / REQUEST_SHARE))
    while (stored.chunks.length > most) {
      const chunks = stored.chunks.slice(0, most)
      const entries = JSON.stringify(chunks)
      const manifest: ManifestDocument = { type: MANIFEST_TYPE, backup_id: id, database, entries }
      index = await this.#putManifest(manifest, index)
      const name = manifestId(id, database, index++)
      stored.manifests.push({ id: name, chunks: chunks.length, sha256: sha256(entries) })
      stored.chunks = stored.chunks.slice(most)
    }
  }

  /** @returns the first number, from `from` on, whose id was free */
  async #putManifest(manifest: ManifestDocument, from: number): Promise<number> {
    for (let index = from; ; index++) {
      const id = manifestId(manifest.backup_id, manifest.database, index)
      try {
        await this.db.put({ ...manifest, _id: id })
        return index
      } catch (error) {
        if (!isConflict(error) || index - from >= TAKEN_IDS) throw error
        // Ours when a reply was lost; a document of the console keeps its id.
        const existing = await this.db.get<ManifestDocument>(id)
        if (existing?.type === MANIFEST_TYPE && existing.entries === manifest.entries) return index
      }
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
   * Checks that every chunk of a backup's databases is there at the revision that was written, and deletes what attempts
   * that failed have left.
   * @throws DamagedBackupError
   */
  async checkParts(id: string, databases: readonly StoredDatabase[]): Promise<void> {
    const unseen = new Map<string, string>()
    for (const stored of databases)
      for (const { id, rev } of [...(await this.chunks(stored)), ...stored.superseded]) unseen.set(id, rev)
    const manifests = databases.flatMap(({ manifests }) => manifests.map(({ id }) => id))
    const wanted = new Set([...unseen.keys(), ...manifests])
    const left: Revision[] = []
    for (const range of partRanges(id)) {
      for (const part of await this.db.rows(range)) {
        if (unseen.get(part.id) === part.rev) unseen.delete(part.id)
        if (!wanted.has(part.id)) left.push(part)
      }
    }
    await this.#confirmPresence([...unseen].map(([id, rev]) => ({ id, rev })))
    for (let i = 0; i < left.length; i += PARTS_AT_A_TIME)
      await this.#delete(left.slice(i, i + PARTS_AT_A_TIME))
  }

  /**
   * Reads documents that one replica did not show: only what a majority of them does not have is missing.
   * @throws DamagedBackupError
   */
  async #confirmPresence(parts: readonly Revision[]): Promise<void> {
    for (let i = 0; i < parts.length; i += PARTS_AT_A_TIME) {
      const group = new Map(parts.slice(i, i + PARTS_AT_A_TIME).map(({ id, rev }) => [id, rev]))
      const asked = [...group.keys()].map((id) => ({ id }))
      for await (const { id, doc } of this.db.bulkGet(asked, { attachments: false })) {
        if (!doc || readDocument(doc).rev !== group.get(id)) throw new DamagedBackupError(id, 'is missing')
      }
    }
  }

  /** Whether there is a chunk or a manifest of a backup. */
  async hasParts(id: string): Promise<boolean> {
    for await (const parts of this.#parts(id)) if ((await this.#own(parts)).length > 0) return true
    return false
  }

  /**
   * Deletes the chunks and manifests of a backup, or of one database in it. What a replica that lags does not list yet
   * stays: of a backup that failed until it is looked after again, of one that succeeds until its parts are checked.
   */
  async removeParts(id: string, database?: LogicalDatabase): Promise<void> {
    for await (const parts of this.#parts(id, database)) await this.#delete(parts)
  }

  /** Deletes those of the documents that are the plugin's own. */
  async #delete(parts: readonly Revision[]): Promise<void> {
    const deletions = (await this.#own(parts)).map(({ id: _id, rev: _rev }) =>
      Buffer.from(JSON.stringify({ _id, _rev, _deleted: true }))
    )
    if (deletions.length > 0) await this.db.bulkDocs(deletions)
  }

  /** The documents in the ranges of a backup's chunks and manifests, some at a time. */
  async *#parts(id: string, database?: LogicalDatabase): AsyncGenerator<Revision[]> {
    for (const range of partRanges(id, database)) {
      const rows = await this.db.rows(range)
      for (let i = 0; i < rows.length; i += PARTS_AT_A_TIME) yield rows.slice(i, i + PARTS_AT_A_TIME)
    }
  }

  /** Those of the documents that are the plugin's own: documents of the console may have such ids as well. */
  async #own(revisions: readonly Revision[]): Promise<Revision[]> {
    const own: Revision[] = []
    for await (const { id, doc } of this.db.bulkGet(revisions, { attachments: false })) {
      const current = doc && readDocument(doc)
      if (current?.rev && !current.deleted && isOwnDocument(id, current.type))
        own.push({ id, rev: current.rev })
    }
    return own
  }
}

type Head = Record<string, unknown> & { dbs?: Record<string, Record<string, unknown>> }

/** Reads a backup's header without the documents of an older one. */
async function readHead(body: AsyncIterable<Buffer>): Promise<Head> {
  const visitor = new HeadVisitor()
  const scanner = new JsonScanner(visitor, { maxDepth: STORED_DEPTH })
  try {
    for await (const piece of inSharedTurns(body)) scanner.write(piece)
    scanner.end()
  } catch (error) {
    throw asCouchError(error)
  }
  return visitor.head
}

/** Keeps the members of a backup's header, except the documents of a legacy one. */
class HeadVisitor implements JsonVisitor {
  readonly head: Head = Object.create(null)
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
