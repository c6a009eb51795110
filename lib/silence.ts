/**
 * Counts how long another side keeps this one waiting. Waits that are ours, such as for a reader that is paused, do not
 * count, nor do they stop later waits from being counted.
 */
export class Silence {
  readonly #timer: NodeJS.Timeout
  #waiting = false
  #ended = false

  /** @param onSilent is called once, when one wait has taken `ms` milliseconds */
  constructor(ms: number, onSilent: () => void) {
    this.#timer = setTimeout(() => {
      if (!this.#waiting) return
      this.end()
      onSilent()
    }, ms)
  }

  /** The other side is waited for from now on. */
  wait(): void {
    if (this.#ended) return
    this.#waiting = true
    this.#timer.refresh()
  }

  /** The other side has done something, or is not waited for. */
  pause(): void {
    this.#waiting = false
  }

  end(): void {
    this.#ended = true
    this.#waiting = false
    clearTimeout(this.#timer)
  }
}
