import { isUnavailable } from '../couch/errors.js'
import { DatabaseUnavailableError, LeaseLostError } from '../errors.js'

/**
 * Runs what somebody waits for.
 * @throws DatabaseUnavailableError for faults that may pass, and whatever else `call` throws
 */
export async function foreground<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call()
  } catch (error) {
    if (isUnavailable(error))
      throw new DatabaseUnavailableError(`${error.error}, ${error.reason}`, { cause: error })
    if (error instanceof LeaseLostError) throw new DatabaseUnavailableError(error.message, { cause: error })
    throw error
  }
}
