import type { Readable } from 'node:stream'
import type { BackupContent, BackupSummary } from '../../types/backups.js'
import type { DatabaseNames, LogicalDatabase } from '../../types/databases.js'
import { stubOf } from '../couch/attachments.js'
import { inPieces } from '../couch/multipart.js'
import { apiKey, LOGICAL_DATABASES } from '../databases.js'
import type { StoredHeader } from '../repository/layout.js'
import type { LegacyHeader, LoadedBackup } from '../repository/read-header.js'
import type { Repository } from '../repository/repository.js'
import { type StoredDocuments, type StoredLines, storedLength } from '../repository/stored-documents.js'
import { dropBytes, type Part, readParts, textPart, totalLength } from './content-parts.js'
import { readBackup } from './read-backup.js'

interface ContentOptions {
  names: DatabaseNames
  inflatedBytes: number
  /** Makes the stream that is given out of what `read` reads from the repository it is given. */
  stream: (read: (repository: Repository) => AsyncIterable<Uint8Array>) => Readable
}

/** Part of every entity tag. Increased when the same backup is sent as other bytes than before. */
const FORMAT_VERSION = 1

/** Returns what the get-backup API sends, streamed. */
export function backupContent(loaded: LoadedBackup, options: ContentOptions): BackupContent {
  const parts = loaded.kind === 'chunks' ? chunkedParts(loaded.header) : [legacyPart(loaded.header, options)]
  const length = totalLength(parts)
  const read = (start: number) => options.stream((repository) => readParts(repository, parts, start))
  return {
    summary: summaryOf(loaded),
    etag: `"${loaded.header._rev}.${FORMAT_VERSION}"`,
    body: read(0),
    ...(length === undefined ? undefined : { length, bodyFrom: read })
  }
}

/** Returns a backup without its documents. */
export function summaryOf({ header }: LoadedBackup): BackupSummary {
  return {
    id: header._id,
    ...(scalars(header) as Omit<BackupSummary, 'id' | 'dbs' | 'attachments'>),
    dbs: header.dbs as BackupSummary['dbs'],
    attachments: Object.keys(header._attachments ?? {})
  }
}

/** Returns the members of a header that are sent as they are, in the order in which they are sent. */
function scalars(header: StoredHeader | LegacyHeader): Record<string, unknown> {
  const { backup_version, ibp_versions, requester, doc_count, in_progress, type, start_timestamp } = header
  const { end_timestamp, elapsed, error } = header
  const dbs: [string, Record<string, unknown>][] = Object.entries(header.dbs)
  const missing = dbs.flatMap(([key, { missing }]) => (missing === true ? [key] : []))
  const unreadable = dbs.reduce(
    (sum, [, { unreadable_count: count }]) => sum + (typeof count === 'number' ? count : 0),
    0
  )
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

function chunkedParts(header: StoredHeader): Part[] {
  const parts = [textPart(opening(header))]
  let separator = ''
  for (const database of LOGICAL_DATABASES) {
    const summary = header.dbs[apiKey(database)]
    if (!summary) continue
    parts.push(textPart(`${separator}${JSON.stringify(apiKey(database))}:${openObject(summary)}"docs":[`))
    // The header of a running backup lists nothing yet.
    if (!header.in_progress) parts.push(documentsPart(header, database))
    parts.push(textPart(']}'))
    separator = ','
  }
  return [...parts, textPart('}'), ...attachmentParts(header), textPart('}')]
}

function documentsPart(header: StoredHeader, database: LogicalDatabase): Part {
  const length = storedLength(header, database)
  return {
    // A line's end is a comma's place; the last line has none.
    length: length === undefined ? undefined : Math.max(0, length - 1),
    async *read(repository, start) {
      const stored = await repository.documents(header, database)
      if (!stored) return
      stored.checkLength()
      yield* sentDocuments(stored, start)
    }
  }
}

/** Yields documents with commas between them, but for those before a place. */
async function* sentDocuments(stored: StoredDocuments, start: number): AsyncGenerator<Uint8Array> {
  const { groups, documents: skipped, bytes } = stored.groupsFrom(start)
  let count = skipped
  const separated = async function* () {
    let separator: Buffer | undefined
    for await (const group of groups) {
      if (group.kind === 'large') {
        count++
        if (separator) yield separator
        yield* group.open()
      } else {
        const joined = await joinLines(group)
        count += joined.count
        if (joined.count === 0) continue
        if (separator) yield separator
        yield* inPieces([joined.bytes])
      }
      separator = COMMA
    }
  }
  yield* dropBytes(separated(), start - bytes)
  stored.checkCount(count)
}

/** Makes commas of the ends of lines, in place, and closes over lines that do not count. */
async function joinLines({ bytes, counting }: StoredLines): Promise<{ bytes: Buffer; count: number }> {
  let used = 0
  let count = 0
  for await (const lines of counting()) {
    for (const line of lines) {
      const start = line.byteOffset - bytes.byteOffset
      if (used > 0) bytes[used++] = SEPARATOR
      if (used !== start) bytes.copyWithin(used, start, start + line.length)
      used += line.length
      count++
    }
  }
  return { bytes: bytes.subarray(0, used), count }
}

const legacyPart = (header: LegacyHeader, options: ContentOptions): Part => ({
  length: undefined,
  read: (repository) => legacy(repository, header, options)
})

async function* legacy(
  repository: Repository,
  header: LegacyHeader,
  options: ContentOptions
): AsyncGenerator<Uint8Array> {
  yield Buffer.from(opening(header))
  let open = false
  let count = 0
  let isContinued = false
  for await (const items of readBackup(repository.legacyDocument(header).open(), options)) {
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
  yield* readParts(repository, [...attachmentParts(header), textPart('}')], 0)
}

/** Returns what clients have appended, as CouchDB shows it inline: base64. */
function attachmentParts(header: StoredHeader | LegacyHeader): Part[] {
  const stubs = Object.entries(header._attachments ?? {})
  if (stubs.length === 0) return []
  const parts = stubs.flatMap(([name, stub], i): Part[] => {
    const { length } = stubOf(name, stub)
    return [
      textPart(`${i === 0 ? ',"_attachments":{' : '",'}${JSON.stringify(name)}:"`),
      {
        length: length === undefined ? undefined : Math.ceil(length / 3) * 4,
        read: (repository, start) => dropBytes(repository.attachmentText(header, name), start)
      }
    ]
  })
  return [...parts, textPart('"}')]
}

const opening = (header: StoredHeader | LegacyHeader): string =>
  `${openObject({ id: header._id, ...scalars(header) })}"dbs":{`

/** Returns the JSON of an object, open for more members. */
function openObject(members: object): string {
  const json = JSON.stringify(members)
  return json === '{}' ? '{' : `${json.slice(0, -1)},`
}

const SEPARATOR = 0x2c
const COMMA = Buffer.from(',')
