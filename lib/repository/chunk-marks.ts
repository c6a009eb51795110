import { type ChunkEntry, nameOf } from './layout.js'
import { LineMarks } from './line-marks.js'

/** The marks that an index has of the lines of some chunks, 12 bytes each. */
export class ChunkMarks {
  readonly #chunks: ReadonlyMap<string, LineMarks>
  readonly #misfits = new Set<string>()

  constructor(entries: readonly ChunkEntry[]) {
    this.#chunks = new Map(entries.map((entry) => [nameOf(entry), LineMarks.none(entry.docs)]))
  }

  /** Enters a line of an index. Lines of other chunks mean nothing. */
  add({ chunk, first, marks }: { chunk: string; first: number; marks: LineMarks }): void {
    const known = this.#chunks.get(chunk)
    if (known && !known.fill(first, marks)) this.#misfits.add(chunk)
  }

  /** Returns whether the index has lines of a chunk that do not fit it. */
  isMisfit(entry: ChunkEntry): boolean {
    return this.#misfits.has(nameOf(entry))
  }

  /** Whether the index has lines of any chunk that do not fit it. */
  get hasMisfits(): boolean {
    return this.#misfits.size > 0
  }

  of(entry: ChunkEntry): LineMarks | undefined {
    return this.#chunks.get(nameOf(entry))
  }
}
