import { Readable, type ReadableOptions } from 'node:stream'
import { Silence } from '../waits/silence.js'

interface LazyStreamOptions extends Pick<ReadableOptions, 'objectMode' | 'highWaterMark'> {
  /** Milliseconds without a read that end it. */
  idle: number
  /** Makes the error when its reader stops reading. */
  stalled(idle: number): Error
}

/** Streams what a generator yields, from the first read on. Fails when its reader stops, and ends its source at once. */
export class LazyStream<T> extends Readable {
  readonly #open: (signal: AbortSignal) => AsyncGenerator<T>
  readonly #abort = new AbortController()
  readonly #reader: Silence
  #source: AsyncGenerator<T> | undefined

  /** @param open is given what ends the calls that it reads by; if it throws, the stream fails */
  constructor(
    open: (signal: AbortSignal) => AsyncGenerator<T>,
    { idle, stalled, ...options }: LazyStreamOptions
  ) {
    super(options)
    this.#open = open
    this.#reader = new Silence(idle, () => this.destroy(stalled(idle)))
  }

  override _read(): void {
    this.#reader.pause()
    this.#next().then(
      ({ done, value }) => {
        if (this.destroyed) return
        this.#reader.wait()
        this.push(done ? null : value)
      },
      (error) => this.destroy(error)
    )
  }

  async #next(): Promise<IteratorResult<T>> {
    this.#source ??= this.#open(this.#abort.signal)
    return this.#source.next()
  }

  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    this.#reader.end()
    this.#abort.abort(error ?? new Error('the reader has gone'))
    this.#source?.return(undefined).catch(() => undefined)
    callback(error)
  }
}
