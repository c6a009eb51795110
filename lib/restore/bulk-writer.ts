import { BufferPool } from '../bytes/buffer-pool.js'
import type { BulkAnswer, BulkResult } from '../couch/bulk-body.js'
import { BulkBody } from '../couch/bulk-body.js'
import type { CouchDatabase } from '../couch/database.js'
import { CouchError } from '../couch/errors.js'
import { halvesOf } from '../couch/request-size.js'
import type { Refusals } from './refusals.js'

/** Documents and bytes in one `_bulk_docs`, and how many are in flight: what CouchDB takes fastest. */
const BATCH_DOCUMENTS = 250
const BATCH_BYTES = 352 * 1024
const LANES = 8
/** Bytes of bodies in flight, unless one has more: fewer lanes where documents are large. */
const BYTES_IN_FLIGHT = 8 * 1024 * 1024
/** Large bodies are given memory of one size, so that it can be used again: CouchDB takes documents of 8 MB. */
const LARGE_BODY = 8 * 1024 * 1024 + BATCH_BYTES

/** One document to write. */
export interface Write {
  id: string
  /** Copied when it is added. */
  bytes: Buffer
}

/** Called with what CouchDB said of each document. The bytes of `write` are good during the call only. */
export type OnResult<W extends Write> = (write: W, result: BulkResult) => void

/**
 * Collects writes into batches and keeps several in flight. A batch that is refused whole is split until the
 * documents that cause it are found.
 */
export class BulkWriter<W extends Write> {
  readonly #db: CouchDatabase
  readonly #newEdits: boolean
  readonly #lanes: Lanes
  readonly #refusals: Refusals
  readonly #onResult: OnResult<W>
  #batch: W[] = []
  /** The documents of the batch: what they were read from can be used again, or is garbage soon. */
  #body: BulkBody | undefined

  /** @param newEdits `false` keeps the revisions that the documents name */
  constructor(db: CouchDatabase, newEdits: boolean, lanes: Lanes, refusals: Refusals, onResult: OnResult<W>) {
    this.#db = db
    this.#newEdits = newEdits
    this.#lanes = lanes
    this.#refusals = refusals
    this.#onResult = onResult
  }

  /** Waits while all lanes are busy. */
  async add(write: W): Promise<void> {
    if (this.#body && !this.#body.fits(write.bytes)) await this.flush()
    this.#body ??= this.#bodyFor(write)
    this.#batch.push({ ...write, bytes: this.#body.add(write.bytes) })
    if (this.#batch.length >= BATCH_DOCUMENTS) await this.flush()
  }

  /** Begins a body: of a batch, or of a document that takes more than one. */
  #bodyFor({ bytes }: W): BulkBody {
    const length = Math.max(BATCH_BYTES, BulkBody.bytesFor(bytes.length))
    const memory = this.#lanes.memory.take(length).subarray(0, length)
    return new BulkBody(this.#newEdits, memory, this.#db.client.size.bytes)
  }

  /** Sends what is left. The lanes say when it has been written. */
  async flush(): Promise<void> {
    const [batch, body] = [this.#batch, this.#body]
    if (!body) return
    this.#batch = []
    this.#body = undefined
    await this.#lanes.run(body.buffer.length, () => this.#send(batch, body))
  }

  async #send(batch: readonly W[], body: BulkBody): Promise<void> {
    const { answer, refusal } = await this.#refusals.send(batch.length, () => this.#db.once.writeBulk(body))
    if (!refusal) {
      this.#tell(batch, answer)
      // Only of a body that was answered: one that failed may still be on its way.
      this.#lanes.memory.give(body.buffer)
    } else if (batch.length === 1) {
      await this.#refusals.blame(refusal)
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

/** Runs a few tasks at a time; the first failure ends them all. */
export class Lanes {
  /** Memory for bodies: one in each lane, and those that are being filled. */
  readonly memory = new BufferPool({ size: BATCH_BYTES, keep: LANES + 2 }, { size: LARGE_BODY, keep: 2 })
  readonly #running = new Set<Promise<void>>()
  #bytes = 0
  #failure: { error: unknown } | undefined

  /** Starts `task`, which sends so many bytes, as soon as a lane is free. */
  async run(bytes: number, task: () => Promise<void>): Promise<void> {
    while (!this.#hasRoom(bytes)) await Promise.race(this.#running)
    this.#check()
    const running = task()
      .catch((error: unknown) => {
        this.#failure ??= { error }
      })
      .finally(() => {
        this.#running.delete(running)
        this.#bytes -= bytes
      })
    this.#running.add(running)
    this.#bytes += bytes
  }

  #hasRoom(bytes: number): boolean {
    if (this.#running.size === 0) return true
    return this.#running.size < LANES && this.#bytes + bytes <= BYTES_IN_FLIGHT
  }

  /** Waits for everything that was started. @throws the first failure */
  async idle(): Promise<void> {
    await Promise.all(this.#running)
    this.#check()
  }

  /** Waits for everything that was started, whatever became of it. */
  async settle(): Promise<void> {
    await Promise.all(this.#running)
  }

  #check(): void {
    if (this.#failure) throw this.#failure.error
  }
}
