/** Bytes of buffers, and how many free ones a pool keeps. */
interface BufferKind {
  size: number
  keep: number
}

/** Reuses buffers of some sizes: large ones that are dropped stay in memory until they are collected. */
export class BufferPool {
  readonly #kinds: readonly (BufferKind & { free: Buffer[] })[]

  /** @param kinds by size, the smallest first */
  constructor(...kinds: BufferKind[]) {
    this.#kinds = kinds.map((kind) => ({ ...kind, free: [] }))
  }

  /** Returns a dirty buffer of at least `length` bytes; one beyond all sizes is not reused. */
  take(length: number): Buffer {
    const kind = this.#kinds.find(({ size }) => length <= size)
    return kind?.free.pop() ?? Buffer.allocUnsafeSlow(kind?.size ?? length)
  }

  /** Takes back a buffer, or a part of one, that nobody reads any more. */
  give({ buffer }: Buffer): void {
    const kind = this.#kinds.find(({ size }) => size === buffer.byteLength)
    if (kind && kind.free.length < kind.keep) kind.free.push(Buffer.from(buffer))
  }
}
