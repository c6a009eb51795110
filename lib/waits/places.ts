import { within } from './within.js'

interface PlacesOptions {
  /** How many have a place at a time. */
  most: number
  /** Most that may wait for a place. Default 0. */
  waiting?: number
  /** Milliseconds that they wait. Default 0. */
  patience?: number
}

/** Bounds how much is done at a time. */
export class Places {
  readonly #options: Required<PlacesOptions>
  #used = 0
  readonly #waiting = new Set<() => void>()

  constructor({ most, waiting = 0, patience = 0 }: PlacesOptions) {
    this.#options = { most, waiting, patience }
  }

  /** Runs `work` as soon as a place is free. @throws what `full` returns when none is in time */
  async run<T>(full: () => Error, work: () => Promise<T>): Promise<T> {
    if (this.#used >= this.#options.most) await this.#wait(full)
    else this.#used++
    try {
      return await work()
    } finally {
      this.#giveBack()
    }
  }

  /** Waits for a place that another passes on. */
  async #wait(full: () => Error): Promise<void> {
    if (this.#waiting.size >= this.#options.waiting) throw full()
    let next = () => {}
    let given = false
    try {
      await within(this.#options.patience, full, () => {
        return new Promise<void>((resolve) => {
          next = () => {
            given = true
            resolve()
          }
          this.#waiting.add(next)
        })
      })
    } catch (error) {
      this.#waiting.delete(next)
      // The place came as the wait was given up.
      if (given) this.#giveBack()
      throw error
    }
  }

  #giveBack(): void {
    const [next] = this.#waiting
    if (!next) {
      this.#used--
      return
    }
    this.#waiting.delete(next)
    next()
  }
}
