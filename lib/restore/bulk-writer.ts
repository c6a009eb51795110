import { BufferPool } from '../bytes/buffer-pool.js'
import { type BulkAnswer, BulkBody, type BulkResult } from '../couch/bulk-body.js'
import type { CouchDatabase } from '../couch/database.js'
import { CouchError } from '../couch/errors.js'
import { halvesOf } from '../couch/request-size.js'
import type { WriteRequests } from './write-requests.js'

/** Documents and bytes in one `_bulk_docs`, and how many are in flight: what CouchDB takes fastest. */
const BATCH_DOCUMENTS = 250
const BATCH_BYTES = 352 * 1024
const REQUESTS = 8
/** Bytes of bodies in flight, unless one has more: fewer requests where documents are large. */
const BYTES_IN_FLIGHT = 8 * 1024 * 1024
/** Bytes of memory, of one size to be reused, for large bodies: CouchDB takes documents of 8 MB. */
const LARGE_BODY = 8 * 1024 * 1024 + BATCH_BYTES

export interface Write {
  id: string
  /** Copied into the body when it is added, where it lies from then on. */
  bytes: Buffer
}

/** Writes batches, several in flight. Splits a refused batch to find the documents that cause it. */
export class BulkWriter<W extends Write> {
  readonly #db: CouchDatabase
  readonly #newEdits: boolean
  readonly #inFlight: RequestsInFlight
  readonly #requests: WriteRequests
  readonly #onResult: (write: W, result: BulkResult) => void
  #batch: W[] = []
  /** The documents of the batch, copied: the memory that they were read into is used again. */
  #body: BulkBody | undefined

  /** @param newEdits `false` keeps revisions @param onResult may use `write.bytes` only during the call */
  constructor(
    db: CouchDatabase,
    newEdits: boolean,
    inFlight: RequestsInFlight,
    requests: WriteRequests,
    onResult: (write: W, result: BulkResult) => void
  ) {
    this.#db = db
    this.#newEdits = newEdits
    this.#inFlight = inFlight
    this.#requests = requests
    this.#onResult = onResult
  }

  /** Waits while as many requests are in flight as are allowed. */
  async add(write: W): Promise<void> {
    if (this.#body && !this.#body.fits(write.bytes)) await this.flush()
    this.#body ??= this.#bodyFor(write)
    write.bytes = this.#body.add(write.bytes)
    this.#batch.push(write)
    if (this.#batch.length >= BATCH_DOCUMENTS) await this.flush()
  }

  #bodyFor({ bytes }: W): BulkBody {
    const length = Math.max(BATCH_BYTES, BulkBody.bytesFor(bytes.length))
    const memory = this.#inFlight.memory.take(length).subarray(0, length)
    return new BulkBody(this.#newEdits, memory, this.#db.client.size.bytes)
  }

  /** Sends what is left; {@link RequestsInFlight.finish} waits until it has been written. */
  async flush(): Promise<void> {
    const [batch, body] = [this.#batch, this.#body]
    if (!body) return
    this.#batch = []
    this.#body = undefined
    await this.#inFlight.start(body.buffer.length, () => this.#send(batch, body))
  }

  async #send(batch: readonly W[], body: BulkBody): Promise<void> {
    const { answer, refusal } = await this.#requests.send(batch.length, () => this.#db.once.writeBulk(body))
    if (!refusal) {
      this.#tell(batch, answer)
      // Only after an answer: a failed request may still be sending from this memory.
      this.#inFlight.memory.give(body.buffer)
    } else if (batch.length === 1) {
      await this.#requests.blame(refusal)
      this.#onResult(batch[0], { id: batch[0].id, error: refusal.error, reason: refusal.reason })
    } else {
      for (const part of halvesOf(batch)) {
        const documents = part.map(({ bytes }) => bytes)
        await this.#send(part, BulkBody.of(this.#newEdits, documents))
      }
    }
  }

  #tell(batch: readonly W[], { results, accepted }: BulkAnswer): void {
    const told = new Map(results.map((result) => [result.id, result]))
    for (const write of batch) {
      const result = told.get(write.id)
      if (this.#newEdits && !result) {
        throw new CouchError('_bulk_docs', { error: 'bad_answer', reason: `no result for "${write.id}"` })
      }
      this.#onResult(write, result ?? { id: write.id, accepted })
    }
  }
}

/** Has a few requests in flight at a time; the first failure ends them all. */
export class RequestsInFlight {
  /** Memory for bodies: those in flight, and those that are being filled. */
  readonly memory = new BufferPool({ size: BATCH_BYTES, keep: REQUESTS + 2 }, { size: LARGE_BODY, keep: 2 })
  readonly #requests = new Set<Promise<void>>()
  #bytes = 0
  #failure: { error: unknown } | undefined

  /** Makes a request, which sends so many bytes, as soon as there is room for it. */
  async start(bytes: number, request: () => Promise<void>): Promise<void> {
    while (!this.#hasRoom(bytes)) await Promise.race(this.#requests)
    this.#check()
    const sent = request()
      .catch((error: unknown) => {
        this.#failure ??= { error }
      })
      .finally(() => {
        this.#requests.delete(sent)
        this.#bytes -= bytes
      })
    this.#requests.add(sent)
    this.#bytes += bytes
  }

  #hasRoom(bytes: number): boolean {
    if (this.#requests.size === 0) return true
    return this.#requests.size < REQUESTS && this.#bytes + bytes <= BYTES_IN_FLIGHT
  }

  /** Waits for all requests. @throws the first failure */
  async finish(): Promise<void> {
    await Promise.all(this.#requests)
    this.#check()
  }

  /** Waits for all requests, whatever became of them. */
  async settle(): Promise<void> {
    await Promise.all(this.#requests)
  }

  #check(): void {
    if (this.#failure) throw this.#failure.error
  }
}
