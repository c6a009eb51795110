import type { Fingerprint } from '../ids/fingerprint.js'
import { type ChunkEntry, nameOf } from './layout.js'

/** Bytes of a mark: two halves of a fingerprint and a length, each of 32 bits, the lowest byte first. */
const SIZE = 12
const FIRST_MARKS = 64

/** Holds, for each line of a chunk, the fingerprint of its document's id and the line's bytes with its end. */
export class LineMarks {
  /** Stands for the length of a chunk of one large document, which its entry tells. */
  static readonly LARGE = 0xffffffff

  #bytes: Buffer
  #count: number

  private constructor(bytes: Buffer, count: number) {
    this.#bytes = bytes
    this.#count = count
  }

  static empty(): LineMarks {
    return new LineMarks(Buffer.allocUnsafeSlow(FIRST_MARKS * SIZE), 0)
  }

  /** Makes room for the marks of so many lines, none of which is known: see {@link fill}. */
  static none(count: number): LineMarks {
    return new LineMarks(Buffer.alloc(count * SIZE), count)
  }

  /** Reads the marks that {@link toBase64} returned; `undefined` when they are none. */
  static fromBase64(text: unknown): LineMarks | undefined {
    if (typeof text !== 'string') return undefined
    const bytes = Buffer.from(text, 'base64')
    return bytes.length % SIZE === 0 ? new LineMarks(bytes, bytes.length / SIZE) : undefined
  }

  get count(): number {
    return this.#count
  }

  add({ h, l }: Fingerprint, length: number): void {
    if ((this.#count + 1) * SIZE > this.#bytes.length) this.#grow()
    const at = this.#count++ * SIZE
    this.#bytes.writeUInt32LE(h >>> 0, at)
    this.#bytes.writeUInt32LE(l >>> 0, at + 4)
    this.#bytes.writeUInt32LE(length, at + 8)
  }

  print(line: number): Fingerprint {
    return { h: this.#bytes.readUInt32LE(line * SIZE), l: this.#bytes.readUInt32LE(line * SIZE + 4) }
  }

  length(line: number): number {
    return this.#bytes.readUInt32LE(line * SIZE + 8)
  }

  /** Sets marks from a line on. @returns `false` when there are no such lines, or they have marks already */
  fill(from: number, marks: LineMarks): boolean {
    if (from < 0 || from + marks.#count > this.#count) return false
    // No line is without bytes: it has an end.
    for (let i = 0; i < marks.#count; i++) if (this.length(from + i) !== 0) return false
    marks.#bytes.copy(this.#bytes, from * SIZE, 0, marks.#count * SIZE)
    return true
  }

  slice(from: number, to: number): LineMarks {
    return new LineMarks(this.#bytes.subarray(from * SIZE, to * SIZE), to - from)
  }

  /** Returns the mark of a single line with another length. */
  withLength(length: number): LineMarks {
    const marks = LineMarks.empty()
    marks.add(this.print(0), length)
    return marks
  }

  toBase64(): string {
    return this.#bytes.subarray(0, this.#count * SIZE).toString('base64')
  }

  #grow(): void {
    const larger = Buffer.allocUnsafeSlow(this.#bytes.length * 2)
    this.#bytes.copy(larger)
    this.#bytes = larger
  }
}

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
