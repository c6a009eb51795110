/** Calls `listener` once with the reason, when `signal` aborts or has. Returns how to stop listening. */
export function onAbort(signal: AbortSignal, listener: (reason: unknown) => void): () => void {
  const abort = () => listener(signal.reason)
  if (signal.aborted) abort()
  else signal.addEventListener('abort', abort, { once: true })
  return () => signal.removeEventListener('abort', abort)
}

/** Aborts by signals or in time; Node.js's own leave memory behind (docs/internals/couchdb.md). */
export class LinkedAbort extends AbortController {
  readonly #stops: (() => void)[] = []

  /** Aborts with `signal` and for its reason, until {@link release}. */
  follow(signal: AbortSignal | undefined): this {
    if (signal) this.#stops.push(onAbort(signal, (reason) => this.abort(reason)))
    return this
  }

  /** Aborts after `ms` milliseconds, until {@link release}. */
  after(ms: number, reason: () => Error): this {
    const timer = setTimeout(() => this.abort(reason()), ms)
    this.#stops.push(() => clearTimeout(timer))
    return this
  }

  /** Stops following the signals, and the time. */
  release(): void {
    for (const stop of this.#stops.splice(0)) stop()
  }
}
