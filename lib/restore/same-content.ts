import { createHash, randomBytes } from 'node:crypto'
import { sameStream } from '../bytes/same-stream.js'
import { slicesOf } from '../bytes/views.js'
import { type AttachmentStub, attachmentBase64, base64, stubOf, stubsOf } from '../couch/attachments.js'
import type { CouchDatabase } from '../couch/database.js'
import { digestOf, digestOfStream } from '../couch/digest.js'
import { attachmentsIn, DEFAULT_CONTENT_TYPE, readStub } from '../json/attachments.js'
import { bodyOf, type DocumentBytes, sameBody } from '../json/document.js'
import { QUOTE } from '../json/json-bytes.js'
import { decodeString, type MemberCursor } from '../json/members.js'
import { inTurns, type Steps } from '../waits/steps.js'
import type { LargeDocument } from './large-document.js'
import type { LiveDocument } from './source.js'

const KEY = randomBytes(16)
/** Begins a print, with a key of this process: nobody can choose documents whose prints collide. */
export const keyedHash = () => createHash('sha256').update(KEY)

/** Bytes that are hashed in one step: a millisecond or two. */
const HASHED = 1024 * 1024

/** Tells how two versions compare, but for revisions and spelling; `unknown`: attachments may differ. */
type ContentComparison = 'same' | 'other' | 'unknown'

export interface Attachment {
  /** The JSON of one that is no string. */
  contentType: string
  /** Bytes, not encoded. `undefined` where a client sent them compressed. */
  length: number | undefined
  /** CouchDB's MD5 of the bytes. `undefined` where CouchDB holds them compressed. */
  digest: () => string | undefined
  /** Decodes what is inline: it is long, and seldom asked for. */
  data: (() => Buffer) | undefined
}

/** Compares a document with inline attachments to one with stubs. Digests claimed inline do not count. */
export function* compareContent(wanted: DocumentBytes, current: DocumentBytes): Steps<ContentComparison> {
  if (!(yield* sameBody(wanted, current))) return 'other'
  return compareAttachments(yield* attachmentsOf(wanted), yield* attachmentsOf(current))
}

/** Compares attachments by what is known without reading those that a database holds. */
export function compareAttachments(
  wanted: ReadonlyMap<string, Attachment>,
  current: ReadonlyMap<string, Attachment>
): ContentComparison {
  if (wanted.size !== current.size) return 'other'
  let result: ContentComparison = 'same'
  for (const [name, attachment] of wanted) {
    const other = current.get(name)
    if (!other || attachment.contentType !== other.contentType) return 'other'
    if (other.length !== undefined && attachment.length !== other.length) return 'other'
    const digest = result === 'same' ? attachment.digest() : undefined
    if (digest === undefined || digest !== other.digest()) result = 'unknown'
  }
  return result
}

/** Returns whether two versions of a document with inline attachments have the same attachments. */
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
 * Returns a keyed digest of a document without its revision. Equal digests mean equal content; equal content
 * may be spelled in several ways, with several digests.
 */
export function* contentPrint(document: DocumentBytes): Steps<string> {
  const hash = keyedHash()
  for (const piece of yield* bodyOf(document)) {
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

/** Returns what is known of a document's attachments, by name. */
export function* attachmentsOf(document: DocumentBytes): Steps<Map<string, Attachment>> {
  const found = new Map<string, Attachment>()
  for (const { name, members } of attachmentsIn(document)) {
    found.set(name, attachmentOf(document, name, members))
    yield
  }
  return found
}

function attachmentOf({ bytes }: DocumentBytes, name: string, members: MemberCursor): Attachment {
  let data: (() => Buffer) | undefined
  const stub = stubOf(
    name,
    readStub(members, (member) => {
      const { valueStart: start, valueEnd: end } = members
      if (member === 'data' && bytes[start] === QUOTE)
        data = () => Buffer.from(decodeString(bytes, start, end), 'base64')
    })
  )
  const contentType = textOf(stub.contentType)
  // The digest of an attachment that is stored compressed is that of the compressed form.
  if (!data)
    return { contentType, length: stub.length, digest: () => (stub.gzip ? undefined : stub.digest), data }
  const content = data()
  return { contentType, length: content.length, digest: () => digestOf(content), data }
}

const textOf = (contentType: unknown = DEFAULT_CONTENT_TYPE): string =>
  typeof contentType === 'string' ? contentType : JSON.stringify(contentType)

/** Compares a large document with one with stubs, attachments by their bytes where digests do not tell. */
export async function sameLarge(
  db: CouchDatabase,
  document: LargeDocument,
  current: LiveDocument
): Promise<boolean> {
  return (await inTurns(sameBody(document.head, current))) && sameLargeAttachments(db, document, current)
}

/** Compares the attachments of a large document with those of one with stubs. */
export async function sameLargeAttachments(
  db: CouchDatabase,
  { head, parts }: LargeDocument,
  current: LiveDocument
): Promise<boolean> {
  const [wanted, found] = [await inTurns(attachmentsOf(head)), await inTurns(attachmentsOf(current))]
  // Attachments that differ by content type or length need not be read.
  if (compareAttachments(wanted, found) === 'other') return false
  const stubs = await inTurns(stubsOf(current))
  for (const { name, open } of parts) {
    if ((await digestOfStream(open())) === found.get(name)?.digest()) continue
    const stored = () => attachmentBase64(db, current, stubs.get(name) as AttachmentStub)
    // Both are read from the start after a fault.
    if (!(await db.client.retry(() => sameStream(base64(open()), stored())))) return false
  }
  return true
}
