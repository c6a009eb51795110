const FIRST_BYTES = 64

/** A set of ordinals, one bit for each up to the largest. */
export class OrdinalSet {
  size = 0
  #bits = new Uint8Array(FIRST_BYTES)

  static of(ordinals: Iterable<number>): OrdinalSet {
    const set = new OrdinalSet()
    for (const ordinal of ordinals) set.add(ordinal)
    return set
  }

  has(ordinal: number): boolean {
    return ((this.#bits[ordinal >>> 3] ?? 0) & (1 << (ordinal & 7))) !== 0
  }

  add(ordinal: number): void {
    if (this.has(ordinal)) return
    while (ordinal >>> 3 >= this.#bits.length) this.#grow()
    this.#bits[ordinal >>> 3] |= 1 << (ordinal & 7)
    this.size++
  }

  #grow(): void {
    const larger = new Uint8Array(this.#bits.length * 2)
    larger.set(this.#bits)
    this.#bits = larger
  }
}
