import type { UnreadableDocument } from '../../types/backups.js'
import { cutToBytes, shownName, toldId } from '../bytes/cut-text.js'
import type { ReadFailure } from '../couch/document-reader.js'
import { CouchError, isRequestTooLarge } from '../couch/errors.js'
import type { RefusedLine } from '../repository/chunk-writer.js'

/** Most unreadable documents of one database before its backup fails, and most characters of their ids. */
export const MAX_UNREADABLE = 1000
export const MAX_IDS = 8 * 1024 * 1024
/** Documents that a header names. */
const NAMED = 100
/** Bytes of a reported reason. */
const MAX_REASON = 256

interface Unread {
  /** Absent where the winning revision was asked for, and where the document was read but could not be stored. */
  rev?: string
  failure: ReadFailure
}

/** Keeps the documents of one database that could not be read, by id, in bounded memory. */
export class UnreadDocuments extends Map<string, Unread> {
  #characters = 0

  /** @throws CouchError when there are more than a backup may leave out */
  override set(id: string, unread: Unread): this {
    if (!this.has(id)) this.#characters += id.length
    super.set(id, unread)
    if (this.size > MAX_UNREADABLE || this.#characters > MAX_IDS) throw tooMany(this)
    return this
  }

  override delete(id: string): boolean {
    const isThere = super.delete(id)
    if (isThere) this.#characters -= id.length
    return isThere
  }
}

/** Keeps the lines that were too large for the database, unless a later version replaces them. */
export class RefusedLines {
  readonly #isLast: (line: RefusedLine) => boolean
  #lines: RefusedLine[] = []

  constructor(isLast: (line: RefusedLine) => boolean) {
    this.#isLast = isLast
  }

  /** Returns the lines that still count. */
  get last(): RefusedLine[] {
    return this.#lines.filter(this.#isLast)
  }

  /** @throws CouchError when there are more than a backup may leave out */
  add(line: RefusedLine): void {
    this.#lines.push(line)
    if (this.#isBounded()) return
    this.#lines = this.last
    if (!this.#isBounded())
      throw tooMany(this.#lines.map(({ id, error }) => [id, { failure: tooLargeFailure(id, error) }]))
  }

  #isBounded(): boolean {
    const characters = this.#lines.reduce((sum, { id }) => sum + id.length, 0)
    return this.#lines.length <= MAX_UNREADABLE && characters <= MAX_IDS
  }
}

export const goneFailure = (id: string): CouchError =>
  new CouchError(`document "${shownName(id)}"`, {
    error: 'missing',
    reason: 'the changes feed names a revision that the database does not have'
  })

export const tooLargeFailure = (id: string, refusal: CouchError): CouchError =>
  new CouchError(`document "${shownName(id)}"`, {
    status: refusal.status,
    error: 'too_large',
    reason:
      refusal.gateway || refusal.status === 0 || isRequestTooLarge(refusal)
        ? refusal.reason
        : 'with its attachments it is larger than the backups database takes in one request',
    gateway: refusal.gateway,
    cause: refusal
  })

/** Names the first documents that could not be backed up, cut to fit a header. */
export function nameUnreadable(unread: Iterable<[string, Unread]>): UnreadableDocument[] {
  return [...unread]
    .slice(0, NAMED)
    .map(([id, { failure }]) => ({ ...toldId(id), reason: cutToBytes(reasonOf(failure), MAX_REASON) }))
}

/** Makes the error of a backup that may leave nothing out. */
export function unreadableError(unread: Iterable<[string, Unread]>, message?: string): CouchError {
  const [[id, { failure }]] = unread
  const { status, error, reason } =
    failure instanceof CouchError ? failure : { status: 0, error: 'bad_document', reason: failure.message }
  const what = `document "${shownName(id)}"`
  return new CouchError(message === undefined ? what : `${message}, the first of them ${what}`, {
    status,
    error,
    reason,
    cause: failure
  })
}

const tooMany = (unread: Iterable<[string, Unread]>): CouchError =>
  unreadableError(
    unread,
    `more than ${MAX_UNREADABLE} documents, or documents with more than ${MAX_IDS} characters of ids, cannot be read`
  )

/** Returns why a document could not be read, without the URL, which says nothing of the document. */
const reasonOf = (failure: ReadFailure) =>
  failure instanceof CouchError ? `${failure.error}: ${failure.reason}` : failure.message
