/** Measures how long the other side keeps this one waiting. Own pauses neither count nor stop that. */
export class Silence {
  readonly #ms: number
  readonly #onSilent: () => void
  #timer: NodeJS.Timeout | undefined
  #waiting = false
  #ended = false

  /** @param onSilent is called once, when one wait has taken `ms` milliseconds */
  constructor(ms: number, onSilent: () => void) {
    this.#ms = ms
    this.#onSilent = onSilent
  }

  /** Starts counting: the other side is waited for. */
  wait(): void {
    if (this.#ended) return
    this.#waiting = true
    if (this.#timer) this.#timer.refresh()
    // The work that is waited for keeps the process alive, if anything does.
    else this.#timer = setTimeout(() => this.#expire(), this.#ms).unref()
  }

  /** Stops counting: the other side has done something, or is not waited for. */
  pause(): void {
    this.#waiting = false
  }

  /** Passes a body on, without counting the time that it takes. */
  async *without(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    this.pause()
    yield* body
    this.wait()
  }

  end(): void {
    this.#ended = true
    this.#waiting = false
    clearTimeout(this.#timer)
  }

  #expire(): void {
    if (!this.#waiting) return
    this.end()
    this.#onSilent()
  }
}
