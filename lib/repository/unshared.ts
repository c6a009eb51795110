import { OrdinalSet } from '../ids/ordinal-set.js'
import { sharedTurn } from '../waits/steps.js'
import { type ChunkEntry, liveBytes, liveDocuments } from './layout.js'
import { checkLines, deadLinesOf, linesWithout } from './line-set.js'

/** A chunk with documents that another backup does not hold as the same lines. */
export interface UnsharedChunk {
  entry: ChunkEntry
  /** The lines that count here and not there; absent where the other does not list the chunk: all that count. */
  lines?: OrdinalSet
  documents: number
  /** Bytes of these lines, or more. */
  bytes: number
}

/** Finds the chunks of a backup with lines that count there, and do not count in another backup. */
export function unsharedChunks(
  chunks: readonly ChunkEntry[],
  others: readonly ChunkEntry[]
): UnsharedChunk[] {
  const listed = new Map(others.map((entry) => [entry.id, entry]))
  return chunks.flatMap((entry) => {
    const other = listed.get(entry.id)
    if (other?.sha256 !== entry.sha256)
      return [{ entry, documents: liveDocuments(entry), bytes: liveBytes(entry) }]
    const lines = linesDeadIn(other, entry)
    const bytes = Math.min(liveBytes(entry), other.dead?.raw ?? 0)
    return lines.size === 0 ? [] : [{ entry, lines, documents: lines.size, bytes }]
  })
}

/** Returns the lines that do not count by one entry of a chunk, but by another. */
function linesDeadIn(entry: ChunkEntry, other: ChunkEntry): OrdinalSet {
  if (!entry.dead || entry.dead.lines === other.dead?.lines) return new OrdinalSet()
  return linesWithout(deadLinesOf(entry), deadLinesOf(other), entry.docs)
}

const NEWLINE = 0x0a
/** Lines that are passed in one step. */
const STEP = 2000

/** Yields some lines of a chunk, without their ends. @throws DamagedBackupError when lines are missing */
export async function* pickedLines(
  entry: ChunkEntry,
  bytes: Buffer,
  lines: OrdinalSet
): AsyncGenerator<Buffer[]> {
  const picked: Buffer[] = []
  let line = 0
  for (let start = 0; start < bytes.length; line++) {
    const found = bytes.indexOf(NEWLINE, start)
    const end = found < 0 ? bytes.length : found
    if (lines.has(line)) picked.push(bytes.subarray(start, end))
    start = end + 1
    if (line % STEP === STEP - 1) await sharedTurn()
  }
  checkLines(entry, line)
  yield picked
}
