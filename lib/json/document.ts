import { cutText, MOST } from '../bytes/cut-text.js'
import { toBuffer } from '../bytes/views.js'
import { atOnce, type Steps } from '../waits/steps.js'
import { eachElement, KnownNames, MemberCursor } from './members.js'
import { sameValue } from './same-value.js'

/** Offsets of a member: of its key, and of its value. */
export interface MemberBounds {
  keyStart: number
  start: number
  end: number
}

/** A CouchDB document's bytes, with the members that CouchDB gives a meaning to. */
export interface DocumentBytes {
  bytes: Buffer
  id: string
  rev: string | undefined
  /** Value of the `type` member, when it is a string. */
  type: string | undefined
  deleted: boolean
  /** The `_attachments` member, unless it is empty. */
  attachments: MemberBounds | undefined
  /** How many conflicting revisions `_conflicts` names. */
  conflicts: number
}

/** Bytes of a document beyond which it comes in pieces, and is not put together in memory. */
export const LARGE_DOCUMENT = 4 * 1024 * 1024

/** Thrown for a document that CouchDB cannot store. The message names the field. */
export class InvalidDocumentError extends Error {
  override readonly name = 'InvalidDocumentError'

  constructor(message: string) {
    super(cutText(message, MOST.message))
  }
}

/** Members that describe revisions, which are never backed up or restored. */
const REVISION_MEMBERS = new Set([
  '_conflicts',
  '_deleted_conflicts',
  '_local_seq',
  '_revisions',
  '_revs_info'
])
const UNIQUE_MEMBERS = ['_id', '_rev', '_deleted', '_attachments']
const READ = new KnownNames([...UNIQUE_MEMBERS, '_conflicts', 'type'])
/** Members that {@link rewrite} may drop or replace. */
const REWRITTEN = new KnownNames([...UNIQUE_MEMBERS, ...REVISION_MEMBERS])
const ID = new KnownNames(['_id'])
/** CouchDB accepts more revisions than it makes: with `new_edits: false`, a number, a dash and any text. */
const REV = /^[0-9]+-/

/** Reads the members of a valid JSON object that CouchDB gives a meaning to. @throws InvalidDocumentError */
export const readDocument = (bytes: Uint8Array): DocumentBytes => atOnce(documentSteps(bytes))

/** Does in steps what {@link readDocument} does, for documents that may be long. */
export function* documentSteps(bytes: Uint8Array): Steps<DocumentBytes> {
  const document: DocumentBytes = {
    bytes: toBuffer(bytes),
    id: '',
    rev: undefined,
    type: undefined,
    deleted: false,
    attachments: undefined,
    conflicts: 0
  }
  /** A bit for each member that must not come twice. */
  let seen = 0
  const cursor = new MemberCursor(bytes)
  while (cursor.next()) {
    while (!cursor.reachEnd()) yield
    const key = cursor.keyOf(READ)
    if (key === undefined) continue
    if (key === 'type') document.type = cursor.string()
    const unique = UNIQUE_MEMBERS.indexOf(key)
    if (unique >= 0) {
      if ((seen & (1 << unique)) !== 0) throw new InvalidDocumentError(`a document has two "${key}" members`)
      seen |= 1 << unique
    }
    if (key === '_id') document.id = validId(cursor.string())
    else if (key === '_rev') {
      document.rev = cursor.string()
      if (document.rev === undefined || !REV.test(document.rev)) {
        throw new InvalidDocumentError(`document "${shown(document.id)}": "_rev" is not a revision`)
      }
    } else if (key === '_deleted') document.deleted = bytes[cursor.valueStart] === 0x74
    else if (key === '_attachments') document.attachments = boundsOfAttachments(cursor)
    else if (key === '_conflicts') document.conflicts = countElements(cursor)
  }
  if (document.id === '') throw new InvalidDocumentError('a document has no "_id"')
  if (cursor.end < bytes.length) document.bytes = document.bytes.subarray(0, cursor.end)
  return document
}

/** Returns the id of a valid document: fast, since CouchDB sends it first. */
export function documentId(bytes: Uint8Array): string {
  const cursor = new MemberCursor(bytes)
  while (cursor.next()) if (cursor.keyOf(ID)) return cursor.string() ?? ''
  return ''
}

/** Returns the id of a document that replication copies. @throws InvalidDocumentError for any other */
function validId(id: string | undefined): string {
  if (id === undefined) throw new InvalidDocumentError('a document\'s "_id" is not a string')
  if (id === '') throw new InvalidDocumentError('a document\'s "_id" is empty')
  if (id.startsWith('_') && !/^_design\/./s.test(id)) {
    throw new InvalidDocumentError(`"_id" must not begin with an underscore: "${shown(id)}"`)
  }
  return id
}

