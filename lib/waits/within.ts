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
