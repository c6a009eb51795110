import type { CouchDatabase } from '../couch/database.js'
import { CouchError, isTooLarge } from '../couch/errors.js'

/** Faults of one request, before what it holds is taken to be their cause. */
const CRASHES = 2
/** Documents in a row that may be blamed for what could be a fault of the database. */
const BLAMED_IN_A_ROW = 100
/** Statuses by which CouchDB, or a proxy, blames the request. */
const SAYS_SO = [400, 413, 414, 415, 422, 431]
/** Errors by which CouchDB does so at any status: its 412 may also mean that nodes are down. */
const NAMES_IT = ['doc_validation', 'missing_stub']

type Sent<T> = { answer: T; refusal?: undefined } | { answer?: undefined; refusal: CouchError }

/** Tells refused documents from a failing database, which statuses do not: some documents cause a 500. */
export class WriteRequests {
  readonly #db: CouchDatabase
  #inARow = 0
  /** No document was blamed after all attempts yet; the next ones are not tried as often. */
  #patient = true

  constructor(db: CouchDatabase) {
    this.#db = db
  }

  /**
   * Makes a request until it is answered or refused. After internal errors, one for several documents is
   * given up early, to be sent in parts; so `call` makes one attempt, and attempts are counted here. @throws
   * CouchError
   */
  async send<T>(documents: number, call: () => Promise<T>): Promise<Sent<T>> {
    const retrier = this.#db.client.retrier()
    for (let crashes = 0; ; ) {
      try {
        const answer = await call()
        this.#inARow = 0
        return { answer }
      } catch (error) {
        if (isRefusal(error)) return { refusal: error }
        if (documents > 1 ? isCrash(error) : isFault(error)) crashes++
        if (crashes >= CRASHES && (documents > 1 || !this.#patient)) return { refusal: error as CouchError }
        try {
          await retrier.failed(error)
        } catch (final) {
          if (isFault(final) && (documents === 1 || isTooLarge(final))) return { refusal: final }
          throw final
        }
      }
    }
  }

  /** Blames a request's one document. @throws the refusal, when the database may be to blame */
  async blame(refusal: CouchError): Promise<void> {
    if (SAYS_SO.includes(refusal.status) || NAMES_IT.includes(refusal.error)) return
    // Some other document can be written.
    await this.#db.probeWrite()
    if (isFault(refusal)) this.#patient = false
    if (++this.#inARow > BLAMED_IN_A_ROW) throw refusal
  }
}

const isRefusal = (error: unknown): error is CouchError =>
  error instanceof CouchError && !error.retryable && error.status >= 400

const isFault = (error: unknown): error is CouchError => error instanceof CouchError && error.retryable

const isCrash = (error: unknown): error is CouchError => isFault(error) && error.status === 500
