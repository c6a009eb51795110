import type { Static } from '@sinclair/typebox'
import type { BulkResults } from './answers.js'

/** The result of one document in a `_bulk_docs`. */
export interface BulkResult {
  id: string
  rev?: string
  error?: string
  reason?: string
  /** Fewer than the majority of the shard's replicas took the document; the others may hold another version. */
  accepted?: boolean
}

export interface BulkAnswer {
  /** Failures only where the body has no new edits. */
  results: BulkResult[]
  /** Fewer than the majority of a shard's replicas took some of the documents. */
  accepted: boolean
}

const DOCS = Buffer.from('{"docs":[')
const DOCS_REPLICATED = Buffer.from('{"new_edits":false,"docs":[')
const DOCS_END = Buffer.from(']}')
const COMMA = 0x2c

/** The body of a `_bulk_docs`, made in memory that is given, document by document. */
export class BulkBody {
  /** `false` keeps the revisions that the documents name; the answer then holds failures only. */
  readonly newEdits: boolean
  readonly buffer: Buffer
  count = 0
  readonly #limit: number
  #used: number

  /**
   * @param buffer memory of at least {@link BulkBody.bytesFor} the first document
   * @param limit bytes of the body, unless its first document takes more
   */
  constructor(newEdits: boolean, buffer: Buffer, limit = buffer.length) {
    this.newEdits = newEdits
    this.buffer = buffer
    this.#limit = Math.min(limit, buffer.length)
    this.#used = (newEdits ? DOCS : DOCS_REPLICATED).copy(buffer)
  }

  static of(newEdits: boolean, docs: readonly Uint8Array[]): BulkBody {
    const bytes = docs.reduce((sum, doc) => sum + doc.length + 1, 0)
    const body = new BulkBody(newEdits, Buffer.allocUnsafeSlow(BulkBody.bytesFor(bytes)))
    for (const doc of docs) body.add(doc)
    return body
  }

  /** Returns the bytes of a body with documents of so many bytes, which include a comma for each. */
  static bytesFor(bytes: number): number {
    return DOCS_REPLICATED.length + bytes + 1 + DOCS_END.length
  }

  fits(doc: Uint8Array): boolean {
    const most = this.count === 0 ? this.buffer.length : this.#limit
    return this.#used + 1 + doc.length + DOCS_END.length <= most
  }

  /** Adds a document, and returns it as it stands in the body. */
  add(doc: Uint8Array): Buffer {
    if (!this.fits(doc)) throw new RangeError('the document does not fit into the body')
    if (this.count > 0) this.buffer[this.#used++] = COMMA
    const start = this.#used
    this.buffer.set(doc, start)
    this.#used += doc.length
    this.count++
    return this.buffer.subarray(start, this.#used)
  }

  bytes(): Buffer {
    return this.buffer.subarray(0, this.#used + DOCS_END.copy(this.buffer, this.#used))
  }
}

/** Yields the body of a `_bulk_docs` for one document, whose JSON is a stream. */
export async function* bulkStream(
  newEdits: boolean,
  json: AsyncIterable<Uint8Array>
): AsyncGenerator<Uint8Array> {
  yield newEdits ? DOCS : DOCS_REPLICATED
  yield* json
  yield DOCS_END
}

/** Returns the results of an answer, with errors and reasons as texts. */
export function bulkResults(answer: Static<typeof BulkResults>): BulkResult[] {
  return answer.map(({ error, reason, ...result }) => ({
    ...result,
    ...(error === undefined ? undefined : { error: asText(error), reason: asText(reason) })
  }))
}

/** Returns an error or a reason as text: a function of a design document refuses with any value. */
export const asText = (value: unknown): string =>
  typeof value === 'string' ? value : (JSON.stringify(value ?? null) as string)
