import type { Gunzip, Inflate } from 'node:zlib'

/** Bytes inflated in one step; deflate makes at most 1,032 times as many of them. */
const STEP = 4096

/** Thrown for bytes that cannot be inflated. The message continues what they are called. */
export class InflateError extends Error {
  override readonly name = 'InflateError'
}

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

  /** Ends the input. @throws InflateError */
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

  /** zlib never calls back after an error, nor when bytes follow the deflated ones. */
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
