import type { Readable } from 'node:stream'
import type { BackupContent, BackupSummary } from '../../types/backups.js'
import type { DatabaseNames, LogicalDatabase } from '../../types/databases.js'
import { inPieces } from '../couch/multipart.js'
import { apiKey, LOGICAL_DATABASES } from '../databases.js'
import type { LoadedBackup } from '../repository/loaded-backup.js'
import type { StoredDocuments, StoredLines } from '../repository/stored-documents.js'
import { dropBytes, type Part, readParts, textPart, totalLength } from './content-parts.js'
import { readBackup } from './read-backup.js'

interface ContentOptions {
  names: DatabaseNames
  inflatedBytes: number
  /** Makes the stream that is given out of what `read` reads of the backup, on the client that is its own. */
  stream: (read: (backup: LoadedBackup) => AsyncIterable<Uint8Array>) => Readable
}

/** Part of every entity tag. Increased when backups are sent as other bytes than before. */
const FORMAT_VERSION = 1

export function backupContent(loaded: LoadedBackup, options: ContentOptions): BackupContent {
  const parts = loaded.isLegacy ? [legacyPart(options)] : chunkedParts(loaded)
  const length = totalLength(parts)
  const read = (start: number) => options.stream((backup) => readParts(backup, parts, start))
  return {
    summary: summaryOf(loaded),
    etag: `"${loaded.revision}.${FORMAT_VERSION}"`,
    body: read(0),
    ...(length === undefined ? undefined : { length, bodyFrom: read })
  }
}

/** Returns a backup without its documents. */
export function summaryOf(backup: LoadedBackup): BackupSummary {
  const { id, header, attachments } = backup
  return {
    id,
    ...(scalars(backup) as Omit<BackupSummary, 'id' | 'dbs' | 'attachments'>),
    dbs: header.dbs as unknown as BackupSummary['dbs'],
    attachments: [...attachments.keys()],
    ...(isListed(backup) && { content_sha256: backup.contentDigest })
  }
}

/** Returns whether a backup lists digests of all that it holds. */
const isListed = ({ state, isLegacy }: LoadedBackup): boolean =>
  !isLegacy && state !== 'running' && state !== 'failed'

/** Returns the members of a header that are sent as they are, in the order in which they are sent. */
function scalars({ header, sealed, damaged, verified }: LoadedBackup): Record<string, unknown> {
  const { backup_version, ibp_versions, requester, doc_count, in_progress, type, start_timestamp } = header
  const { end_timestamp, elapsed, error, note, base, chain_length, added_bytes } = header
  const dbs = Object.entries(header.dbs)
  const missing = dbs.flatMap(([key, { missing }]) => (missing === true ? [key] : []))
  const unreadable = dbs.reduce(
    (sum, [, { unreadable_count: count }]) => sum + (typeof count === 'number' ? count : 0),
    0
  )
  return {
    backup_version,
    ibp_versions,
    ...(requester ? { requester } : undefined),
    ...(typeof note === 'string' ? { note } : undefined),
    ...(header.protected === true ? { protected: true } : undefined),
    doc_count,
    in_progress: in_progress === true,
    type,
    start_timestamp,
    end_timestamp,
    elapsed,
    ...(base !== undefined && { base }),
    ...(chain_length !== undefined && { chain_length, added_bytes }),
    ...(unreadable > 0 ? { unreadable_count: unreadable } : undefined),
    ...(missing.length > 0 ? { missing_databases: missing } : undefined),
    ...(sealed !== undefined && { sealed }),
    ...(damaged && { damaged }),
    ...(verified && { verified }),
    ...(error ? { error } : undefined)
  }
}

function chunkedParts(backup: LoadedBackup): Part[] {
  const { header } = backup
  const parts = [textPart(opening(backup))]
  let separator = ''
  for (const database of LOGICAL_DATABASES) {
    const summary = header.dbs[apiKey(database)]
    if (!summary) continue
    parts.push(textPart(`${separator}${JSON.stringify(apiKey(database))}:${openObject(summary)}"docs":[`))
    // The header of a running backup lists nothing yet.
    if (backup.state !== 'running') parts.push(documentsPart(backup.linesLength(database), database))
    parts.push(textPart(']}'))
    separator = ','
  }
  return [...parts, textPart('}'), ...attachmentParts(backup), textPart('}')]
}

function documentsPart(length: number | undefined, database: LogicalDatabase): Part {
  return {
    // Commas replace line ends; the last line has none.
    length: length === undefined ? undefined : Math.max(0, length - 1),
    async *read(backup, start) {
      const stored = await backup.documents(database)
      if (!stored) return
      stored.checkLength()
      yield* sentDocuments(stored, start)
    }
  }
}

/** Yields documents with commas between them, from a place on. */
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

/** Replaces line ends by commas, in place, and removes lines that do not count. */
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

const legacyPart = (options: ContentOptions): Part => ({
  length: undefined,
  read: (backup) => legacy(backup, options)
})

async function* legacy(backup: LoadedBackup, options: ContentOptions): AsyncGenerator<Uint8Array> {
  yield Buffer.from(opening(backup))
  let open = false
  let count = 0
  let isContinued = false
  for await (const items of readBackup(backup.legacyDocument().open(), options)) {
    for (const item of items) {
      if (item.kind === 'member' || item.kind === 'about') continue
      if (item.kind === 'database') {
        const key = JSON.stringify(apiKey(item.database))
        const members = backup.header.dbs[item.key] ?? {}
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
  yield* readParts(backup, [...attachmentParts(backup), textPart('}')], 0)
}

/** Returns what clients have appended, as CouchDB shows it inline: base64. */
function attachmentParts({ attachments }: LoadedBackup): Part[] {
  if (attachments.size === 0) return []
  const parts = [...attachments].flatMap(([name, { textLength }], i): Part[] => [
    textPart(`${i === 0 ? ',"_attachments":{' : '",'}${JSON.stringify(name)}:"`),
    { length: textLength, read: (backup, start) => dropBytes(backup.attachmentText(name), start) }
  ])
  return [...parts, textPart('"}')]
}

const opening = (backup: LoadedBackup): string =>
  `${openObject({ id: backup.id, ...scalars(backup) })}"dbs":{`

/** Returns the JSON of an object, open for more members. */
function openObject(members: object): string {
  const json = JSON.stringify(members)
  return json === '{}' ? '{' : `${json.slice(0, -1)},`
}

const SEPARATOR = 0x2c
const COMMA = Buffer.from(',')
