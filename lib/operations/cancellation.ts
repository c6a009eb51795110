import type { CancelledError } from '../errors.js'

/** Milliseconds that requests get to be answered, so that what they write can be counted. */
const GRACE = 5000

/** Cancels an operation: at once, or so that what it has sent is still answered and counted. */
export class Cancellation {
  readonly #abort: AbortController
  #error: CancelledError | undefined
  #cut = false

  /** @param abort ends the operation's requests */
  constructor(abort: AbortController) {
    this.#abort = abort
  }

  /** Why no further request is made. Absent unless it was cancelled. */
  get error(): CancelledError | undefined {
    return this.#error
  }

  /** Whether requests were cut off that may have written something. */
  get isCut(): boolean {
    return this.#cut
  }

  /** @throws CancelledError when it was cancelled */
  check(): void {
    if (this.#error) throw this.#error
  }

  /** Ends all requests. */
  now(error: CancelledError): void {
    this.#error ??= error
    this.#cut = true
    this.#abort.abort(error)
  }

  /** Makes no further requests, and ends those that are not answered in time. */
  gently(error: CancelledError): void {
    this.#error ??= error
    setTimeout(() => this.now(error), GRACE).unref()
  }
}
