import { encodingOf, markLength, TELLING_BYTES } from '../json/utf8.js'
import { headOf } from './head-of.js'

/** Returns a text without its byte order mark, and what it is encoded in where that is not UTF-8. */
export async function utf8Text(
  pieces: AsyncIterable<Uint8Array>
): Promise<{ encoding: string | undefined; text: AsyncGenerator<Uint8Array> }> {
  const { head, all } = await headOf(pieces, TELLING_BYTES)
  return { encoding: encodingOf(head), text: without(markLength(head), all) }
}

async function* without(mark: number, pieces: AsyncGenerator<Uint8Array>): AsyncGenerator<Uint8Array> {
  let left = mark
  for await (const piece of pieces) {
    yield left > 0 ? piece.subarray(left) : piece
    left = 0
  }
}
