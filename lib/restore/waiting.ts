const MAX_BYTES = 1024 * 1024

/** Documents that wait for something to be asked about all of them at once: bounded in number and in bytes. */
export class Waiting<T> {
  readonly #max: number
  #items: T[] = []
  #bytes = 0

  constructor(max: number) {
    this.#max = max
  }

  get full(): boolean {
    return this.#items.length >= this.#max || this.#bytes >= MAX_BYTES
  }

  add(item: T, bytes: number): void {
    this.#items.push(item)
    this.#bytes += bytes
  }

  /** Everything that waits; nothing does any more. */
  take(): T[] {
    const items = this.#items
    this.#items = []
    this.#bytes = 0
    return items
  }
}
