/** Bytes of the largest request by default: the default limit of nginx. */
export const REQUEST_BYTES = 1024 * 1024
/** Bytes that every server on the way has to take. */
export const LEAST_REQUEST_BYTES = 64 * 1024

/** Knows how large requests for several items may be: what the server and its proxies take. */
export class RequestSize {
  bytes: number

  constructor(bytes = REQUEST_BYTES) {
    this.bytes = bytes
  }

  /** Notes that a request of so many bytes was refused for its length. */
  refused(sent: number): void {
    this.bytes = Math.max(LEAST_REQUEST_BYTES, Math.min(this.bytes, sent >> 1))
  }
}

/** Calls for items in parts: halves a part that is too large, or whose failure `isDivided` tells to halve. */
export async function* inParts<T, R>(
  items: readonly T[],
  size: RequestSize,
  call: (part: readonly T[]) => AsyncIterable<R> | Promise<Iterable<R>>,
  bytesOf: (item: T) => number,
  isDivided: (error: unknown) => boolean
): AsyncGenerator<R> {
  if (items.length === 0) return
  const parts: (readonly T[])[] = [items]
  for (let part = parts.shift(); part; part = parts.shift()) {
    if (part.length > 1 && part.reduce((sum, item) => sum + bytesOf(item), FRAME) > size.bytes) {
      parts.unshift(...halvesOf(part))
      continue
    }
    try {
      yield* await call(part)
    } catch (error) {
      if (part.length === 1 || !isDivided(error)) throw error
      parts.unshift(...halvesOf(part))
    }
  }
}

/** Bytes of a body around its items. */
const FRAME = 64

export function halvesOf<T>(items: readonly T[]): [readonly T[], readonly T[]] {
  const half = items.length >> 1
  return [items.slice(0, half), items.slice(half)]
}
