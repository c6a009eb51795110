import { createGunzip } from 'node:zlib'
import { shownName } from '../bytes/cut-text.js'
import { through } from '../bytes/through.js'
import { attachmentsIn, readStub, type StubMembers } from '../json/attachments.js'
import type { DocumentBytes } from '../json/document.js'
import { BACKSLASH, QUOTE } from '../json/json-bytes.js'
import { ELEMENT, type JsonPath } from '../json/scanner.js'
import { inTurns, type Steps } from '../waits/steps.js'
import type { CouchDatabase } from './database.js'
import { type Digest, Digesting, digestInStub, digestInTag } from './digest.js'
import { CouchError } from './errors.js'
import { jsonPart } from './json-part.js'
import { bulkGetRequest, type Revision } from './requests.js'
import type { CouchResponse, Headers } from './response.js'
import { untilBegun } from './resumable.js'
import { rejectServerError } from './rows.js'
import { fitsUrl, isPrintable } from './target.js'

/** An attachment as a document's stub describes it. */
export interface AttachmentStub {
  name: string
  contentType: unknown
  /** Bytes. `undefined` where a client sent them compressed: the database does not know then. */
  length: number | undefined
  /** The digest of the bytes as they are stored. */
  digest: Digest | undefined
  /** They are stored compressed, as CouchDB does with text, and with what a client sent so. */
  gzip: boolean
}

/** @param members with those that `att_encoding_info` adds */
export function stubOf(name: string, members: StubMembers): AttachmentStub {
  const { content_type: contentType, length, encoding, encoded_length: stored } = members
  const gzip = encoding === 'gzip'
  return {
    name,
    contentType,
    length: typeof length !== 'number' || (gzip && length === stored) ? undefined : length,
    digest: digestInStub(members.digest),
    gzip
  }
}

/** Returns the bytes of a document's attachments; `undefined` where its stubs do not tell. */
export function* attachmentBytes(document: DocumentBytes): Steps<number | undefined> {
  let total = 0
  for (const { length } of stubs(document)) {
    if (length === undefined) return undefined
    total += length
    yield
  }
  return total
}

/** Streams a document with attachments inline, holding none in memory. @throws CouchError (404) if gone */
export async function* inlineAttachments(
  db: CouchDatabase,
  document: DocumentBytes
): AsyncGenerator<Uint8Array> {
  const { bytes, id, attachments } = document
  const revision = { id, rev: document.rev as string }
  if (!attachments) {
    yield bytes
    return
  }
  const all = [...(await inTurns(stubsOf(document))).values()]
  if (!(await inTurns(canAllBeReadAlone(db, revision, all)))) {
    yield* readPart(db, revision, [])
    return
  }
  let separator = '{'
  yield bytes.subarray(0, attachments.start)
  for (const stub of all) {
    const members = stub.members.map((member) => member.toString()).join(',')
    yield Buffer.from(`${separator}${stub.key}:{${members}${members ? ',' : ''}"data":"`)
    yield* base64(readAlone(db, revision, stub))
    yield Buffer.from('"}')
    separator = ','
  }
  yield Buffer.from('}')
  yield bytes.subarray(attachments.end)
}

export function* stubsOf(document: DocumentBytes): Steps<Map<string, InlineStub>> {
  const all = new Map<string, InlineStub>()
  for (const stub of stubs(document)) {
    all.set(stub.name, stub)
    yield
  }
  return all
}

/** Streams an attachment in base64. @throws CouchError with status 404 when it is gone */
export async function* attachmentBase64(
  db: CouchDatabase,
  revision: Revision,
  stub: AttachmentStub
): AsyncGenerator<Uint8Array> {
  if (canBeReadAlone(db, revision, stub)) yield* base64(readAlone(db, revision, stub))
  else yield* readWithDocument(db, revision, stub.name)
}

function* canAllBeReadAlone(
  db: CouchDatabase,
  revision: Revision,
  all: readonly AttachmentStub[]
): Steps<boolean> {
  for (const stub of all) {
    if (!canBeReadAlone(db, revision, stub)) return false
    yield
  }
  return true
}

/** Characters of a content type that still makes a header. */
const MAX_TYPE = 500

/** Returns whether an attachment's own URL works: CouchDB sends any content type as a header, unescaped. */
export const canBeReadAlone = (
  db: CouchDatabase,
  { id, rev }: Revision,
  { name, contentType }: AttachmentStub
) =>
  fitsUrl({ path: [db.name, id, name], query: { rev } }) &&
  typeof contentType === 'string' &&
  contentType.length <= MAX_TYPE &&
  isPrintable(contentType)

