import type { LeaseDocument, LeaseLeaf } from './lease-document.js'

/** Keeps transactions whose clients are to be told of their end. */
export type KeepNotices = (txIds: readonly string[]) => Promise<void>

/** Returns the transactions that earlier versions noted in the lease. */
export const noticesIn = (leaves: readonly LeaseLeaf[]): string[] =>
  leaves
    .flatMap(({ doc }) => (Array.isArray(doc.notify) ? doc.notify : []))
    .filter((id) => typeof id === 'string')

/** Hands over the notices that earlier versions have left in a lease. */
export class Notices {
  readonly #document: LeaseDocument
  readonly #keep: KeepNotices
  #passed = false

  constructor(document: LeaseDocument, keep: KeepNotices) {
    this.#document = document
    this.#keep = keep
  }

  /** Keeps the notices that the lease names, once: further calls do nothing. */
  async move(): Promise<void> {
    if (!this.#passed) await this.#keep(noticesIn(await this.#document.read()))
    this.#passed = true
  }
}
