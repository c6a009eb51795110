import { CouchError } from '../errors.js'

export { CouchError }

/** Returns whether there was no answer, one that says "later", or one that is not CouchDB's. */
export const isUnavailable = (error: unknown): error is CouchError =>
  error instanceof CouchError && error.retryable

/** Returns whether a call has failed, rather than this process. */
export const isCouchError = (error: unknown): error is CouchError => error instanceof CouchError

export const isConflict = (error: unknown): error is CouchError =>
  error instanceof CouchError && error.status === 409

export const isNotFound = (error: unknown): error is CouchError =>
  error instanceof CouchError && error.status === 404

/** Returns whether CouchDB itself says that something is missing: a proxy's 404 says nothing. */
export const isMissing = (error: unknown): error is CouchError =>
  isNotFound(error) && error.error === 'not_found'

/** Returns whether a document was changed or deleted since it was read. */
export const isChanged = (error: unknown): boolean => isConflict(error) || isMissing(error)

/** Returns whether nodes of the cluster are down, which CouchDB tells by a 412. */
export const isNodeDown = ({ error }: Pick<CouchError, 'error'>): boolean => error === 'nodedown'

/** Returns whether a request was too large for CouchDB or a proxy, which may also cut off every attempt. */
export const isTooLarge = (error: unknown): error is CouchError =>
  error instanceof CouchError && (error.status === 413 || error.error === 'cut_off')

/** Returns whether a request exceeds `chttpd/max_http_request_size`. Other limits have other codes. */
export const isRequestTooLarge = ({ status, error }: Pick<CouchError, 'status' | 'error'>): boolean =>
  status === 413 && error === 'too_large'

/** Statuses that depend on the caller or the moment, not on what was asked for. */
const OF_THE_MOMENT = new Set([401, 403, 408, 429, 503])

/** Returns whether there was no answer, or no end of it, in time. */
export const isStalled = (error: unknown): error is CouchError =>
  error instanceof CouchError && error.error === 'stalled'

/** Returns whether one document may be to blame for the failure of a request for several. */
export const mayBeOfOneDocument = (error: unknown): error is CouchError =>
  error instanceof CouchError && !OF_THE_MOMENT.has(error.status) && !isNodeDown(error)

/** Makes a `catch` handler that returns `value` for failures that `isExpected` accepts, and throws others. */
export function expected<T>(isExpected: (error: unknown) => boolean, value: T): (error: unknown) => T {
  return (error) => {
    if (isExpected(error)) return value
    throw error
  }
}

/** Returns the error for an answer that lacks what it has to have. */
export function malformed(where: string, what: string): CouchError {
  return new CouchError(where, { error: 'bad_answer', reason: `the answer has no ${what}`, retryable: true })
}
