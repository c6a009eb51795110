import type { UnreadableDocument } from '../../types/backups.js'
import type { ReadFailure } from '../couch/document-reader.js'
import { CouchError } from '../couch/errors.js'

/** Documents of one database that may be unreadable before its backup fails. */
export const MAX_UNREADABLE = 1000
/** Those that are named. */
const NAMED = 100
/** Bytes of an id, and of a reason. */
const MAX_ID = 512
const MAX_REASON = 256

/** A document that was not read, and why. */
export interface Unread {
  rev: string
  failure: ReadFailure
}

/** The revision that the feed named is not there. */
export const goneFailure = (id: string): CouchError =>
  new CouchError(`document "${id.slice(0, 120)}"`, {
    error: 'missing',
    reason: 'the changes feed names a revision that the database does not have'
  })

/** The database did not take what was to be stored of it. */
export const tooLargeFailure = (id: string, refusal: CouchError): CouchError =>
  new CouchError(`document "${id.slice(0, 120)}"`, {
    status: refusal.status,
    error: 'too_large',
    reason:
      refusal.gateway || refusal.status === 0
        ? refusal.reason
        : 'with its attachments it is more than the database of backups takes at once',
    gateway: refusal.gateway,
    cause: refusal
  })

/** How documents are named that could not be backed up: the first ones, cut to a length that a header can hold. */
export function nameUnreadable(unread: ReadonlyMap<string, Unread>): UnreadableDocument[] {
  return [...unread].slice(0, NAMED).map(([id, { failure }]) => {
    const cut = cutTo(id, MAX_ID)
    return {
      id: cut,
      ...(cut === id ? undefined : { id_truncated: true as const }),
      reason: cutTo(reasonOf(failure), MAX_REASON)
    }
  })
}

/** Why a backup fails where nothing may be left out. */
export function unreadableError(unread: ReadonlyMap<string, Unread>, message?: string): CouchError {
  const [[id, { failure }]] = unread
  const status = failure instanceof CouchError ? failure.status : 0
  const error = failure instanceof CouchError ? failure.error : 'bad_document'
  const reason = failure instanceof CouchError ? failure.reason : failure.message
  const what = `document "${id.slice(0, 120)}"`
  return new CouchError(message === undefined ? what : `${message}, the first of them ${what}`, {
    status,
    error,
    reason,
    cause: failure
  })
}

/** Without the URL that was asked, which says more of this package than of the document. */
const reasonOf = (failure: ReadFailure) =>
  failure instanceof CouchError ? `${failure.error}: ${failure.reason}` : failure.message

/** As much of a text as so many bytes of JSON hold. */
function cutTo(text: string, bytes: number): string {
  let cut = text.slice(0, bytes)
  while (Buffer.byteLength(JSON.stringify(cut)) - 2 > bytes) cut = cut.slice(0, Math.floor(cut.length * 0.8))
  // A character must not be cut in two.
  return cut === text || !/[\ud800-\udbff]$/.test(cut) ? cut : cut.slice(0, -1)
}
