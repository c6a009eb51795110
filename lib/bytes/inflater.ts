import type { Gunzip, Inflate } from 'node:zlib'

/** Deflate makes at most 1,032 bytes of one, so this bounds what one step of inflating gives. */
const STEP = 4096

/** Bytes that cannot be inflated, or more than that. The message goes on from what they are called. */
export class InflateError extends Error {
  override readonly name = 'InflateError'
}

/** Inflates bytes as they arrive, a little at a time. */
export class Inflater {
  readonly #engine: Inflate | Gunzip
  #output: Buffer[] = []
  #failure: Error | undefined

  constructor(engine: Inflate | Gunzip) {
    this.#engine = engine
    engine.on('data', (piece: Buffer) => this.#output.push(piece))
    engine.on('error', (error) => {
      this.#failure = error
    })
  }

  /** Takes the next bytes. @throws InflateError */
  async *write(bytes: Uint8Array): AsyncGenerator<Buffer[]> {
    for (let i = 0; i < bytes.length; i += STEP) {
      if (!this.#failure) await this.#write(bytes.subarray(i, i + STEP))
      yield this.#take()
      if (this.#engine.readableEnded) throw new InflateError('holds data after what was compressed')
    }
  }

  /** Says that all bytes were written. @throws InflateError */
  async end(): Promise<Buffer[]> {
    if (!this.#engine.closed) {
      await new Promise<void>((resolve) => {
        this.#engine.once('close', resolve)
        this.#engine.end()
      })
    }
    return this.#take()
  }

  destroy(): void {
    this.#engine.destroy()
  }

  /** zlib does not call back after an error, nor when more bytes follow what was deflated. */
  #write(step: Uint8Array): Promise<void> {
    const engine = this.#engine
    return new Promise((resolve) => {
      const done = () => {
        engine.off('close', done).off('end', done)
        resolve()
      }
      engine.once('close', done).once('end', done)
      engine.write(step, done)
    })
  }

  #take(): Buffer[] {
    if (this.#failure) throw new InflateError(`cannot be inflated: ${this.#failure.message}`)
    const output = this.#output
    this.#output = []
    return output
  }
}
