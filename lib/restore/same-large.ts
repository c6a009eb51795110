import { createHash } from 'node:crypto'
import { sameStream } from '../bytes/pieces.js'
import { type AttachmentStub, attachmentBase64, base64, stubsOf } from '../couch/attachments.js'
import type { CouchDatabase } from '../couch/database.js'
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
    if ((await digestOf(part)) === digest) continue
    if (!(await sameBytes(db, part, current, stubs.get(part.name) as AttachmentStub))) return false
  }
  return true
}

async function digestOf({ open }: LargeAttachment): Promise<string> {
  const hash = createHash('md5')
  for await (const piece of open()) hash.update(piece)
  return `md5-${hash.digest('base64')}`
}

/** Compares an attachment's bytes with those of a document's revision. */
async function sameBytes(
  db: CouchDatabase,
  { open }: LargeAttachment,
  current: DocumentBytes,
  stub: AttachmentStub
): Promise<boolean> {
  const found = () => attachmentBase64(db, current.id, current.rev as string, stub)
  return db.client.retry(() => sameStream(base64(open()), found()))
}
