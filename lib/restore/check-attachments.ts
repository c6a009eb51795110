import { cutText, MOST } from '../bytes/cut-text.js'
import { attachmentsIn } from '../json/attachments.js'
import { type DocumentBytes, InvalidDocumentError } from '../json/document.js'
import { QUOTE } from '../json/json-bytes.js'
import type { Steps } from '../waits/steps.js'

const OBJECT = 0x7b
const LIST = 0x5b
/** The first byte of `false`. */
const FALSE = 0x66

/** Checks for attachments that make CouchDB refuse the whole request. @throws InvalidDocumentError */
export function* checkAttachments(document: DocumentBytes): Steps<void> {
  const { bytes, id } = document
  for (const { name, start, members: cursor } of attachmentsIn(document)) {
    const refuse = (problem: string) =>
      new InvalidDocumentError(
        `attachment "${cutText(name, MOST.name)}" of "${cutText(id, MOST.name)}" ${problem}`
      )
    if (bytes[start] !== OBJECT) throw refuse('is not an object')
    let complete = false
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

/** Returns whether an attachment has no data, or says so: CouchDB then keeps what it has of that name. */
export function* hasStub(document: DocumentBytes): Steps<boolean> {
  for (const { members } of attachmentsIn(document)) {
    let [data, stub] = [false, false]
    while (members.next()) {
      const name = members.key()
      if (name === 'data') data = document.bytes[members.valueStart] === QUOTE
      else if (name === 'stub') stub = document.bytes[members.valueStart] !== FALSE
    }
    if (stub || !data) return true
    yield
  }
  return false
}
