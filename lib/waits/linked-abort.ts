/**
 * Aborts with the first of some signals, or after a time. `AbortSignal.any` and `AbortSignal.timeout` would
 * leave memory behind until their time is over (docs/internals/couchdb.md).
 */
export class LinkedAbort extends AbortController {
  readonly #followed: { signal: AbortSignal; onAbort: () => void }[] = []
  #timer: NodeJS.Timeout | undefined

  /** Aborts with `signal` and for its reason, until {@link release}. */
  follow(signal: AbortSignal | undefined): this {
    if (signal?.aborted) this.abort(signal.reason)
    else if (signal) {
      const onAbort = () => this.abort(signal.reason)
      signal.addEventListener('abort', onAbort, { once: true })
      this.#followed.push({ signal, onAbort })
    }
    return this
  }

  /** Aborts after `ms` milliseconds, until {@link release}. */
  after(ms: number, reason: () => Error): this {
    this.#timer = setTimeout(() => this.abort(reason()), ms)
    return this
  }

  /** Stops following the signals, and the time. */
  release(): void {
    clearTimeout(this.#timer)
    for (const { signal, onAbort } of this.#followed.splice(0)) signal.removeEventListener('abort', onAbort)
  }
}
