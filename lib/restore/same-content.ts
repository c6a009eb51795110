import { bodyOf, type DocumentBytes } from '../json/document.js'
import { decodeString, decodeValue, MemberCursor } from '../json/members.js'
import { sameValue } from '../json/same-value.js'

const QUOTE = 0x22

/**
 * How two versions of a document compare, their revisions and the way they are spelled aside. `unknown`: all but the
 * attachments' bytes is known to be the same. A digest may be missing, or be that of another compression.
 */
export type ContentComparison = 'same' | 'other' | 'unknown'

/**
 * Compares attachments by content type and digest.
 *
 * @param wanted with its attachments inline
 * @param current with stubs
 */
export function compareContent(wanted: DocumentBytes, current: DocumentBytes): ContentComparison {
  if (!sameValue(bodyOf(wanted), bodyOf(current))) return 'other'
  const a = attachmentsOf(wanted)
  const b = attachmentsOf(current)
  if (a.size !== b.size) return 'other'
  let result: ContentComparison = 'same'
  for (const [name, { contentType, digest }] of a) {
    const other = b.get(name)
    if (!other || contentType !== other.contentType) return 'other'
    if (!digest || digest !== other.digest) result = 'unknown'
  }
  return result
}

/** Whether two versions of a document have attachments of the same bytes; both inline. */
export function sameAttachments(a: DocumentBytes, b: DocumentBytes): boolean {
  const [all, others] = [attachmentsOf(a), attachmentsOf(b)]
  for (const [name, attachment] of all) {
    const data = attachment.data?.()
    const other = others.get(name)?.data?.()
    if (data === undefined || other === undefined) return false
    if (!Buffer.from(data, 'base64').equals(Buffer.from(other, 'base64'))) return false
  }
  return all.size === others.size
}

/** Bytes of all attachments, inline or as the stubs tell. */
export function sizeOfAttachments(document: DocumentBytes): number {
  let size = 0
  for (const { data, length } of attachmentsOf(document).values())
    size += data ? Buffer.byteLength(data(), 'base64') : length
  return size
}

interface Attachment {
  contentType?: string
  digest?: string
  /** Decodes the base64: it is long, and seldom asked for. */
  data?: () => string
  length: number
}

function attachmentsOf({ bytes, attachments }: DocumentBytes): Map<string, Attachment> {
  const found = new Map<string, Attachment>()
  if (!attachments) return found
  const names = new MemberCursor(bytes, attachments.start)
  while (names.next()) {
    const attachment: Attachment = { length: 0 }
    const cursor = new MemberCursor(bytes, names.valueStart)
    while (cursor.next()) {
      const key = cursor.key()
      if (key === 'content_type') attachment.contentType = cursor.string()
      else if (key === 'digest') attachment.digest = cursor.string()
      else if (key === 'data' && bytes[cursor.valueStart] === QUOTE) {
        const { valueStart: start, valueEnd: end } = cursor
        attachment.data = () => decodeString(bytes, start, end)
      } else if (key === 'length')
        attachment.length = Number(decodeValue(bytes, cursor.valueStart, cursor.valueEnd))
    }
    found.set(names.key(), attachment)
  }
  return found
}
