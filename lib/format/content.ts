import type { Readable } from 'node:stream'
import type { BackupContent, BackupSummary, DatabaseSummary } from '../../types/backups.js'
import type { DatabaseNames, LogicalDatabase } from '../../types/databases.js'
import { type AttachmentStub, attachmentBase64, stubOf } from '../couch/attachments.js'
import { inPieces } from '../couch/multipart.js'
import type { BackupStore, LegacyHeader, LoadedBackup } from '../repository/backup-store.js'
import { DamagedBackupError, readLargeChunk } from '../repository/chunk-reader.js'
import type { ChunkEntry, StoredHeader } from '../repository/layout.js'
import { apiKey, LOGICAL_DATABASES } from '../repository/names.js'
import {
  chunkContents,
  countingLines,
  documentCount,
  type StoredDocuments,
  storedDocuments
} from '../repository/stored-documents.js'
import { dropBytes, type Part, readParts, textPart, totalLength } from './content-parts.js'
import { readBackup } from './read-backup.js'

export interface ContentOptions {
  names: DatabaseNames
  inflatedBytes: number
  /** Makes the stream that is given out of what `read` reads from the store it is given. */
  stream: (read: (store: BackupStore) => AsyncIterable<Uint8Array>) => Readable
}

/** Part of every entity tag. Increased when the same backup is sent as other bytes than before. */
const FORM = 1

/** What the get-backup API sends, streamed. */
export function backupContent(loaded: LoadedBackup, options: ContentOptions): BackupContent {
  const parts = partsOf(loaded, options)
  const length = totalLength(parts)
  const read = (start: number) => options.stream((store) => readParts(store, parts, start))
  return {
    summary: summaryOf(loaded),
    etag: `"${loaded.header._rev}.${FORM}"`,
    body: read(0),
    ...(length === undefined ? undefined : { length, bodyFrom: read })
  }
}

function partsOf(loaded: LoadedBackup, options: ContentOptions): Part[] {
  if (loaded.kind === 'chunks') return chunkedParts(loaded.header)
  return [{ length: undefined, read: (store) => legacy(store, loaded.header, options) }]
}

/** A backup without its documents. */
export function summaryOf({ header }: LoadedBackup): BackupSummary {
  return {
    id: header._id,
    ...(scalars(header) as Omit<BackupSummary, 'id' | 'dbs' | 'attachments'>),
    dbs: header.dbs as BackupSummary['dbs'],
    attachments: Object.keys(header._attachments ?? {})
  }
}

/** The members of a header that are told as they are, in the order in which they are sent. */
function scalars(header: StoredHeader | LegacyHeader): Record<string, unknown> {
  const { backup_version, ibp_versions, requester, doc_count, in_progress, type, start_timestamp } = header
  const { end_timestamp, elapsed, error } = header
  const unreadable = unreadableCount(header)
  const missing = missingDatabases(header)
  return {
    backup_version,
    ibp_versions,
    ...(requester ? { requester } : undefined),
    doc_count,
    in_progress: in_progress === true,
    type,
    start_timestamp,
    end_timestamp,
    elapsed,
    ...(unreadable > 0 ? { unreadable_count: unreadable } : undefined),
    ...(missing.length > 0 ? { missing_databases: missing } : undefined),
    ...(error ? { error } : undefined)
  }
}

function unreadableCount({ dbs }: StoredHeader | LegacyHeader): number {
  const counts = Object.values(dbs).map(({ unreadable_count: count }) => count)
  return counts.reduce<number>((sum, count) => sum + (typeof count === 'number' ? count : 0), 0)
}

const missingDatabases = ({ dbs }: StoredHeader | LegacyHeader): string[] =>
  Object.entries(dbs).flatMap(([key, { missing }]) => (missing === true ? [key] : []))

function chunkedParts(header: StoredHeader): Part[] {
  const parts = [textPart(opening(header))]
  let separator = ''
  for (const database of LOGICAL_DATABASES) {
    const summary = header.dbs[apiKey(database)]
    if (!summary) continue
    parts.push(textPart(`${separator}${JSON.stringify(apiKey(database))}:${openObject(summary)}"docs":[`))
    // A running backup's chunks are entered in its header when it ends.
    if (!header.in_progress) parts.push(documentsPart(header, database))
    parts.push(textPart(']}'))
    separator = ','
  }
  return [...parts, textPart('}'), ...attachmentParts(header), textPart('}')]
}

function documentsPart(header: StoredHeader, database: LogicalDatabase): Part {
  const length = documentBytes(header, database)
  return { length, read: (store, start) => documents(store, header, database, { length, start }) }
}

/** Bytes of a database's documents with commas between them, unless some that its chunks hold do not count. */
function documentBytes(header: StoredHeader, database: LogicalDatabase): number | undefined {
  const stored = header.storage.databases[database]
  if (!stored) return 0
  const { raw_bytes: raw } = header.dbs[apiKey(database)] as DatabaseSummary
  if (stored.superseded.length > 0 || !Number.isSafeInteger(raw)) return undefined
  // A line's end is a comma's place; the last line has none.
  return Math.max(0, raw - 1)
}

