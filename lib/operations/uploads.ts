import { TooManyUploadsError } from '../errors.js'

/** The uploads that are being read: so many at a time, since each keeps a document in memory. */
export class Uploads {
  readonly #most: number
  #reading = 0

  constructor(most: number) {
    this.#most = most
  }

  /** @throws TooManyUploadsError before anything is read */
  async read<T>(read: () => Promise<T>): Promise<T> {
    if (this.#reading >= this.#most) throw new TooManyUploadsError(this.#most)
    this.#reading++
    try {
      return await read()
    } finally {
      this.#reading--
    }
  }
}
