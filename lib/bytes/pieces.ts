import { sharedTurn } from '../waits/steps.js'

/** Returns bytes as a Buffer that shares their memory. */
export function toBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/** Cuts bytes into views of at most so many. */
export function* slicesOf<T extends Uint8Array>(bytes: T, size: number): Generator<T> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size) as T
}

/** Bytes that are scanned at a time. Those that take longest, escapes, take about a millisecond. */
const SCANNED = 32 * 1024

/** Cuts pieces so that others have their turns between the parts, see {@link sharedTurn}. */
export async function* inSharedTurns(
  pieces: AsyncIterable<Uint8Array> | Iterable<Uint8Array>
): AsyncGenerator<Uint8Array> {
  for await (const piece of pieces) {
    for (const slice of slicesOf(piece, SCANNED)) {
      await sharedTurn()
      yield slice
    }
  }
}

/** The first bytes of some pieces, and all of the pieces again. */
interface Peeked {
  head: Buffer
  all: AsyncGenerator<Buffer>
}

/** Reads `count` bytes ahead; fewer when there are no more. */
export async function headOf(pieces: AsyncIterable<Uint8Array>, count: number): Promise<Peeked> {
  const iterator = pieces[Symbol.asyncIterator]()
  let head: Buffer = Buffer.alloc(0)
  while (head.length < count) {
    const next = await iterator.next()
    if (next.done) break
    head = Buffer.concat([head, next.value])
  }
  return { head, all: rest(head, iterator) }
}

async function* rest(head: Buffer, iterator: AsyncIterator<Uint8Array>): AsyncGenerator<Buffer> {
  try {
    if (head.length > 0) yield head
    for (;;) {
      const next = await iterator.next()
      if (next.done) return
      yield toBuffer(next.value)
    }
  } finally {
    await iterator.return?.()
  }
}

/** Returns whether two streams have the same bytes, wherever they are cut into pieces. */
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
