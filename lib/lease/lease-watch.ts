import { isBusy, type LeaseLeaf } from './lease-document.js'

/** Milliseconds that a lease can last without a renewal: a document that says more was written by hand. */
export const LONGEST_LEASE = 60 * 60_000

/**
 * Tells whether the holder of the lease still renews it. It compares no clocks: a lease is stale when its document has
 * not changed for the time that its holder wrote down, on the clock of the instance that watches.
 */
export class LeaseWatch {
  readonly #defaultTtl: number
  /** When this instance first knew of each revision, on its monotonic clock. */
  #known = new Map<string, number>()

  /** @param defaultTtl milliseconds for a lease that does not tell, or nothing that can be */
  constructor(defaultTtl: number) {
    this.#defaultTtl = defaultTtl
  }

  /**
   * Takes in what was read.
   * @param askedAt when the reading began, on the monotonic clock
   * @returns milliseconds until each busy leaf is stale, by revision; 0 for those that are
   */
  observe(leaves: readonly LeaseLeaf[], askedAt: number): Map<string, number> {
    const now = performance.now()
    const busy = leaves.filter(isBusy)
    this.#known = new Map(busy.map(({ rev }) => [rev, this.#known.get(rev) ?? now]))
    return new Map(busy.map((leaf) => [leaf.rev, this.#left(leaf, askedAt)]))
  }

  #left({ rev, ttl = 0 }: LeaseLeaf, askedAt: number): number {
    const lasts = ttl > 0 && ttl <= LONGEST_LEASE ? ttl : this.#defaultTtl
    return Math.max(0, (this.#known.get(rev) as number) + lasts - askedAt)
  }
}
