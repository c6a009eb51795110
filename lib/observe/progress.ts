import type { OperationProgress } from '../../types/index.js'

interface Amount {
  documents: number
  bytes: number
}

/** The expected amount. Bytes are not always known. */
type Expected = Pick<Amount, 'documents'> & Partial<Amount>

/** Counts how far an operation has come, for those who ask while it runs. */
export class Progress {
  #done: Amount = { documents: 0, bytes: 0 }
  #current: Amount = { documents: 0, bytes: 0 }
  #expected: Expected | undefined

  /** Notes how much there is to do, as far as is known. */
  expect(documents: number, bytes?: number): void {
    if (documents > 0) this.#expected = { documents, bytes }
  }

  /** Notes how far the operation has come with the current database. */
  at(documents: number, bytes: number): void {
    this.#current = { documents, bytes }
  }

  /** Notes that the current database is done. @param documents, bytes what it held. Default: what was noted last */
  finished(documents = this.#current.documents, bytes = this.#current.bytes): void {
    this.#done.documents += documents
    this.#done.bytes += bytes
    this.at(0, 0)
  }

  /** Returns what there is to tell; `undefined` before anything is known. */
  get told(): OperationProgress | undefined {
    const documents = this.#done.documents + this.#current.documents
    const bytes = this.#done.bytes + this.#current.bytes
    const expected = this.#expected
    if (documents === 0 && !expected) return undefined
    return {
      documents,
      bytes,
      ...(expected && {
        expected_documents: Math.max(expected.documents, documents),
        ...(expected.bytes !== undefined && { expected_bytes: Math.max(expected.bytes, bytes) })
      })
    }
  }
}
