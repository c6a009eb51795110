/** Milliseconds between two writes. */
export const PROGRESS_INTERVAL = 2000

/** Writes progress, never twice at a time. After a write that failed, each call throws what it threw. */
export class AtIntervals {
  readonly #write: () => Promise<void>
  #last = performance.now()
  #writing: Promise<void> = Promise.resolve()
  #busy = false
  #failure: { error: unknown } | undefined

  constructor(write: () => Promise<void>) {
    this.#write = write
  }

  /** Writes when the last such write began an interval ago, unless a write is under way. */
  due(): void {
    if (!this.#failure && (this.#busy || performance.now() - this.#last < PROGRESS_INTERVAL)) return
    this.#last = performance.now()
    this.now()
  }

  /** Writes now, unless a write is under way. */
  now(): void {
    if (this.#failure) throw this.#failure.error
    if (this.#busy) return
    this.#busy = true
    this.#writing = this.#write()
      .catch((error: unknown) => {
        this.#failure = { error }
      })
      .finally(() => {
        this.#busy = false
      })
  }

  /** Writes something else, after the write under way. @throws what `write` throws */
  async instead(write: () => Promise<void>): Promise<void> {
    await this.#writing
    this.#busy = true
    await write().finally(() => {
      this.#busy = false
    })
  }

  /** Waits for the write under way. */
  async settle(): Promise<void> {
    await this.#writing
  }
}
