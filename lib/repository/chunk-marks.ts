import type { ChunkEntry } from './layout.js'
import { LineMarks } from './line-marks.js'

/** The marks that an index has of the lines of some chunks, 12 bytes each. */
export class ChunkMarks {
  readonly #chunks: ReadonlyMap<string, LineMarks>
  /** Chunks of which the index has lines that do not fit them. */
  readonly misfits = new Set<string>()

  constructor(entries: readonly ChunkEntry[]) {
    this.#chunks = new Map(entries.map(({ id, docs }) => [id, LineMarks.none(docs)]))
  }

  /** Enters a line of an index. Lines of other chunks mean nothing. */
  add({ chunk, first, marks }: { chunk: string; first: number; marks: LineMarks }): void {
    const known = this.#chunks.get(chunk)
    if (known && !known.fill(first, marks)) this.misfits.add(chunk)
  }

  of(chunk: string): LineMarks | undefined {
    return this.#chunks.get(chunk)
  }
}
