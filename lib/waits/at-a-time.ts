/** Works on items, some at a time, until all are done or one has failed. */
export async function atATime<T>(
  most: number,
  items: Iterable<T>,
  work: (item: T) => Promise<unknown>
): Promise<void> {
  const left = items[Symbol.iterator]()
  let failed = false
  const worker = async () => {
    for (let next = left.next(); !next.done && !failed; next = left.next()) {
      try {
        await work(next.value)
      } catch (error) {
        failed = true
        throw error
      }
    }
  }
  const results = await Promise.allSettled(Array.from({ length: most }, worker))
  for (const result of results) if (result.status === 'rejected') throw result.reason
}
