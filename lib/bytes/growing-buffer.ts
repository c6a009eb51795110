import { toBuffer } from './views.js'

/** Bytes that are allocated at first. */
const FIRST = 192 * 1024

/** Memory in which texts are joined, one after another. */
export class GrowingBuffer {
  readonly #most: number
  readonly #tooLong: () => Error
  #buffer = Buffer.alloc(0)
  #used = 0

  /** @param most bytes that it may hold @param tooLong makes the error for more */
  constructor(most: number, tooLong: () => Error) {
    this.#most = most
    this.#tooLong = tooLong
  }

  /** Begins another text, which invalidates the one before. */
  clear(): void {
    this.#used = 0
  }

  get bytes(): Buffer {
    return this.#buffer.subarray(0, this.#used)
  }

  /** Appends a piece. @throws the error of `tooLong` */
  add(piece: Uint8Array | string): void {
    const bytes = typeof piece === 'string' ? Buffer.from(piece) : piece
    const needed = this.#used + bytes.length
    if (needed > this.#most) throw this.#tooLong()
    if (needed > this.#buffer.length) this.#grow(needed)
    this.#buffer.set(bytes, this.#used)
    this.#used = needed
  }

  #grow(needed: number): void {
    const size = Math.min(this.#most, Math.max(needed, 2 * this.#buffer.length, FIRST))
    const larger = Buffer.allocUnsafeSlow(size)
    this.#buffer.copy(larger, 0, 0, this.#used)
    this.#buffer = larger
  }
}

/** Joins the pieces of a text in reused memory: copies become garbage that is collected late. */
export class Pieces {
  readonly #memory: GrowingBuffer | undefined
  #pieces: Uint8Array[] = []
  #inMemory = false
  #length = 0

  /** @param memory for one text at a time; without it, each text of several pieces gets its own */
  constructor(memory?: GrowingBuffer) {
    this.#memory = memory
  }

  get length(): number {
    return this.#length
  }

  /**
   * Adds a piece, valid until the text is taken. A text's second piece invalidates the text before.
   * @param isFree whether the text before is needed no more: else this text gets its own memory
   */
  add(piece: Uint8Array, isFree = true): void {
    this.#length += piece.length
    if (this.#memory && isFree && this.#pieces.length > 0) {
      this.#memory.clear()
      for (const first of this.#pieces) this.#memory.add(first)
      this.#pieces = []
      this.#inMemory = true
    }
    if (this.#inMemory) this.#memory?.add(piece)
    else this.#pieces.push(piece)
  }

  /** Returns the text, and begins another one. */
  take(): Buffer {
    const pieces = this.#pieces
    const text =
      this.#inMemory && this.#memory
        ? this.#memory.bytes
        : pieces.length === 1
          ? toBuffer(pieces[0])
          : Buffer.concat(pieces)
    this.#pieces = []
    this.#inMemory = false
    this.#length = 0
    return text
  }
}
