import type { CouchClient } from './client.js'
import { malformed } from './errors.js'
import { RowAnswer, rowMemory } from './json-rows.js'
import { type ChangesRange, changesRequest } from './requests.js'
import { untilBegun } from './resumable.js'
import { type Change, changeReader } from './rows.js'

/** A page of the changes feed. Its rows are read in groups, once, each valid until the next is asked for. */
export class ChangesPage implements AsyncIterable<Change[]> {
  readonly #client: CouchClient
  readonly #database: string
  readonly #range: ChangesRange
  #end: { lastSeq: string; pending?: number } | undefined

  constructor(client: CouchClient, database: string, range: ChangesRange) {
    this.#client = client
    this.#database = database
    this.#range = range
  }

  /** The update sequence of the page's end. @throws Error before the page has been read */
  get lastSeq(): string {
    return this.#read().lastSeq
  }

  /** Changes after the page, where the server told. @throws Error before the page has been read */
  get pending(): number | undefined {
    return this.#read().pending
  }

  [Symbol.asyncIterator](): AsyncGenerator<Change[]> {
    return untilBegun(this.#client, () => this.#changes())
  }

  async *#changes(): AsyncGenerator<Change[]> {
    const { body } = await this.#client.once.stream(changesRequest(this.#database, this.#range))
    const answer = new RowAnswer(body, 'results', changeReader(), rowMemory())
    yield* answer
    const { last_seq: lastSeq, pending } = answer.trailer
    if (typeof lastSeq !== 'string' && typeof lastSeq !== 'number')
      throw malformed(this.#database, 'last_seq')
    this.#end = { lastSeq: String(lastSeq), pending: typeof pending === 'number' ? pending : undefined }
  }

  #read() {
    if (!this.#end) throw new Error('The page has not been read to its end')
    return this.#end
  }
}
