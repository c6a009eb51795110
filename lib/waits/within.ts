import { HostTimeoutError } from '../errors.js'

/**
 * Waits for something, but not for ever.
 * @throws what `late` gives, when it takes longer than `ms` milliseconds
 */
export async function within<T>(ms: number, late: () => Error, call: () => Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const timeout = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(late()), ms)
  })
  try {
    return await Promise.race([call(), timeout])
  } finally {
    clearTimeout(timer)
  }
}

/**
 * Waits for code of the host.
 * @param name of the option, for the error
 * @throws HostTimeoutError, and what the code throws
 */
export const hostWithin = <T>(ms: number, name: string, call: () => T | Promise<T>): Promise<T> =>
  within(
    ms,
    () => new HostTimeoutError(name, ms),
    async () => call()
  )
