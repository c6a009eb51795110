import type { BulkResult, CouchDatabase } from '../couch/database.js'
import type { AttachmentPart } from '../couch/multipart.js'
import { readDocument, withRevision } from '../json/document.js'
import type { LargeAttachment, LargeDocument } from './large-document.js'
import type { Refusals } from './refusals.js'

/** Bytes of text from a document that go into a URL, or into the head of a part of a multipart body. */
const MAX_HEAD_TEXT = 1024

/** The revision that a document is written on; its own is kept with `keep`. */
export type BaseRevision = { keep: true } | { keep: false; rev: string | null }

/**
 * Writes one large document, as a stream.
 * @throws CouchError when the database cannot be worked with
 */
export async function writeLarge(
  db: CouchDatabase,
  document: LargeDocument,
  base: BaseRevision,
  refusals: Refusals
): Promise<BulkResult> {
  const { id } = document.head
  const parts = multipartParts(document)
  const { answer, refusal } = await refusals.send(1, () =>
    parts ? putMultipart(db, document, parts, base) : putInline(db, document, base)
  )
  if (!refusal) return answer
  if (refusal.status !== 409) await refusals.blame(refusal)
  return { id, error: refusal.status === 409 ? 'conflict' : refusal.error, reason: refusal.reason }
}

/**
 * Returns the attachments as parts of a multipart request, or `null` where the document's texts do not fit where such a
 * request or its answer has them: in the URL, in heads of parts, and the revision in a head of the answer.
 */
function multipartParts({ head, parts }: LargeDocument): AttachmentPart[] | null {
  const fits = (text: string) => encodeURIComponent(text).length <= MAX_HEAD_TEXT
  if (!fits(head.id) || !fits(head.rev ?? '') || !/^[\x20-\x7e]*$/.test(head.rev ?? '')) return null
  const all = parts.filter(hasType)
  const whole = all.length === parts.length && all.every((part) => fits(part.name) && fits(part.contentType))
  return whole ? all : null
}

const hasType = (part: LargeAttachment): part is LargeAttachment & AttachmentPart => part.contentType !== null

async function putMultipart(
  db: CouchDatabase,
  { head }: LargeDocument,
  parts: readonly AttachmentPart[],
  base: BaseRevision
): Promise<BulkResult> {
  const bytes = base.keep ? head.bytes : withRevision(head, base.rev)
  const rev = await db.putWithAttachmentsOnce(head.id, bytes, parts, { newEdits: !base.keep })
  return { id: head.id, rev: rev ?? undefined }
}

/** The database holds the whole request in its memory, so this is for documents that cannot be sent otherwise. */
async function putInline(
  db: CouchDatabase,
  document: LargeDocument,
  base: BaseRevision
): Promise<BulkResult> {
  const [result] = await db.putStreamOnce(!base.keep, () => inlineJson(document, base))
  return result ?? { id: document.head.id }
}

/** Streams the document's JSON with its attachments inline. */
async function* inlineJson({ head, parts }: LargeDocument, base: BaseRevision): AsyncGenerator<Buffer> {
  const { bytes, attachments } = base.keep ? head : readDocument(withRevision(head, base.rev))
  if (!attachments) {
    yield bytes
    return
  }
  yield bytes.subarray(0, attachments.start)
  let separator = '{'
  for (const { name, stub, openText } of parts) {
    yield Buffer.from(`${separator}${JSON.stringify(name)}:{${stub ? `${stub},` : ''}"data":"`)
    yield* openText()
    yield Buffer.from('"}')
    separator = ','
  }
  yield Buffer.from('}')
  yield bytes.subarray(attachments.end)
}
