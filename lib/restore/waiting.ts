/** Bytes of documents that wait together. A document that has as many by itself does not wait. */
const MAX_BYTES = 1024 * 1024

/** Documents that wait for something to be asked about all of them at once: bounded in number and in bytes. */
export class Waiting<T extends { bytes: Buffer }> {
  readonly #max: number
  #items: T[] = []
  #bytes = 0

  /** @param max how many may wait */
  constructor(max: number) {
    this.#max = max
  }

  get full(): boolean {
    return this.#items.length >= this.#max || this.#bytes >= MAX_BYTES
  }

  /** Adds `item` with a copy of its bytes: what it was read from is used again meanwhile. */
  add(item: T): void {
    this.#items.push({ ...item, bytes: Buffer.from(item.bytes) })
    this.#bytes += item.bytes.length
  }

  /** Adds `item`, unless it is long. @returns what has waited long enough: everything, or a long item as it is */
  put(item: T): T[] | undefined {
    if (item.bytes.length >= MAX_BYTES) return [item]
    this.add(item)
    return this.full ? this.take() : undefined
  }

  /** Everything that waits; nothing does any more. */
  take(): T[] {
    const items = this.#items
    this.#items = []
    this.#bytes = 0
    return items
  }
}
