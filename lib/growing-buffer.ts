/** Bytes that are allocated at first. */
const FIRST = 192 * 1024

/**
 * Memory in which texts are put together from pieces, one after another: a text whose pieces are collected and then
 * copied takes its bytes twice, and becomes garbage that is collected late.
 */
export class GrowingBuffer {
  readonly #most: number
  readonly #tooLong: () => Error
  #buffer = Buffer.alloc(0)
  #used = 0

  /**
   * @param most bytes that it may hold
   * @param tooLong makes what is thrown for more
   */
  constructor(most: number, tooLong: () => Error) {
    this.#most = most
    this.#tooLong = tooLong
  }

  /** Begins another text; the one before is not valid any more. */
  clear(): void {
    this.#used = 0
  }

  /** The text so far. */
  get bytes(): Buffer {
    return this.#buffer.subarray(0, this.#used)
  }

  /** Appends a piece. @throws what was given for more bytes than it may hold */
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
