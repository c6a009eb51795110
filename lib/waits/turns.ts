import { onAbort } from './linked-abort.js'

/** The bounds for waiting for a turn: how many may wait, and for how long. */
interface Patience {
  /** How many may wait for the same turn. */
  most: number
  /** Makes the error when as many wait already. */
  full: () => Error
  signal: AbortSignal
}

/** Orders changes of the same thing, in the order in which they were asked for. */
export class Turns {
  /** Functions that start the waiting changes, by the thing that they change. */
  readonly #waiting = new Map<string, (() => void)[]>()

  /** Runs `work` in turn; without `patience`, any number may wait. @throws its `full()` or signal's reason */
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
      stop?.()
      resolve()
    }
    waiting.push(begin)
    const leave = (reason: unknown) => {
      waiting.splice(waiting.indexOf(begin), 1)
      reject(reason)
    }
    const stop = signal && onAbort(signal, leave)
  })
}