/** Streams an attachment by its own URL, decompressed. @throws CouchError when it is not what its stub says */
export function readAlone(
  db: CouchDatabase,
  { id, rev }: Revision,
  stub: AttachmentStub
): AsyncGenerator<Uint8Array> {
  return untilBegun(db.client, async function* () {
    // Asks for the bytes as stored: their digest can be checked, and the database need not decompress them.
    const answer = await db.attachment(id, stub.name, { rev, gzip: stub.gzip })
    yield* attachmentBytesOf(answer, stub, `attachment "${shownName(stub.name)}" of "${shownName(id)}"`)
  })
}

/** Reads an attachment's base64 from its document, whatever its name. */
async function* readWithDocument(db: CouchDatabase, revision: Revision, name: string) {
  for await (const piece of readPart(db, revision, ['_attachments', name, 'data'])) {
    const text = piece.filter((c) => c !== QUOTE && c !== BACKSLASH)
    if (text.length > 0) yield text
  }
}

/** Streams a value inside a document, which CouchDB builds in memory. @throws CouchError (404) if gone */
function readPart(db: CouchDatabase, revision: Revision, path: readonly string[]) {
  return untilBegun(db.client, async function* () {
    const request = bulkGetRequest(db.name, [revision], { attachments: true })
    const { body } = await db.client.once.stream(request)
    const document: JsonPath = ['results', ELEMENT, 'docs', ELEMENT]
    const refusal = yield* jsonPart(body, [...document, 'ok', ...path], [...document, 'error'])
    if (refusal === undefined) return
    rejectServerError(refusal)
    throw new CouchError(`document "${shownName(revision.id)}"`, {
      status: 404,
      error: 'not_found',
      reason: 'missing'
    })
  })
}

/** Yields an attachment's bytes, decompressed. @throws CouchError when they differ from what the stub says */
async function* attachmentBytesOf(
  { headers, body }: CouchResponse,
  stub: AttachmentStub,
  what: string
): AsyncGenerator<Uint8Array> {
  const compressed = isGzip(headers)
  const sent = new Digesting()
  const plain = new Digesting()
  let received = 0
  for await (const piece of compressed ? gunzipped(sent.passing(body), what) : body) {
    received += piece.length
    // More bytes than announced must not get out: the receiver counts them.
    if (stub.length !== undefined && received > stub.length) break
    plain.add(piece)
    yield piece
  }
  if (stub.length !== undefined && received !== stub.length) {
    const reason = `${received} of ${stub.length} bytes came`
    throw new CouchError(what, { error: 'truncated', reason, retryable: true })
  }
  const expected = digestsOf(stub, headers)
  if (expected.length > 0 && ![plain, sent].some((digesting) => expected.includes(digesting.end()))) {
    const reason = 'the bytes have another digest'
    throw new CouchError(what, { error: 'bad_answer', reason, retryable: true })
  }
}

/**
 * Returns digests of which the bytes must have one, as sent or decompressed; none where no digest tells.
 * CouchDB digests what it stores, and each replica compresses for itself. Where a proxy has recompressed the
 * bytes, only the length and gzip's own checksum tell whether they are whole.
 */
function digestsOf(stub: AttachmentStub, headers: Headers): (Digest | undefined)[] {
  const tag = digestInTag(headers.etag)
  if (stub.gzip) return isGzip(headers) && tag ? [tag, stub.digest] : []
  const digest = stub.digest ?? tag
  return digest === undefined ? [] : [digest]
}

const isGzip = (headers: Headers) => String(headers['content-encoding']).trim().toLowerCase() === 'gzip'

/** @throws CouchError when they are not gzip: clients may store anything under that name */
async function* gunzipped(pieces: AsyncIterable<Uint8Array>, what: string): AsyncGenerator<Uint8Array> {
  try {
    yield* through(pieces, createGunzip())
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (!code?.startsWith('Z_')) throw error
    throw new CouchError(what, {
      error: 'bad_attachment',
      reason: `it is marked as gzip and is not: ${message}`,
      // The answer may have ended too early.
      retryable: code === 'Z_BUF_ERROR',
      cause: error
    })
  }
}

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
const NOT_INLINE = new Set(['stub', 'length', 'follows', 'encoding', 'encoded_length'])

interface InlineStub extends AttachmentStub {
  /** The name as it is spelled in the document, quotes included. */
  key: string
  /** Members that are kept beside the data, as they are spelled. */
  members: Buffer[]
}

function* stubs(document: DocumentBytes): Generator<InlineStub> {
  const { bytes } = document
  for (const { name, keyStart, keyEnd, members } of attachmentsIn(document)) {
    const kept: Buffer[] = []
    const stub = readStub(members, (member) => {
      if (!NOT_INLINE.has(member)) kept.push(bytes.subarray(members.keyStart, members.valueEnd))
    })
    yield { ...stubOf(name, stub), key: bytes.toString('utf8', keyStart, keyEnd), members: kept }
  }
}
