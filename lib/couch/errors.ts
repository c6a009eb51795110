import { cutText, MOST } from '../bytes/cut-text.js'

/** CouchDB refused a request, or could not be talked to. Never holds the server's URL, which may carry credentials; texts are cut. */
export class CouchError extends Error {
  override readonly name = 'CouchError'
  /** HTTP status, or 0 when there was no usable answer. */
  readonly status: number
  /** CouchDB's `error`, or a code of ours: `unreachable`, `cut_off`, `stalled`, `truncated`, `bad_answer`. */
  readonly error: string
  readonly reason: string
  /** The same request may succeed later. */
  readonly retryable: boolean
  /** Milliseconds to wait, when the server said so. */
  readonly retryAfter: number | undefined
  /** Something before CouchDB has answered, a proxy or a gateway. */
  readonly gateway: boolean
  /** Bytes of the request's body, where their number may be what it failed by: it was cut off, or refused for its length. */
  readonly sent: number | undefined
  /** All attempts have been used up: whoever called what failed does not try it again. */
  givenUp = false

  constructor(
    what: string,
    details: {
      status?: number
      error: string
      reason: string
      retryable?: boolean
      retryAfter?: number
      gateway?: boolean
      sent?: number
      cause?: unknown
    }
  ) {
    const error = cutText(details.error, MOST.name)
    const reason = cutText(details.reason, MOST.reason)
    super(`${cutText(what, MOST.reason)}: ${error}, ${reason}`, { cause: details.cause })
    this.status = details.status ?? 0
    this.error = error
    this.reason = reason
    this.retryable = details.retryable ?? false
    this.retryAfter = details.retryAfter
    this.gateway = details.gateway ?? false
    this.sent = details.sent
  }
}

/** Returns whether there was no answer, one that says "later", or one that is not CouchDB's. */
export const isUnavailable = (error: unknown): error is CouchError =>
  error instanceof CouchError && error.retryable

export const isConflict = (error: unknown): error is CouchError =>
  error instanceof CouchError && error.status === 409

export const isNotFound = (error: unknown): error is CouchError =>
  error instanceof CouchError && error.status === 404

/** Returns whether CouchDB itself says that there is no such thing: a 404 of anything before it says nothing. */
export const isMissing = (error: unknown): error is CouchError =>
  isNotFound(error) && error.error === 'not_found'

/** Returns whether nodes of the cluster are down, which CouchDB tells by a 412. */
export const isNodeDown = ({ error }: Pick<CouchError, 'error'>): boolean => error === 'nodedown'

/**
 * Returns whether what was sent is larger than the database, or a proxy before it, takes. Where all attempts were cut off without an
 * answer, that is why.
 */
export const isTooLarge = (error: unknown): error is CouchError =>
  error instanceof CouchError && (error.status === 413 || error.error === 'cut_off')

/**
 * Returns whether a request exceeds CouchDB's own limit of length (`chttpd/max_http_request_size`). Its limits of documents and
 * attachments have other codes.
 */
export const isRequestTooLarge = ({ status, error }: Pick<CouchError, 'status' | 'error'>): boolean =>
  status === 413 && error === 'too_large'

/** Statuses that say something of who asks, or of the moment, and nothing of what was asked for. */
const OF_THE_MOMENT = new Set([401, 403, 408, 429, 503])

/** Returns whether there was no answer, or no end of it, in time. */
export const isStalled = (error: unknown): error is CouchError =>
  error instanceof CouchError && error.error === 'stalled'

/** Returns whether one document may be to blame for the failure of a request for several. */
export const mayBeOfOneDocument = (error: unknown): error is CouchError =>
  error instanceof CouchError && !OF_THE_MOMENT.has(error.status) && !isNodeDown(error)

/** Returns the error for an answer that lacks what it has to have. */
export function malformed(where: string, what: string): CouchError {
  return new CouchError(where, { error: 'bad_answer', reason: `the answer has no ${what}`, retryable: true })
}
