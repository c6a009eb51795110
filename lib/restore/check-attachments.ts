import { cutText, MOST } from '../bytes/cut-text.js'
import { type DocumentBytes, InvalidDocumentError } from '../json/document.js'
import { MemberCursor } from '../json/members.js'
import type { Steps } from '../waits/steps.js'

const OBJECT = 0x7b
const LIST = 0x5b
const QUOTE = 0x22

/**
 * Checks what a document of an upload says of its attachments: CouchDB answers some of it with an internal error, for
 * the whole request.
 *
 * @throws InvalidDocumentError
 */
export function* checkAttachments({ bytes, id, attachments }: DocumentBytes): Steps<void> {
  if (!attachments) return
  const names = new MemberCursor(bytes, attachments.start)
  while (names.next()) {
    const refuse = (problem: string) =>
      new InvalidDocumentError(
        `attachment "${cutText(names.key(), MOST.name)}" of "${cutText(id, MOST.name)}" ${problem}`
      )
    if (bytes[names.valueStart] !== OBJECT) throw refuse('is not an object')
    let complete = false
    const cursor = new MemberCursor(bytes, names.valueStart)
    while (cursor.next()) {
      const key = cursor.key()
      if (key === 'follows') throw refuse('says that its data follows')
      if (key !== 'data' && key !== 'content_type' && key !== 'stub') continue
      // CouchDB takes lists for a type.
      const isList = key === 'content_type' && bytes[cursor.valueStart] === LIST
      if (key !== 'stub' && !isList && bytes[cursor.valueStart] !== QUOTE)
        throw refuse(`has a "${key}" that is not a string`)
      if (key !== 'content_type') complete = true
    }
    if (!complete) throw refuse('has no data')
    yield
  }
}
