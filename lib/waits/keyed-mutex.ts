import { onAbort } from './linked-abort.js'

/** The bounds of a wait: how much may wait, and for how long. */
interface Patience {
  /** How much work on the same thing may wait. */
  most: number
  /** Makes the error when as much waits already. */
  full: () => Error
  signal: AbortSignal
}

/** Runs work on the same thing one after another, in the order in which it was asked for. */
export class KeyedMutex {
  /** Functions that begin the waiting work, by the thing that it is on. */
  readonly #waiting = new Map<string, (() => void)[]>()

  /** Runs `work` when it is next; without `patience`, any amount may wait. @throws its `full()` or signal's reason */
  async run<T>(key: string, work: () => Promise<T>, patience?: Patience): Promise<T> {
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
