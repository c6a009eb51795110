import { createHash } from 'node:crypto'
import type { CouchResponse } from '../couch/client.js'
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
  const all = [...stubs(document)]
  if (!all.every(canBeReadAlone)) {
    yield* db.documentWithAttachments(id, rev as string)
    return
  }
  let separator = '{'
  yield bytes.subarray(0, attachments.start)
  for (const stub of all) {
    const members = stub.members.map((member) => member.toString()).join(',')
    yield Buffer.from(`${separator}${stub.key}:{${members}${members ? ',' : ''}"data":"`)
    const { headers, body } = await db.attachment(id, stub.name, rev)
    const expected = { length: stub.length, md5: md5Of(headers) }
    yield* base64(whole(body, expected, `attachment "${stub.name}" of "${id}"`))
    yield Buffer.from('"}')
    separator = ','
  }
  yield Buffer.from('}')
  yield bytes.subarray(attachments.end)
}

/** Characters of a name that still makes a URL, and of a content type that still makes a header. */
const MAX_ALONE = 500

/**
 * Whether an attachment's own URL gives it as it is: it needs a name, and CouchDB sends the content type as a header,
 * line breaks and all, which would end the head there.
 */
const canBeReadAlone = ({ name, contentType }: Stub): boolean =>
  name !== '' &&
  name.length <= MAX_ALONE &&
  contentType.length <= MAX_ALONE &&
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  !/[\u0000-\u001f\u007f]/.test(contentType)

/**
 * The MD5 in base64 of the bytes that an answer brings: CouchDB's `ETag` of an attachment. `undefined` where that may
 * be of the compressed form, which is sent decompressed and without a length.
 */
export function md5Of({ etag, 'content-length': length }: CouchResponse['headers']): string | undefined {
  return length === undefined ? undefined : /^"([A-Za-z0-9+/]{22}==)"$/.exec(String(etag))?.[1]
}

/**
 * An attachment's bytes, checked as they pass.
 * @param expected bytes in all, and their MD5 in base64 where it is known
 * @throws CouchError (retryable) when they are others
 */
export async function* whole(
  body: AsyncIterable<Uint8Array>,
  expected: { length: number; md5: string | undefined },
  what: string
): AsyncGenerator<Uint8Array> {
  const hash = expected.md5 === undefined ? undefined : createHash('md5')
  let received = 0
  for await (const piece of body) {
    received += piece.length
    // More than were announced must not get out: the receiver counts them.
    if (received > expected.length) break
    hash?.update(piece)
    yield piece
  }
  if (received !== expected.length) {
    const reason = `${received} of ${expected.length} bytes came`
    throw new CouchError(what, { error: 'truncated', reason, retryable: true })
  }
  if (hash && hash.digest('base64') !== expected.md5) {
    throw new CouchError(what, {
      error: 'bad_answer',
      reason: 'the bytes have another digest',
      retryable: true
    })
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
  contentType: string
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
      contentType: '',
      length: 0,
      members: []
    }
    const cursor = new MemberCursor(bytes, names.valueStart)
    while (cursor.next()) {
      const key = cursor.key()
      if (key === 'content_type') stub.contentType = cursor.string() ?? ''
      else if (key === 'length') stub.length = Number(decodeValue(bytes, cursor.valueStart, cursor.valueEnd))
      if (!STUB_MEMBERS.has(key)) stub.members.push(bytes.subarray(cursor.keyStart, cursor.valueEnd))
    }
    yield stub
  }
}
