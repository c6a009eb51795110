import { createHash, randomBytes } from 'node:crypto'
import { slicesOf } from '../bytes/pieces.js'
import { digestOf } from '../couch/digest.js'
import { bodyOf, type DocumentBytes, sameBody } from '../json/document.js'
import { decodeString, MemberCursor } from '../json/members.js'
import type { Steps } from '../waits/steps.js'

const QUOTE = 0x22
/** What `false` begins with. */
const FALSE = 0x66
/** What CouchDB takes an attachment to be that does not say. */
export const DEFAULT_CONTENT_TYPE = 'application/octet-stream'
/** A key of this process: nobody can choose documents whose prints collide. */
const KEY = randomBytes(16)

/** Bytes that are hashed in one step: a millisecond or two. */
const HASHED = 1024 * 1024

/**
 * How two versions of a document compare, their revisions and the way they are spelled aside. `unknown`: all but the
 * attachments' bytes is known to be the same. CouchDB's digest of an attachment that it compresses is that of the
 * compressed form.
 */
export type ContentComparison = 'same' | 'other' | 'unknown'

/** What is compared of an attachment. */
export interface AttachmentContent {
  /** The JSON of one that is no string. */
  contentType: string
  /** Bytes, not encoded. `undefined` where a client sent them compressed: the database does not know then. */
  length: number | undefined
  /**
   * CouchDB's digest of the bytes: `md5-` and base64. Computed from the bytes where they are inline, `undefined` where
   * CouchDB holds them compressed.
   */
  digest: () => string | undefined
}

/**
 * Compares what two versions of a document say, and their attachments by content type, length and digest. A digest
 * that the wanted document claims counts for nothing: the digest of its bytes does.
 *
 * @param wanted with its attachments inline
 * @param current with stubs, as CouchDB sends it
 */
export function* compareContent(wanted: DocumentBytes, current: DocumentBytes): Steps<ContentComparison> {
  if (!(yield* sameBody(wanted, current))) return 'other'
  return compareAttachments(yield* attachmentsOf(wanted), yield* attachmentsOf(current))
}

/** Compares attachments by content type, length and digest. */
export function compareAttachments(
  wanted: ReadonlyMap<string, AttachmentContent>,
  current: ReadonlyMap<string, AttachmentContent>
): ContentComparison {
  if (wanted.size !== current.size) return 'other'
  let result: ContentComparison = 'same'
  for (const [name, attachment] of wanted) {
    const other = current.get(name)
    if (!other || attachment.contentType !== other.contentType) return 'other'
    if (other.length !== undefined && attachment.length !== other.length) return 'other'
    if (result === 'same' && !sameDigest(attachment, other)) result = 'unknown'
  }
  return result
}

function sameDigest(a: AttachmentContent, b: AttachmentContent): boolean {
  const digest = a.digest()
  return digest !== undefined && digest === b.digest()
}

/** Whether two versions of a document have attachments of the same bytes; both inline. */
export function* sameAttachments(a: DocumentBytes, b: DocumentBytes): Steps<boolean> {
  const [all, others] = [yield* attachmentsOf(a), yield* attachmentsOf(b)]
  for (const [name, { data }] of all) {
    const other = others.get(name)?.data
    if (!data || !other) return false
    const bytes = data()
    yield
    const otherBytes = other()
    yield
    if (!bytes.equals(otherBytes)) return false
  }
  return all.size === others.size
}

/**
 * Returns a keyed digest of what a document says, its revision aside. Documents with the same digest say the same;
 * the same content may have several, since it may be spelled in several ways.
 *
 * @param document with its attachments inline, or with stubs as CouchDB sends them
 */
export function* contentPrint(document: DocumentBytes): Steps<string> {
  const hash = createHash('sha256').update(KEY)
  for (const piece of bodyOf(document)) {
    for (const slice of slicesOf(piece, HASHED)) {
      hash.update(slice)
      yield
    }
  }
  const attachments = [...(yield* attachmentsOf(document))].sort(([a], [b]) => (a < b ? -1 : 1))
  for (const [name, { contentType, length, digest }] of attachments) {
    hash.update(JSON.stringify([name, contentType, length, digest()]))
    yield
  }
  return hash.digest('base64')
}

interface Attachment extends AttachmentContent {
  /** Decodes what is inline: it is long, and seldom asked for. */
  data: (() => Buffer) | undefined
}

/** Returns whether an attachment of a document has no data, or says so: CouchDB keeps what it has of that name then. */
export function* hasStub(document: DocumentBytes): Steps<boolean> {
  for (const { data, stub } of membersOfAttachments(document)) {
    if (stub || !data) return true
    yield
  }
  return false
}

/** The attachments of a document by name. */
export function* attachmentsOf(document: DocumentBytes): Steps<Map<string, Attachment>> {
  const found = new Map<string, Attachment>()
  for (const members of membersOfAttachments(document)) {
    found.set(members.name, attachmentOf(members))
    yield
  }
  return found
}

/** What a document says of an attachment. */
interface AttachmentMembers {
  name: string
  contentType: string
  digest: string | undefined
  length: number | undefined
  encodedLength: number | undefined
  encoded: boolean
  stub: boolean
  data: (() => Buffer) | undefined
}

function* membersOfAttachments({ bytes, attachments }: DocumentBytes): Generator<AttachmentMembers> {
  if (!attachments) return
  const names = new MemberCursor(bytes, attachments.start)
  while (names.next()) yield readAttachment(bytes, names.key(), names.valueStart)
}

function readAttachment(bytes: Buffer, name: string, at: number): AttachmentMembers {
  const found: AttachmentMembers = {
    name,
    contentType: DEFAULT_CONTENT_TYPE,
    digest: undefined,
    length: undefined,
    encodedLength: undefined,
    encoded: false,
    stub: false,
    data: undefined
  }
  const cursor = new MemberCursor(bytes, at)
  while (cursor.next()) {
    const key = cursor.key()
    const { valueStart: start, valueEnd: end } = cursor
    if (key === 'content_type') found.contentType = cursor.string() ?? bytes.toString('utf8', start, end)
    else if (key === 'digest') found.digest = cursor.string()
    else if (key === 'length') found.length = cursor.number()
    else if (key === 'encoded_length') found.encodedLength = cursor.number()
    else if (key === 'encoding') found.encoded = true
    else if (key === 'stub') found.stub = bytes[start] !== FALSE
    else if (key === 'data' && bytes[start] === QUOTE)
      found.data = () => Buffer.from(decodeString(bytes, start, end), 'base64')
  }
  return found
}

function attachmentOf(members: AttachmentMembers): Attachment {
  const { contentType, data, length, encodedLength } = members
  if (data) {
    const content = data()
    return { contentType, length: content.length, digest: () => digestOf(content), data }
  }
  // Of an attachment that is stored compressed, the digest is that of the compressed form.
  const digest = members.encoded ? undefined : members.digest
  return { contentType, length: length === encodedLength ? undefined : length, digest: () => digest, data }
}
