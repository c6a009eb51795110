import type { LogicalDatabase } from '../../types/databases.js'
import { DamagedBackupError } from '../errors.js'
import { LastCopies } from '../ids/copy-index.js'
import { fingerprint } from '../ids/fingerprint.js'
import { idOf } from '../json/document.js'
import { sharedTurn } from '../waits/steps.js'
import type { BackupStore } from './backup-store.js'
import { linesOf, readChunk } from './chunk-reader.js'
import { CHUNK_BYTES, type ChunkEntry, type StoredHeader } from './layout.js'
import { apiKey } from './names.js'

/** The chunks of one database of a backup, and which of their lines count. */
export interface StoredDocuments {
  chunks: ChunkEntry[]
  /** Which copy counts, of documents that changed while they were backed up. */
  repeated: LastCopies
}

/**
 * Reads what a header says of one database.
 * @throws DamagedBackupError
 */
export async function storedDocuments(
  store: BackupStore,
  header: StoredHeader,
  database: LogicalDatabase
): Promise<StoredDocuments> {
  const stored = header.storage.databases[database]
  if (!stored) return { chunks: [], repeated: new LastCopies() }
  const chunks = await store.chunks(stored)
  const repeated = new LastCopies()
  for (const chunk of stored.superseded) {
    for await (const lines of lineGroups(await readChunk(store.db, chunk))) {
      for (const line of lines) {
        const [key, ordinal] = JSON.parse(line.toString()) as [string, number]
        repeated.put(fingerprint(key), ordinal)
      }
    }
  }
  return { chunks, repeated }
}

/** Bytes of lines that are put where those before them were. */
const MAX_REUSED = 16 * 1024 * 1024

/** A chunk's lines, or the entry of a chunk whose one document is too large for memory. */
export type ChunkContent =
  | { entry: ChunkEntry; lines: Buffer; ordinal: number }
  | { entry: ChunkEntry; lines: null; ordinal: number }

/**
 * Reads chunks in order. Lines are valid until the next chunk is asked for.
 * @param options.ahead reads the next chunk while one is being used, for consumers that are faster than the database;
 * but not beside one of a large document
 * @param options.wanted leaves out chunks that are not needed
 * @throws DamagedBackupError
 */
export async function* chunkContents(
  store: BackupStore,
  chunks: readonly ChunkEntry[],
  options: { ahead: boolean; wanted?: (entry: ChunkEntry) => boolean }
): AsyncGenerator<ChunkContent> {
  let ordinal = 0
  const selected: { entry: ChunkEntry; ordinal: number }[] = []
  for (const entry of chunks) {
    if (options.wanted?.(entry) ?? true) selected.push({ entry, ordinal })
    ordinal += entry.docs
  }
  const memories: Buffer[] = []
  const read = (index: number): Promise<Buffer> | null => {
    const { entry } = selected[index]
    if (entry.large !== undefined) return null
    const at = options.ahead ? index % 2 : 0
    memories[at] ??= Buffer.allocUnsafeSlow(CHUNK_BYTES)
    // A chunk of one document has more, as many bytes as CouchDB has of a document.
    if (entry.raw >= memories[at].length && entry.raw <= MAX_REUSED)
      memories[at] = Buffer.allocUnsafeSlow(entry.raw + 1)
    const lines = readChunk(store.db, entry, memories[at])
    // Awaited when its turn comes; a consumer that stops before never asks.
    lines.catch(() => undefined)
    return lines
  }
  const isUsual = (index: number) => selected[index]?.entry.raw <= CHUNK_BYTES
  let next: Promise<Buffer> | null = null
  for (const [index, { entry, ordinal }] of selected.entries()) {
    const current = next ?? read(index)
    next = options.ahead && isUsual(index) && isUsual(index + 1) ? read(index + 1) : null
    yield { entry, ordinal, lines: current && (await current) }
  }
}

/** Lines that are read between two looks at the time. */
const GROUP_LINES = 100

/** Yields the lines of a chunk in groups, and lets others run between them. */
export async function* lineGroups(lines: Buffer): AsyncGenerator<Buffer[]> {
  let group: Buffer[] = []
  for (const line of linesOf(lines)) {
    group.push(line)
    if (group.length < GROUP_LINES) continue
    yield group
    group = []
    await sharedTurn()
  }
  yield group
}

/**
 * Yields the lines of a chunk that count, in groups, and lets others run between them.
 * @throws DamagedBackupError when the chunk does not have as many lines as its entry says
 */
export async function* countingLines(
  { entry, ordinal }: { entry: ChunkEntry; ordinal: number },
  lines: Buffer,
  repeated: LastCopies
): AsyncGenerator<Buffer[]> {
  let at = ordinal
  for await (const group of lineGroups(lines)) {
    const first = at
    at += group.length
    yield repeated.size === 0 ? group : group.filter((line, i) => repeated.isLast(idOf(line), first + i))
  }
  if (at - ordinal !== entry.docs)
    throw new DamagedBackupError('chunk', entry.id, 'does not hold as many documents as it should')
}

/** How many documents a header says it holds for a database. */
export const documentCount = (header: StoredHeader, database: LogicalDatabase): number =>
  header.dbs[apiKey(database)]?.doc_count ?? 0
