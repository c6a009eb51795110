/** A size of buffers, in bytes, and how many free ones a pool holds on to. */
interface BufferKind {
  size: number
  keep: number
}

/**
 * Buffers of some sizes, used again and again. Large buffers that are dropped stay in memory until the garbage collector
 * finds time, which for a stream of them means most of the time.
 */
export class BufferPool {
  readonly #kinds: readonly (BufferKind & { free: Buffer[] })[]

  /** @param kinds by size, the smallest first */
  constructor(...kinds: BufferKind[]) {
    this.#kinds = kinds.map((kind) => ({ ...kind, free: [] }))
  }

  /** Returns a buffer of at least `length` bytes, with whatever is in it. One longer than all sizes is not used again. */
  take(length: number): Buffer {
    const kind = this.#kinds.find(({ size }) => length <= size)
    return kind?.free.pop() ?? Buffer.allocUnsafeSlow(kind?.size ?? length)
  }

  /** Takes back a buffer, or a part of it. The caller must be sure that nobody reads it any more. */
  give({ buffer }: Buffer): void {
    const kind = this.#kinds.find(({ size }) => size === buffer.byteLength)
    if (kind && kind.free.length < kind.keep) kind.free.push(Buffer.from(buffer))
  }
}
