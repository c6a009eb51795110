/** Fewer bytes than these within an idle time-out count as silence. */
export const LEAST_BYTES = 1024

/** Adds up the waits for bytes: a sender of few is as bad as a silent one. */
export class SlowBytes {
  readonly #least: number
  /** Milliseconds waited for the bytes that are still too few. */
  waited = 0
  #received = 0

  /** @param least bytes after which the waits count from 0 again */
  constructor(least = LEAST_BYTES) {
    this.#least = least
  }

  add(bytes: number, waited: number): void {
    this.waited += waited
    this.#received += bytes
    if (this.#received < this.#least) return
    this.waited = 0
    this.#received = 0
  }
}
