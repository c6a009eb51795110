import { DamagedBackupError } from '../errors.js'
import { parsed } from '../json/parsed.js'
import { type ChunkContent, type ChunkSelection, chunkContents, lineGroups } from './chunk-contents.js'
import type { ChunkReader } from './chunk-reader.js'
import { ChunkWriter, type ChunkWriterOptions } from './chunk-writer.js'
import type { ChunkEntry } from './layout.js'
import { LineMarks } from './line-marks.js'

/** Bytes of lines in most chunks of an index. */
const INDEX_CHUNK = 512 * 1024
/** Marks in a line: it takes 32 KiB, which any request carries. */
const MARKS = 2048

/** A line of an index: the marks of lines of one chunk, from `first` on. */
interface IndexLine {
  /** Id of the chunk. */
  chunk: string
  first: number
  marks: LineMarks
  /** The bytes as stored. Valid until the next line is asked for. */
  bytes: Buffer
}

/**
 * Writes an index, by which the next backup finds the versions of documents without reading documents. Its lines
 * are `[id of a chunk, first line, marks in base64]`, in any order. Lines of chunks that a backup does not list
 * mean nothing to it.
 */
export class IndexWriter {
  readonly #lines: ChunkWriter

  constructor(options: Pick<ChunkWriterOptions, 'db' | 'codec' | 'places' | 'chunkBytes' | 'seal'>) {
    this.#lines = new ChunkWriter({
      ...options,
      chunkBytes: Math.min(INDEX_CHUNK, options.chunkBytes),
      // No line of an index is a document.
      onRefused() {}
    })
  }

  async add({ id }: ChunkEntry, marks: LineMarks): Promise<void> {
    for (let first = 0; first < marks.count; first += MARKS) {
      const some = marks.slice(first, Math.min(first + MARKS, marks.count))
      await this.addLine(Buffer.from(JSON.stringify([id, first, some.toBase64()])))
    }
  }

  async addLine(bytes: Uint8Array): Promise<void> {
    const pending = this.#lines.add(bytes)
    if (pending) await pending
  }

  /** Stores what is left. Returns the entries of all chunks since the last flush. */
  flush(): Promise<ChunkEntry[]> {
    return this.#lines.flush()
  }

  settle(): Promise<void> {
    return this.#lines.settle()
  }
}

/** Yields the lines of an index, by the chunks that hold them. @throws DamagedBackupError */
export async function* readIndex(
  reader: ChunkReader,
  entries: readonly ChunkEntry[],
  options: Pick<ChunkSelection, 'onDamaged'> = {}
): AsyncGenerator<{ entry: ChunkEntry; lines: AsyncGenerator<IndexLine> }> {
  for await (const { entry, lines } of chunkContents(reader, entries, { ahead: 1, ...options }))
    yield { entry, lines: indexLines(entry, lines) }
}

async function* indexLines(entry: ChunkEntry, lines: ChunkContent['lines']): AsyncGenerator<IndexLine> {
  if (lines === null) throw notAnIndex(entry)
  let count = 0
  for await (const group of lineGroups(lines)) {
    for (const bytes of group) yield lineOf(entry, bytes)
    count += group.length
  }
  if (count !== entry.docs) throw notAnIndex(entry)
}

function lineOf(entry: ChunkEntry, bytes: Buffer): IndexLine {
  const line = parsed(bytes.toString())
  if (!Array.isArray(line)) throw notAnIndex(entry)
  const [chunk, first, text] = line
  const marks = LineMarks.fromBase64(text)
  if (typeof chunk !== 'string' || !Number.isSafeInteger(first) || !marks) throw notAnIndex(entry)
  return { chunk, first, marks, bytes }
}

const notAnIndex = ({ id }: ChunkEntry) =>
  new DamagedBackupError('chunk', id, 'does not hold lines of an index')
