import type { Readable } from 'node:stream'
import { slicesOf } from '../bytes/views.js'
import type { CouchClient } from '../couch/client.js'
import { ClosingError, StalledDownloadError, TooManyDownloadsError } from '../errors.js'
import { Places } from '../waits/places.js'
import { LazyStream } from './lazy-stream.js'

/** Bytes that a reader is given at a time; taking them counts as reading on. */
const SLICE = 64 * 1024
/** Headers read at a time, and requests that may wait for one. */
const OPENED = 4
const MOST_WAITING = 64

interface DownloadBounds {
  /** Downloads at a time. */
  most: number
  idle: number
  deadline: AbortSignal
}

/** Makes downloads: so many are read at a time, each as long as its reader reads on. */
export class Downloads {
  readonly #client: CouchClient
  readonly #idle: number
  readonly #reading: Reading
  readonly #opening: Places

  /** @param bounds.idle milliseconds without a read that end a download @param bounds.deadline ends all */
  constructor(client: CouchClient, { most, idle, deadline }: DownloadBounds) {
    this.#client = client.for('downloads')
    this.#idle = idle
    this.#reading = new Reading(most, deadline)
    this.#opening = new Places({ most: OPENED, waiting: MOST_WAITING, patience: idle })
  }

  /** Makes some downloads at a time: headers may be large. @throws TooManyDownloadsError, what `make` does */
  open<T>(make: () => Promise<T>): Promise<T> {
    return this.#opening.run(() => this.#reading.full(), make)
  }

  /** Returns a stream that counts as a download from its first read on; beyond the bound, that read fails. */
  stream(read: (client: CouchClient) => AsyncIterable<Uint8Array>): Readable {
    return new Download((signal) => read(this.#client.with({ signal })), this.#reading, this.#idle)
  }
}

/** The downloads that are being read. */
class Reading extends Set<Readable> {
  readonly #most: number
  readonly #deadline: AbortSignal

  constructor(most: number, deadline: AbortSignal) {
    super()
    this.#most = most
    this.#deadline = deadline
    deadline.addEventListener('abort', () => {
      for (const download of this) download.destroy(new ClosingError())
    })
  }

  full(): Error {
    return new TooManyDownloadsError(this.#most)
  }

  /** @throws TooManyDownloadsError, ClosingError */
  refuseIfFull(): void {
    if (this.#deadline.aborted) throw new ClosingError()
    if (this.size >= this.#most) throw this.full()
  }
}

/** Streams bytes in slices, as one of the downloads that are being read. */
export class Download extends LazyStream<Uint8Array> {
  readonly #reading: Reading

  /** @param open is given what ends the calls that the bytes are read by */
  constructor(open: (signal: AbortSignal) => AsyncIterable<Uint8Array>, reading: Reading, idle: number) {
    const begin = (signal: AbortSignal) => {
      this.refuseIfFull()
      reading.add(this)
      return inSlices(open(signal))
    }
    super(begin, { idle, stalled: (ms) => new StalledDownloadError(ms), highWaterMark: SLICE })
    this.#reading = reading
  }

  /** Refuses early what would fail at its first read. @throws TooManyDownloadsError, ClosingError */
  refuseIfFull(): void {
    this.#reading.refuseIfFull()
  }

  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    this.#reading.delete(this)
    super._destroy(error, callback)
  }
}

async function* inSlices(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  for await (const piece of pieces) yield* slicesOf(piece, SLICE)
}
