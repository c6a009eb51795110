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
    const waiting = this.#waiting.get(key) ?? []
    if (!this.#waiting.has(key)) this.#waiting.set(key, waiting)
    else if (patience && waiting.length >= patience.most) throw patience.full()
    else await wait(waiting, patience?.signal)
    try {
      return await work()
    } finally {
      const begin = waiting.shift()
      if (begin) begin()
      else this.#waiting.delete(key)
    }
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
