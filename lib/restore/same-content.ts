import { bodyOf, type DocumentBytes } from '../json/document.js'
import { MemberCursor } from '../json/members.js'
import { sameValue } from '../json/same-value.js'

/**
 * Whether two versions of a document say the same, their revisions and the way they are spelled aside. Attachments are
 * compared by content type and digest; one without a digest is taken to differ.
 *
 * @param wanted with its attachments inline
 * @param current with stubs
 */
export function sameContent(wanted: DocumentBytes, current: DocumentBytes): boolean {
  if (!sameValue(bodyOf(wanted), bodyOf(current))) return false
  const a = attachmentsOf(wanted)
  const b = attachmentsOf(current)
  if (a.size !== b.size) return false
  for (const [name, { contentType, digest }] of a) {
    const other = b.get(name)
    if (!digest || digest !== other?.digest || contentType !== other.contentType) return false
  }
  return true
}

function attachmentsOf({ bytes, attachments }: DocumentBytes) {
  const found = new Map<string, { contentType?: string; digest?: string }>()
  if (!attachments) return found
  const names = new MemberCursor(bytes, attachments.start)
  while (names.next()) {
    const attachment: { contentType?: string; digest?: string } = {}
    const cursor = new MemberCursor(bytes, names.valueStart)
    while (cursor.next()) {
      const key = cursor.key()
      if (key === 'content_type') attachment.contentType = cursor.string()
      else if (key === 'digest') attachment.digest = cursor.string()
    }
    found.set(names.key(), attachment)
  }
  return found
}