function countElements({ bytes, valueStart }: MemberCursor): number {
  let count = 0
  if (bytes[valueStart] === 0x5b) eachElement(bytes, valueStart, () => count++)
  return count
}

function boundsOfAttachments(cursor: MemberCursor): MemberBounds | undefined {
  if (cursor.bytes[cursor.valueStart] !== 0x7b) return undefined
  if (!new MemberCursor(cursor.bytes, cursor.valueStart).next()) return undefined
  return { keyStart: cursor.keyStart, start: cursor.valueStart, end: cursor.valueEnd }
}

/** Returns the document, as pieces, with another revision or none, and without members that describe revisions. */
export function piecesWithRevision(document: DocumentBytes, rev: string | null): Steps<Buffer[]> {
  return rewrite(document, (key) => key === '_rev' || REVISION_MEMBERS.has(key), rev)
}

/** Returns the document without members that describe revisions, except `_rev`; unchanged if it has none. */
export function* withoutRevisionMembers(document: DocumentBytes): Steps<Buffer> {
  if (document.conflicts === 0) return document.bytes
  const pieces = yield* piecesWithRevision(document, document.rev ?? null)
  yield
  return Buffer.concat(pieces)
}

/** Returns a live document, as pieces, without id, revision and attachments. */
export function bodyOf(document: DocumentBytes): Steps<Buffer[]> {
  return rewrite(document, isBesideBody, null)
}

/** Returns whether live documents say the same besides id, revision and attachments. */
export function* sameBody(a: DocumentBytes, b: DocumentBytes): Steps<boolean> {
  const [one, other] = [new MemberCursor(a.bytes), new MemberCursor(b.bytes)]
  for (;;) {
    const [key, otherKey] = [yield* nextOfBody(one), yield* nextOfBody(other)]
    if (key !== otherKey) return false
    if (key === undefined) return true
    if (!(yield* sameValue(valueAt(one), valueAt(other)))) return false
  }
}

/** Returns how many bytes a live document's members take, besides id, revision and attachments. */
export function* bodyBytes({ bytes }: DocumentBytes): Steps<number> {
  const cursor = new MemberCursor(bytes)
  let sum = 0
  while ((yield* nextOfBody(cursor)) !== undefined) sum += cursor.valueEnd - cursor.keyStart
  return sum
}

/** Goes to the next member besides id, revision and attachments. @returns its name; `undefined` after the last */
export function* nextOfBody(cursor: MemberCursor): Steps<string | undefined> {
  while (cursor.next()) {
    while (!cursor.reachEnd()) yield
    const key = cursor.key()
    if (!isBesideBody(key)) return key
  }
  return undefined
}

const isBesideBody = (key: string) => UNIQUE_MEMBERS.includes(key) || REVISION_MEMBERS.has(key)

/** Returns a view of the value that a cursor has reached. */
export const valueAt = ({ bytes, valueStart, valueEnd }: MemberCursor) =>
  toBuffer(bytes).subarray(valueStart, valueEnd)

/** Returns a document as views of it, without the members to drop, and with `rev` after the id unless it is `null`. */
function* rewrite(
  { bytes }: DocumentBytes,
  drop: (key: string) => boolean,
  rev: string | null
): Steps<Buffer[]> {
  const cursor = new MemberCursor(bytes)
  const pieces: Buffer[] = [bytes.subarray(0, bytes.indexOf(0x7b) + 1)]
  /** Bounds of a run of members that are kept. */
  let runStart = -1
  let runEnd = -1
  const flush = () => {
    if (runStart < 0) return
    if (pieces.length > 1) pieces.push(COMMA)
    pieces.push(bytes.subarray(runStart, runEnd))
    runStart = -1
  }
  while (cursor.next()) {
    while (!cursor.reachEnd()) yield
    const key = cursor.keyOf(REWRITTEN)
    if (key !== undefined && drop(key)) {
      flush()
      continue
    }
    if (runStart < 0) runStart = cursor.keyStart
    runEnd = cursor.valueEnd
    if (key === '_id' && rev !== null) {
      flush()
      pieces.push(Buffer.from(`,"_rev":${JSON.stringify(rev)}`))
    }
  }
  flush()
  pieces.push(CLOSE)
  return pieces
}

const shown = (id: string) => cutText(id, MOST.name)

const COMMA = Buffer.from(',')
const CLOSE = Buffer.from('}')

export const isDesign = (id: string): boolean => id.startsWith('_design/')
