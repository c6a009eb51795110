import { DamagedBackupError } from '../errors.js'
import { sharedTurn } from '../waits/steps.js'
import type { ChunkReader } from './chunk-reader.js'
import { CHUNK_BYTES, type ChunkEntry } from './layout.js'

/** Bytes of lines whose memory is used again. */
const MAX_REUSED = 16 * 1024 * 1024
/** Lines that are read between two looks at the time. */
const GROUP_LINES = 100
const NEWLINE = 0x0a

export interface ChunkContent {
  entry: ChunkEntry
  /** Number of its first document among those of all chunks. */
  ordinal: number
  /** `null` for a chunk of one document that is too large for memory. */
  lines: Buffer | null
}

export interface ChunkSelection {
  /** Chunks read ahead for fast consumers, but not beside one of a large document: each takes 2 MiB. */
  ahead: number
  /** Leaves out chunks that are not needed. */
  wanted?: (entry: ChunkEntry) => boolean
  /** Called for damaged chunks, which are left out then. Without it, the first one ends all. */
  onDamaged?: (entry: ChunkEntry, error: DamagedBackupError) => void
}

/** Reads chunks in order. Lines are valid until the next chunk is asked for. @throws DamagedBackupError */
export async function* chunkContents(
  reader: ChunkReader,
  chunks: readonly ChunkEntry[],
  options: ChunkSelection
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
    const at = index % (options.ahead + 1)
    memories[at] ??= Buffer.allocUnsafeSlow(CHUNK_BYTES)
    // A chunk of one document has more, as many bytes as CouchDB has of a document.
    if (entry.raw >= memories[at].length && entry.raw <= MAX_REUSED)
      memories[at] = Buffer.allocUnsafeSlow(entry.raw + 1)
    const lines = reader.lines(entry, memories[at])
    // Awaited when its turn comes; a consumer that stops before never asks.
    lines.catch(() => undefined)
    return lines
  }
  const isUsual = (index: number) => selected[index]?.entry.raw <= CHUNK_BYTES
  /** Chunks that are being read, in order, the current one first. */
  const begun: ReturnType<typeof read>[] = []
  for (const [index, { entry, ordinal }] of selected.entries()) {
    if (begun.length === 0) begun.push(read(index))
    if (isUsual(index))
      for (let at = index + begun.length; begun.length <= options.ahead && isUsual(at); at++)
        begun.push(read(at))
    const current = begun.shift()
    let lines: Buffer | null
    try {
      lines = (await current) ?? null
    } catch (error) {
      if (!(error instanceof DamagedBackupError) || !options.onDamaged) throw error
      options.onDamaged(entry, error)
      continue
    }
    yield { entry, ordinal, lines }
  }
}

/** Yields the lines of a chunk, without their ends, in groups, and lets others run between them. */
export async function* lineGroups(lines: Buffer): AsyncGenerator<Buffer[]> {
  let group: Buffer[] = []
  for (let start = 0; start < lines.length; ) {
    const found = lines.indexOf(NEWLINE, start)
    const end = found < 0 ? lines.length : found
    group.push(lines.subarray(start, end))
    start = end + 1
    if (group.length < GROUP_LINES) continue
    yield group
    group = []
    await sharedTurn()
  }
  yield group
}
