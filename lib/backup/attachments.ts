import type { CouchDatabase } from '../couch/database.js'
import { CouchError } from '../couch/errors.js'
import type { DocumentBytes } from '../json/document.js'
import { decodeString, decodeValue, MemberCursor } from '../json/members.js'

/** Bytes of a document's attachments, as its stubs tell. */
export function attachmentBytes(document: DocumentBytes): number {
  let total = 0
  for (const { length } of stubs(document)) total += length
  return total
}

/**
 * A document's JSON with its attachments inline, in the form that CouchDB's `attachments=true` gives, streamed: no
 * attachment is held in memory.
 *
 * @param document with stubs
 * @throws CouchError with status 404 when the revision is gone
 */
export async function* inlineAttachments(
  db: CouchDatabase,
  document: DocumentBytes
): AsyncGenerator<Uint8Array> {
  const { bytes, id, rev, attachments } = document
  if (!attachments) {
    yield bytes
    return
  }
  yield bytes.subarray(0, attachments.start)
  let separator = '{'
  for (const stub of stubs(document)) {
    const members = stub.members.map((member) => member.toString()).join(',')
    yield Buffer.from(`${separator}${stub.key}:{${members}${members ? ',' : ''}"data":"`)
    const { body } = await db.attachment(id, stub.name, rev)
    yield* base64(whole(body, stub.length, `attachment "${stub.name}" of "${id}"`))
    yield Buffer.from('"}')
    separator = ','
  }
  yield Buffer.from('}')
  yield bytes.subarray(attachments.end)
}

/** Bytes that must be `length` many. @throws CouchError (retryable) when they are not */
export async function* whole(
  body: AsyncIterable<Uint8Array>,
  length: number,
  what: string
): AsyncGenerator<Uint8Array> {
  let received = 0
  for await (const piece of body) {
    received += piece.length
    yield piece
  }
  if (received !== length) {
    const reason = `${received} of ${length} bytes came`
    throw new CouchError(what, { error: 'truncated', reason, retryable: true })
  }
}

/** Encodes a stream of bytes in base64. */
export async function* base64(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer> {
  let rest: Buffer = Buffer.alloc(0)
  for await (const piece of pieces) {
    const all =
      rest.length > 0
        ? Buffer.concat([rest, piece])
        : Buffer.from(piece.buffer, piece.byteOffset, piece.length)
    const whole = all.length - (all.length % 3)
    rest = Buffer.from(all.subarray(whole))
    if (whole > 0) yield Buffer.from(all.toString('base64', 0, whole), 'latin1')
  }
  if (rest.length > 0) yield Buffer.from(rest.toString('base64'), 'latin1')
}

/** Members of a stub that have no meaning once the data is inline. */
const STUB_MEMBERS = new Set(['stub', 'length', 'follows', 'encoding', 'encoded_length'])

interface Stub {
  /** As it is spelled in the document, quotes included. */
  key: string
  name: string
  length: number
  members: Buffer[]
}

function* stubs({ bytes, attachments }: DocumentBytes): Generator<Stub> {
  if (!attachments) return
  const names = new MemberCursor(bytes, attachments.start)
  while (names.next()) {
    const stub: Stub = {
      key: bytes.toString('utf8', names.keyStart, names.keyEnd),
      name: decodeString(bytes, names.keyStart, names.keyEnd),
      length: 0,
      members: []
    }
    const cursor = new MemberCursor(bytes, names.valueStart)
    while (cursor.next()) {
      const key = cursor.key()
      if (key === 'length') stub.length = Number(decodeValue(bytes, cursor.valueStart, cursor.valueEnd))
      if (!STUB_MEMBERS.has(key)) stub.members.push(bytes.subarray(cursor.keyStart, cursor.valueEnd))
    }
    yield stub
  }
}
