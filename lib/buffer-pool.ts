/**
 * Buffers of one size, used again and again. Large buffers that are dropped stay in memory until the garbage collector
 * finds time, which for a stream of them means most of the time.
 */
export class BufferPool {
  readonly #size: number
  readonly #keep: number
  readonly #free: Buffer[] = []

  /**
   * @param size bytes of a buffer
   * @param keep how many free ones to hold on to
   */
  constructor(size: number, keep: number) {
    this.#size = size
    this.#keep = keep
  }

  /** A buffer of at least `length` bytes, with whatever is in it. */
  take(length = this.#size): Buffer {
    if (length > this.#size) return Buffer.allocUnsafeSlow(length)
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(this.#size)
  }

  /** Gives a buffer back. The caller must be sure that nobody reads it any more. */
  give(buffer: Buffer): void {
    if (buffer.length === this.#size && this.#free.length < this.#keep) this.#free.push(buffer)
  }
}
