import { Readable } from 'node:stream'
import type { BackupContent, BackupSummary } from '../../types/backups.js'
import type { DatabaseNames, LogicalDatabase } from '../../types/databases.js'
import { readBackup } from '../restore/read-backup.js'
import type { BackupStore, LegacyHeader, LoadedBackup } from '../store/backup-store.js'
import { DamagedBackupError, readLargeChunk } from '../store/chunk-reader.js'
import { isLastCopy } from '../store/copy-index.js'
import type { StoredHeader } from '../store/layout.js'
import { apiKey, LOGICAL_DATABASES } from '../store/names.js'
import { chunkContents, countingLines, documentCount, storedDocuments } from '../store/stored-documents.js'
import { base64, md5Of, whole } from './attachments.js'

export interface ContentOptions {
  names: DatabaseNames
  maxDepth: number
  inflatedBytes: number
}

/** What the get-backup API sends, streamed. */
export function backupContent(
  store: BackupStore,
  loaded: LoadedBackup,
  options: ContentOptions
): BackupContent {
  const pieces =
    loaded.kind === 'chunks' ? chunked(store, loaded.header) : legacy(store, loaded.header, options)
  return { summary: summaryOf(loaded), body: Readable.from(pieces, { objectMode: false }) }
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
  const { backup_version, ibp_versions, doc_count, in_progress, type, start_timestamp } = header
  const { end_timestamp, elapsed, error } = header
  return {
    backup_version,
    ibp_versions,
    doc_count,
    in_progress: in_progress === true,
    type,
    start_timestamp,
    end_timestamp,
    elapsed,
    ...(error ? { error } : undefined)
  }
}

async function* chunked(store: BackupStore, header: StoredHeader): AsyncGenerator<Uint8Array> {
  yield opening(header)
  let separator = ''
  for (const database of LOGICAL_DATABASES) {
    const summary = header.dbs[apiKey(database)]
    if (!summary) continue
    yield Buffer.from(`${separator}${JSON.stringify(apiKey(database))}:${openObject(summary)}"docs":[`)
    // A running backup's chunks are entered in its header when it ends.
    if (!header.in_progress) yield* documents(store, header, database)
    yield Buffer.from(']}')
    separator = ','
  }
  yield Buffer.from('}')
  yield* attachments(store, header)
  yield Buffer.from('}')
}

async function* documents(
  store: BackupStore,
  header: StoredHeader,
  database: LogicalDatabase
): AsyncGenerator<Uint8Array> {
  const { chunks, repeated } = await storedDocuments(store, header, database)
  let count = 0
  for await (const content of chunkContents(store, chunks, { ahead: true })) {
    const { entry, lines, ordinal } = content
    if (lines === null) {
      if (!isLastCopy(repeated, entry.large as string, ordinal)) continue
      if (count++ > 0) yield COMMA
      yield* readLargeChunk(store.db, entry)
      continue
    }
    // In place: a line's end becomes the separator, and lines that do not count are closed over.
    const before = count
    let used = 0
    for (const line of countingLines(content, lines, repeated)) {
      const start = line.byteOffset - lines.byteOffset
      if (used > 0) lines[used++] = SEPARATOR
      if (used !== start) lines.copyWithin(used, start, start + line.length)
      used += line.length
      count++
    }
    if (used === 0) continue
    if (before > 0) yield COMMA
    yield lines.subarray(0, used)
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
  yield opening(header)
  const response = await store.db.client.stream({ path: [store.db.name, header._id] })
  let open = false
  let count = 0
  let inPieces = false
  for await (const items of readBackup(response.body, options)) {
    for (const item of items) {
      if (item.kind === 'member') continue
      if (item.kind === 'database') {
        const key = JSON.stringify(apiKey(item.database))
        const members = header.dbs[item.key] ?? {}
        yield Buffer.from(`${open ? ']},' : ''}${key}:${openObject(members)}"docs":[`)
        open = true
        count = 0
        continue
      }
      if (!inPieces && count++ > 0) yield COMMA
      inPieces = item.kind === 'piece' && !item.last
      if (item.bytes.length > 0) yield item.bytes
    }
  }
  yield Buffer.from(open ? ']}}' : '}')
  yield* attachments(store, header)
  yield Buffer.from('}')
}

/** The clients' attachments, as CouchDB shows them inline: base64. */
async function* attachments(
  store: BackupStore,
  header: StoredHeader | LegacyHeader
): AsyncGenerator<Uint8Array> {
  const stubs = Object.entries(header._attachments ?? {})
  if (stubs.length === 0) return
  let separator = ',"_attachments":{'
  for (const [name, { length }] of stubs) {
    yield Buffer.from(`${separator}${JSON.stringify(name)}:"`)
    const open = () => store.db.attachment(header._id, name, header._rev)
    const { headers, body } = await store.db.client.retry(open)
    yield* base64(whole(body, { length, md5: md5Of(headers) }, `attachment "${name}"`))
    yield Buffer.from('"')
    separator = ','
  }
  yield Buffer.from('}')
}

function opening(header: StoredHeader | LegacyHeader): Buffer {
  const head = JSON.stringify({ id: header._id, ...scalars(header) })
  return Buffer.from(`${head.slice(0, -1)},"dbs":{`)
}

/** The JSON of an object, open for more members. */
function openObject(members: object): string {
  const json = JSON.stringify(members)
  return json === '{}' ? '{' : `${json.slice(0, -1)},`
}

const SEPARATOR = 0x2c
const COMMA = Buffer.from(',')
