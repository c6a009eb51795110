import { Readable } from 'node:stream'
import { slicesOf } from '../bytes/views.js'
import type { CouchClient } from '../couch/client.js'
import { ClosingError, StalledDownloadError, TooManyDownloadsError } from '../errors.js'
import { Places } from '../waits/places.js'
import { Silence } from '../waits/silence.js'

/** Bytes that a reader is given at a time, and that count as reading on. */
const SLICE = 64 * 1024
/** Headers that are read at a time, and the requests that may wait for that. */
const OPENED = 4
const MOST_WAITING = 64

/** Starts a stream of bytes on a client that ends with the download. */
export type ReadContent = (client: CouchClient) => AsyncIterable<Uint8Array>

export interface DownloadBounds {
  /** How many are read at a time. */
  most: number
  idle: number
  deadline: AbortSignal
}

/** The downloads that are being read: so many at a time, each as long as its reader reads on. */
export class Downloads {
  readonly #client: CouchClient
  readonly #most: number
  readonly #idle: number
  readonly #read = new Set<Download>()
  readonly #deadline: AbortSignal
  readonly #opening: Places

  /**
   * @param bounds.idle milliseconds after which a download that nobody reads on is ended
   * @param bounds.deadline ends all downloads; none begins any more
   */
  constructor(client: CouchClient, { most, idle, deadline }: DownloadBounds) {
    this.#client = client.for('downloads')
    this.#most = most
    this.#idle = idle
    this.#deadline = deadline
    this.#opening = new Places({ most: OPENED, waiting: MOST_WAITING, patience: idle })
    deadline.addEventListener('abort', () => {
      for (const download of this.#read) download.destroy(new ClosingError())
    })
  }

  /** @throws TooManyDownloadsError, ClosingError */
  #refuseIfFull(): void {
    if (this.#deadline.aborted) throw new ClosingError()
    if (this.#read.size >= this.#most) throw new TooManyDownloadsError(this.#most)
  }

  /**
   * Makes what is to be downloaded, a few at a time: headers may be large, and any number may be asked for at once.
   * @throws TooManyDownloadsError when too many wait, and what `make` throws
   */
  open<T>(make: () => Promise<T>): Promise<T> {
    return this.#opening.take(() => new TooManyDownloadsError(this.#most), make)
  }

  /** Returns a stream that counts as a download from its first read on. Beyond the bound it fails at that read. */
  stream(read: ReadContent): Readable {
    const download: Download = new Download({
      idle: this.#idle,
      refuseIfFull: () => this.#refuseIfFull(),
      open: (signal) => {
        this.#refuseIfFull()
        this.#read.add(download)
        return read(this.#client.with({ signal }))
      },
      onClose: () => this.#read.delete(download)
    })
    return download
  }
}

interface DownloadSource {
  idle: number
  /** @throws TooManyDownloadsError, ClosingError */
  refuseIfFull: () => void
  /** @param signal ends the calls that the bytes are read by */
  open: (signal: AbortSignal) => AsyncIterable<Uint8Array>
  onClose: () => void
}

/** Bytes in slices. Fails when its reader stops reading. Ends its source at once, also while that is waited for. */
export class Download extends Readable {
  readonly #source: DownloadSource
  readonly #abort = new AbortController()
  readonly #reader: Silence
  #slices: AsyncGenerator<Uint8Array> | undefined

  constructor(source: DownloadSource) {
    super({ highWaterMark: SLICE })
    this.#source = source
    this.#reader = new Silence(source.idle, () => this.destroy(new StalledDownloadError(source.idle)))
  }

  /** Refuses before there is a reply what would fail at its first read. @throws TooManyDownloadsError, ClosingError */
  refuseIfFull(): void {
    this.#source.refuseIfFull()
  }

  override _read(): void {
    this.#reader.pause()
    this.#next().then(
      (slice) => {
        if (this.destroyed) return
        this.#reader.wait()
        this.push(slice)
      },
      (error) => this.destroy(error)
    )
  }

  async #next(): Promise<Uint8Array | null> {
    this.#slices ??= inSlices(this.#source.open(this.#abort.signal))
    const next = await this.#slices.next()
    return next.done ? null : next.value
  }

  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    this.#reader.end()
    this.#abort.abort(error ?? new Error('the download was given up'))
    this.#slices?.return(undefined).catch(() => undefined)
    this.#source.onClose()
    callback(error)
  }
}

async function* inSlices(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  for await (const piece of pieces) yield* slicesOf(piece, SLICE)
}
