import type { DocumentBytes } from './document.js'
import { decodeString, decodeValue, MemberCursor } from './members.js'

/** The content type that CouchDB gives to attachments without one. */
export const DEFAULT_CONTENT_TYPE = 'application/octet-stream'

interface AttachmentJson {
  name: string
  /** Offsets of the name as it is spelled, quotes included. */
  keyStart: number
  keyEnd: number
  /** Offset of its value, which is an object but in an upload that was not checked. */
  start: number
  members: MemberCursor
}

/** Members that tell of an attachment's bytes, as CouchDB spells them. */
export interface StubMembers {
  content_type?: unknown
  length?: unknown
  digest?: unknown
  encoding?: unknown
  encoded_length?: unknown
}

const OF_STUB = new Set(['content_type', 'length', 'digest', 'encoding', 'encoded_length'])

/** Yields the attachments of a document, in the order in which they stand there. */
export function* attachmentsIn({ bytes, attachments }: DocumentBytes): Generator<AttachmentJson> {
  if (!attachments) return
  const names = new MemberCursor(bytes, attachments.start)
  while (names.next()) {
    const { keyStart, keyEnd, valueStart: start } = names
    const name = decodeString(bytes, keyStart, keyEnd)
    yield { name, keyStart, keyEnd, start, members: new MemberCursor(bytes, start) }
  }
}

/** Reads what an attachment's members tell of its bytes. Calls `onMember` while the cursor stands there. */
export function readStub(members: MemberCursor, onMember: (name: string) => void): StubMembers {
  const read: Record<string, unknown> = {}
  while (members.next()) {
    const name = members.key()
    if (OF_STUB.has(name)) read[name] = decodeValue(members.bytes, members.valueStart, members.valueEnd)
    onMember(name)
  }
  return read
}
