import type { DocumentBytes } from './document.js'
import { decodeString, decodeValue, MemberCursor } from './members.js'

/** The content type that CouchDB gives to attachments without one. */
export const DEFAULT_CONTENT_TYPE = 'application/octet-stream'

interface AttachmentJson {
  name: string
  /** Offsets of the name as it is spelled, quotes included. */
  keyStart: number
  keyEnd: number
  /** Offset of the value: an object, except in an upload that was not checked. */
  start: number
  members: MemberCursor
}

const STUB_MEMBERS = ['content_type', 'length', 'digest', 'encoding', 'encoded_length'] as const

/** Members of an attachment that describe its bytes, as CouchDB spells them. */
export type StubMembers = { [name in (typeof STUB_MEMBERS)[number]]?: unknown }

const STUB_NAMES: ReadonlySet<string> = new Set(STUB_MEMBERS)

/** Yields the attachments of a document in their order. */
export function* attachmentsIn({ bytes, attachments }: DocumentBytes): Generator<AttachmentJson> {
  if (!attachments) return
  const names = new MemberCursor(bytes, attachments.start)
  while (names.next()) {
    const { keyStart, keyEnd, valueStart: start } = names
    const name = decodeString(bytes, keyStart, keyEnd)
    yield { name, keyStart, keyEnd, start, members: new MemberCursor(bytes, start) }
  }
}

/** Reads the members that describe an attachment's bytes. Calls `onMember` at each member. */
export function readStub(members: MemberCursor, onMember: (name: string) => void): StubMembers {
  const read: Record<string, unknown> = {}
  while (members.next()) {
    const name = members.key()
    if (STUB_NAMES.has(name)) read[name] = decodeValue(members.bytes, members.valueStart, members.valueEnd)
    onMember(name)
  }
  return read
}
