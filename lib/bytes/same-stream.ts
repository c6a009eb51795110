/** Returns whether two streams have the same bytes, in whatever pieces. */
export async function sameStream(
  a: AsyncIterable<Uint8Array>,
  b: AsyncIterable<Uint8Array>
): Promise<boolean> {
  const others = b[Symbol.asyncIterator]()
  let rest: Uint8Array = new Uint8Array(0)
  try {
    for await (const piece of a) {
      for (let at = 0; at < piece.length; ) {
        if (rest.length === 0) {
          const next = await others.next()
          if (next.done) return false
          rest = next.value
        }
        const length = Math.min(rest.length, piece.length - at)
        if (Buffer.compare(piece.subarray(at, at + length), rest.subarray(0, length)) !== 0) return false
        at += length
        rest = rest.subarray(length)
      }
    }
    while (rest.length === 0) {
      const next = await others.next()
      if (next.done) return true
      rest = next.value
    }
    return false
  } finally {
    await others.return?.()
  }
}
