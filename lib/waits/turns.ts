/** Who may wait for a turn, and for how long. */
export interface Patience {
  /** How many may wait for the same turn. */
  most: number
  /** Thrown when as many wait already. */
  full: () => Error
  /** Ends the wait. */
  signal: AbortSignal
}

/** Lets those who change the same thing do so one after another, in the order in which they came. */
export class Turns {
  /** For each thing that is being changed, how to begin what waits. */
  readonly #waiting = new Map<string, (() => void)[]>()

  /**
   * Runs `work` when everybody who came before has ended.
   * @param key what is changed
   * @param patience none: it waits however many there are
   * @throws the reason of `patience.signal`, what `patience.full` gives, and what `work` throws
   */
  async take<T>(key: string, work: () => Promise<T>, patience?: Patience): Promise<T> {
    await this.#turn(key, patience)
    try {
      return await work()
    } finally {
      this.#next(key)
    }
  }

  async #turn(key: string, patience: Patience | undefined): Promise<void> {
    const waiting = this.#waiting.get(key)
    if (!waiting) {
      this.#waiting.set(key, [])
      return
    }
    if (patience && waiting.length >= patience.most) throw patience.full()
    await wait(waiting, patience?.signal)
  }

  #next(key: string): void {
    const begin = this.#waiting.get(key)?.shift()
    if (begin) begin()
    else this.#waiting.delete(key)
  }
}

function wait(waiting: (() => void)[], signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const begin = () => {
      signal?.removeEventListener('abort', leave)
      resolve()
    }
    const leave = () => {
      waiting.splice(waiting.indexOf(begin), 1)
      reject(signal?.reason)
    }
    if (signal?.aborted) return reject(signal.reason)
    waiting.push(begin)
    signal?.addEventListener('abort', leave, { once: true })
  })
}