async function* documents(
  store: BackupStore,
  header: StoredHeader,
  database: LogicalDatabase,
  { length, start }: { length: number | undefined; start: number }
): AsyncGenerator<Uint8Array> {
  const { chunks, repeated } = await storedDocuments(store, header, database)
  if (length !== undefined && length !== Math.max(0, sumOfRaw(chunks) - 1)) {
    throw new DamagedBackupError(header._id, `says that the documents of ${database} have another length`)
  }
  const skipped = chunksBefore(chunks, start)
  const rest = sentDocuments(store, header, database, { chunks, repeated, skipped })
  yield* dropBytes(rest, start - sumOfRaw(skipped))
}

/** The chunks that end, with the comma after them, at a place in the documents or before it. */
function chunksBefore(chunks: readonly ChunkEntry[], start: number): ReadonlySet<ChunkEntry> {
  const before = new Set<ChunkEntry>()
  let end = 0
  for (const chunk of chunks) {
    end += chunk.raw
    if (end > start) break
    before.add(chunk)
  }
  return before
}

function sumOfRaw(chunks: Iterable<ChunkEntry>): number {
  let sum = 0
  for (const { raw } of chunks) sum += raw
  return sum
}

async function* sentDocuments(
  store: BackupStore,
  header: StoredHeader,
  database: LogicalDatabase,
  { chunks, repeated, skipped }: StoredDocuments & { skipped: ReadonlySet<ChunkEntry> }
): AsyncGenerator<Uint8Array> {
  let count = 0
  for (const { docs } of skipped) count += docs
  let separate = false
  const wanted = (entry: ChunkEntry) => !skipped.has(entry)
  for await (const content of chunkContents(store, chunks, { ahead: true, wanted })) {
    const { entry, lines, ordinal } = content
    if (lines === null) {
      if (!repeated.isLast(entry.large ?? '', ordinal)) continue
      if (separate) yield COMMA
      count++
      separate = true
      yield* readLargeChunk(store.db, entry)
      continue
    }
    // In place: a line's end becomes the separator, and lines that do not count are closed over.
    let used = 0
    for await (const group of countingLines(content, lines, repeated)) {
      for (const line of group) {
        const start = line.byteOffset - lines.byteOffset
        if (used > 0) lines[used++] = SEPARATOR
        if (used !== start) lines.copyWithin(used, start, start + line.length)
        used += line.length
        count++
      }
    }
    if (used === 0) continue
    if (separate) yield COMMA
    separate = true
    yield* inPieces([lines.subarray(0, used)])
  }
  const expected = documentCount(header, database)
  if (count !== expected) {
    throw new DamagedBackupError(
      header._id,
      `says ${expected} documents for ${database}, its chunks hold ${count}`
    )
  }
}

async function* legacy(
  store: BackupStore,
  header: LegacyHeader,
  options: ContentOptions
): AsyncGenerator<Uint8Array> {
  yield Buffer.from(opening(header))
  const response = await store.db.client.stream({ path: [store.db.name, header._id] })
  let open = false
  let count = 0
  let isContinued = false
  for await (const items of readBackup(response.body, options)) {
    for (const item of items) {
      if (item.kind === 'member' || item.kind === 'about') continue
      if (item.kind === 'database') {
        const key = JSON.stringify(apiKey(item.database))
        const members = header.dbs[item.key] ?? {}
        yield Buffer.from(`${open ? ']},' : ''}${key}:${openObject(members)}"docs":[`)
        open = true
        count = 0
        continue
      }
      if (!isContinued && count++ > 0) yield COMMA
      isContinued = item.kind === 'piece' && !item.last
      yield* inPieces([item.bytes])
    }
  }
  yield Buffer.from(open ? ']}}' : '}')
  yield* readParts(store, [...attachmentParts(header), textPart('}')], 0)
}

/** The clients' attachments, as CouchDB shows them inline: base64. */
function attachmentParts(header: StoredHeader | LegacyHeader): Part[] {
  const stubs = Object.entries(header._attachments ?? {})
  if (stubs.length === 0) return []
  const parts = stubs.flatMap(([name, stub], i) => [
    textPart(`${i === 0 ? ',"_attachments":{' : '",'}${JSON.stringify(name)}:"`),
    attachmentPart(header, stubOf(name, stub))
  ])
  return [...parts, textPart('"}')]
}

function attachmentPart({ _id: id, _rev: rev }: StoredHeader | LegacyHeader, stub: AttachmentStub): Part {
  const { length } = stub
  return {
    length: length === undefined ? undefined : Math.ceil(length / 3) * 4,
    read: ({ db }, start) => dropBytes(attachmentBase64(db, id, rev, stub), start)
  }
}

function opening(header: StoredHeader | LegacyHeader): string {
  const head = JSON.stringify({ id: header._id, ...scalars(header) })
  return `${head.slice(0, -1)},"dbs":{`
}

/** The JSON of an object, open for more members. */
function openObject(members: object): string {
  const json = JSON.stringify(members)
  return json === '{}' ? '{' : `${json.slice(0, -1)},`
}

const SEPARATOR = 0x2c
const COMMA = Buffer.from(',')
