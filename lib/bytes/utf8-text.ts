import { headOf } from './head-of.js'

const MARK = Buffer.from([0xef, 0xbb, 0xbf])

/** Bytes at the start of other encodings than UTF-8, longest first. */
const MAGIC: [name: string, bytes: number[]][] = [
  ['UTF-32 (little endian)', [0xff, 0xfe, 0, 0]],
  ['UTF-32 (big endian)', [0, 0, 0xfe, 0xff]],
  ['UTF-16 (little endian)', [0xff, 0xfe]],
  ['UTF-16 (big endian)', [0xfe, 0xff]],
  ['a ZIP archive', [0x50, 0x4b, 3, 4]],
  ['gzip without "Content-Encoding: gzip"', [0x1f, 0x8b]]
]

/** How many bytes {@link encodingOf} and {@link markLength} look at. */
const TELLING_BYTES = 4

/** Returns a text's encoding by its first bytes; `undefined` for what may be UTF-8. */
function encodingOf(head: Buffer): string | undefined {
  const marked = MAGIC.find(([, bytes]) => head.subarray(0, bytes.length).equals(Buffer.from(bytes)))
  if (marked) return marked[0]
  // JSON begins with an ASCII character, so zeros show its place (RFC 4627, section 3).
  const [a, b, c, d] = head
  if (a === 0 && b === 0 && c === 0 && d > 0) return 'UTF-32 (big endian)'
  if (a > 0 && b === 0 && c === 0 && d === 0) return 'UTF-32 (little endian)'
  if (a === 0 && b > 0) return 'UTF-16 (big endian)'
  if (a > 0 && b === 0) return 'UTF-16 (little endian)'
  return undefined
}

const markLength = (head: Buffer): number => (head.subarray(0, MARK.length).equals(MARK) ? MARK.length : 0)

/** Returns a text without its byte order mark, and its encoding unless that is UTF-8. */
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
