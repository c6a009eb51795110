import { sameStream } from '../bytes/pieces.js'
import { type AttachmentStub, attachmentBase64, base64, stubsOf } from '../couch/attachments.js'
import type { CouchDatabase } from '../couch/database.js'
import { digestOfStream } from '../couch/digest.js'
import { type DocumentBytes, sameBody } from '../json/document.js'
import { inTurns } from '../waits/steps.js'
import type { LargeAttachment, LargeDocument } from './large-document.js'
import { attachmentsOf, compareAttachments } from './same-content.js'

/**
 * Compares a large document with what a database holds, attachments by their bytes where the digest does not show it.
 * @param current with stubs
 */
export async function sameLarge(
  db: CouchDatabase,
  { head, parts }: LargeDocument,
  current: DocumentBytes
): Promise<boolean> {
  if (!(await inTurns(sameBody(head, current)))) return false
  const [wanted, found] = [await inTurns(attachmentsOf(head)), await inTurns(attachmentsOf(current))]
  // What differs by content type or length need not be read.
  if (compareAttachments(wanted, found) === 'other') return false
  const stubs = await inTurns(stubsOf(current))
  for (const part of parts) {
    const digest = found.get(part.name)?.digest()
    if ((await digestOfStream(part.open())) === digest) continue
    if (!(await sameBytes(db, part, current, stubs.get(part.name) as AttachmentStub))) return false
  }
  return true
}

/** Compares an attachment's bytes with those of a document's revision, from their start again after a fault. */
async function sameBytes(
  db: CouchDatabase,
  { open }: LargeAttachment,
  current: DocumentBytes,
  stub: AttachmentStub
): Promise<boolean> {
  const found = () => attachmentBase64(db, current.id, current.rev as string, stub)
  return db.client.retry(() => sameStream(base64(open()), found()))
}
