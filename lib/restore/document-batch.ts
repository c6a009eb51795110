/** Bytes of documents in a batch. A document that has as many by itself is in none. */
const MAX_BYTES = 1024 * 1024

/** Collects documents about which one request is made: bounded in number and in bytes. */
export class DocumentBatch<T extends { bytes: Buffer }> {
  readonly #max: number
  #items: T[] = []
  #bytes = 0

  /** @param max documents in a batch */
  constructor(max: number) {
    this.#max = max
  }

  get full(): boolean {
    return this.#items.length >= this.#max || this.#bytes >= MAX_BYTES
  }

  /** Adds `item` with a copy of its bytes: the memory that it was read into is used again meanwhile. */
  add(item: T): void {
    this.#items.push({ ...item, bytes: Buffer.from(item.bytes) })
    this.#bytes += item.bytes.length
  }

  /** Adds `item`, unless it is long. @returns the batch that is full now, or a long item by itself */
  put(item: T): T[] | undefined {
    if (item.bytes.length >= MAX_BYTES) return [item]
    this.add(item)
    return this.full ? this.take() : undefined
  }

  /** Returns the batch, and begins another one. */
  take(): T[] {
    const items = this.#items
    this.#items = []
    this.#bytes = 0
    return items
  }
}
