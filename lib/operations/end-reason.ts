import { cutText, MOST, messageOf } from '../bytes/cut-text.js'
import { ClosingError } from '../errors.js'

/** Why an operation ended, for headers and transactions. */
export function endReason(error: unknown): string {
  if (error instanceof ClosingError) return 'interrupted: the server was shut down'
  return cutText(messageOf(error), MOST.message)
}
