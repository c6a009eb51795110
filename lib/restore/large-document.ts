import { GrowingBuffer } from '../bytes/growing-buffer.js'
import { STORED_DEPTH } from '../couch/json-rows.js'
import type { AttachmentPart } from '../couch/multipart.js'
import { SpoolDamagedError } from '../errors.js'
import { DEFAULT_CONTENT_TYPE } from '../json/attachments.js'
import { type DocumentBytes, documentSteps, InvalidDocumentError, readDocument } from '../json/document.js'
import { BACKSLASH, QUOTE } from '../json/json-bytes.js'
import {
  type JsonAction,
  type JsonKind,
  type JsonPath,
  JsonScanner,
  type JsonVisitor,
  LongNameError
} from '../json/scanner.js'
import { inSharedTurns, inTurns, type Steps, turnAfter } from '../waits/steps.js'

/** Gives bytes of a file by their position, as Node.js' FileHandle does. */
interface ReadableFile {
  read(buffer: Buffer, offset: number, length: number, position: number): Promise<{ bytesRead: number }>
}

/** Bytes of a file, the last not included. */
export interface FileRange {
  file: ReadableFile
  from: number
  to: number
}

/** A document too large for memory, whose JSON is in a file. Valid until its memory is used again. */
export interface LargeDocument {
  /** The document with `"follows":true` and the length in place of each attachment's data. */
  head: DocumentBytes
  parts: LargeAttachment[]
  /** Why it cannot be restored; `head` is its id alone then. */
  problem?: InvalidDocumentError
}

interface LargeAttachment extends Omit<AttachmentPart, 'contentType'> {
  /** `null` where it is no string: CouchDB takes lists. */
  contentType: string | null
  /** Members that are sent with the data, as JSON. */
  stub: string
  /** Streams the data as they stand in the JSON: base64, without the quotes. */
  openText: () => AsyncIterable<Buffer>
}

/** Bytes of a document without its attachments' data. CouchDB's own limit is 8 MB by default. */
const MAX_HEAD = 16 * 1024 * 1024
/** Bytes counted for an attachment beside its texts; all together must not pass {@link MAX_HEAD}. */
const ATTACHMENT_BYTES = 512
const READ_BYTES = 192 * 1024
/** Attachments in one step. */
const STEP = 500

/** Thrown for a document that takes more memory than one may. It can still be named. */
export class LargeHeadError extends InvalidDocumentError {}

const tooLarge = () =>
  new LargeHeadError(`a document takes more than ${MAX_HEAD} bytes outside its attachments' data`)

/** Makes memory for the heads of large documents, one at a time. */
export const headMemory = () => new GrowingBuffer(MAX_HEAD, tooLarge)

/** Finds a document's attachments in a file. Its head stays in `memory`. @throws InvalidDocumentError */
export async function indexLargeDocument(range: FileRange, memory = headMemory()): Promise<LargeDocument> {
  const visitor = new LargeVisitor(range, memory)
  // Its depth was checked, if it came with an upload.
  const scanner = new JsonScanner(visitor, { maxDepth: STORED_DEPTH, maxKey: MAX_HEAD })
  try {
    for await (const piece of inSharedTurns(readRange(range))) {
      visitor.chunkStart = scanner.offset - piece.byteOffset
      scanner.write(piece)
    }
    scanner.end()
  } catch (error) {
    throw error instanceof LongNameError ? tooLarge() : error
  }
  const json = await inTurns(visitor.head())
  await turnAfter(json)
  const head = await inTurns(documentSteps(json))
  // The document is written by its own URL, which cannot spell anything else.
  if (!head.id.isWellFormed())
    throw new InvalidDocumentError(`"_id" "${head.id.slice(0, 100)}" is not Unicode`)
  return { head, parts: [...visitor.attachments.values()] }
}

/** Reads only the id of a document for which {@link indexLargeDocument} has thrown `problem`. */
export async function nameLargeDocument(
  range: FileRange,
  memory: GrowingBuffer,
  problem: LargeHeadError
): Promise<LargeDocument> {
  memory.clear()
  let separator = '{'
  const scanner = new JsonScanner(
    {
      begin([name]) {
        if (name === undefined) return 'enter'
        if (name !== '_id') return 'skip'
        memory.add(`${separator}"_id":`)
        separator = ','
        return 'stream'
      },
      bytes: (piece) => memory.add(piece),
      end() {}
    },
    { maxDepth: STORED_DEPTH, maxKey: MAX_HEAD }
  )
  try {
    for await (const piece of inSharedTurns(readRange(range))) scanner.write(piece)
  } catch (error) {
    // CouchDB sends the id first.
    if (!(error instanceof LongNameError)) throw error
  }
  memory.add(separator === '{' ? '{}' : '}')
  return unrestorable(memory.bytes, problem)
}

/** @param head the document with its id alone */
export const unrestorable = (head: Buffer, problem: InvalidDocumentError): LargeDocument => ({
  head: readDocument(head),
  parts: [],
  problem
})

/** Yields pieces of {@link READ_BYTES}, the last one shorter. Each is valid until the next is asked for. */
async function* readRange({ file, from, to }: FileRange): AsyncGenerator<Buffer> {
  const buffer = Buffer.allocUnsafeSlow(Math.min(READ_BYTES, to - from))
  for (let at = from; at < to; ) {
    let filled = 0
    const wanted = Math.min(buffer.length, to - at)
    while (filled < wanted) {
      const { bytesRead } = await file.read(buffer, filled, wanted - filled, at + filled)
      if (bytesRead === 0) throw new SpoolDamagedError('a document was cut off')
      filled += bytesRead
    }
    yield buffer.subarray(0, wanted)
    at += wanted
  }
}

async function* decodeBase64(range: FileRange): AsyncGenerator<Buffer> {
  let rest = ''
  for await (const piece of readRange(range)) {
    // JSON may escape a solidus.
    const text = rest + piece.toString('latin1').replaceAll('\\', '')
    const whole = text.length - (text.length % 4)
    rest = text.slice(whole)
    if (whole > 0) yield Buffer.from(text.slice(0, whole), 'base64')
  }
  if (rest !== '') yield Buffer.from(rest, 'base64')
}

/** Reads a content type; an empty one is the default. @throws InvalidDocumentError */
function contentTypeOf(json: string, name: string): string | null {
  const type: unknown = JSON.parse(json)
  if (Array.isArray(type)) return null
  if (typeof type !== 'string')
    throw new InvalidDocumentError(`content_type of attachment "${name}" must be a string`)
  return type || DEFAULT_CONTENT_TYPE
}

/** The place of an attachment's data, quotes included, and what was found in them so far. */
interface FoundData {
  from: number
  to: number
  padding: number
  escapes: number
  /** The last character was one. */
  escaped: boolean
}

const SOLIDUS = 0x2f
const EQUALS = 0x3d
/** Returns whether a character may stand in a string of base64 beside its own. */
const isBeside = (c: number) => c === EQUALS || c === QUOTE || c === BACKSLASH

const BASE64 = new Uint8Array(256)
for (const c of 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/')
  BASE64[c.charCodeAt(0)] = 1

class LargeVisitor implements JsonVisitor {
  /** Attachments by name: the last of several with one name counts. */
  readonly attachments = new Map<string, LargeAttachment>()
  /** The current chunk's offset in the range, less its `byteOffset`. */
  chunkStart = 0
  readonly #range: FileRange
  readonly #memory: GrowingBuffer
  #separator = '{'
  #stub: string[] = []
  #data: FoundData | undefined
  #contentType: string | null = DEFAULT_CONTENT_TYPE
  #pieces: Buffer[] = []
  /** Bytes that the texts of attachments take. */
  #size = 0

  constructor(range: FileRange, memory: GrowingBuffer) {
    this.#range = range
    this.#memory = memory
    memory.clear()
  }

  *head(): Steps<Buffer> {
    if (this.attachments.size > 0) this.#addMember('_attachments')
    let separator = '{'
    let count = 0
    for (const { name, length, stub } of this.attachments.values()) {
      const members = `${stub}${stub && ','}"follows":true,"length":${length}`
      this.#memory.add(`${separator}${JSON.stringify(name)}:{${members}}`)
      separator = ','
      if (++count % STEP === 0) yield
    }
    this.#memory.add(this.attachments.size > 0 ? '}}' : this.#separator === '{' ? '{}' : '}')
    return this.#memory.bytes
  }

  #addMember(name: string): void {
    this.#memory.add(`${this.#separator}${JSON.stringify(name)}:`)
    this.#separator = ','
  }

  begin(path: JsonPath, kind: JsonKind): JsonAction {
    if (path.length === 0) return 'enter'
    if (path[0] !== '_attachments') {
      this.#addMember(String(path[0]))
      return 'stream'
    }
    if (path.length < 3 && kind !== 'object') {
      throw new InvalidDocumentError(`"${path.join('.').slice(0, 100)}" must be an object`)
    }
    if (path.length === 3) {
      if (path[2] === 'data') {
        if (kind !== 'string')
          throw new InvalidDocumentError(`data of attachment "${path[1]}" must be a string`)
        // The last of several counts.
        this.#data = undefined
      }
      return 'stream'
    }
    return 'enter'
  }

  bytes(piece: Uint8Array, path: JsonPath): void {
    if (path.length === 1) this.#memory.add(piece)
    else if (path[2] === 'data') this.#addData(piece, path)
    else {
      this.#claim(piece.length)
      this.#pieces.push(Buffer.from(piece))
    }
  }

  #claim(bytes: number): void {
    this.#size += bytes
    if (this.#size > MAX_HEAD) throw tooLarge()
  }

  end(path: JsonPath): void {
    if (path.length === 3) this.#endAttachmentMember(path)
    else if (path.length === 2) this.#endAttachment(String(path[1]))
  }

  #addData(piece: Uint8Array, path: JsonPath): void {
    const from = this.chunkStart + piece.byteOffset
    this.#data ??= { from, to: from, padding: 0, escapes: 0, escaped: false }
    const data = this.#data
    data.to = from + piece.length
    for (const c of piece) {
      const wrong = BASE64[c] === 1 ? data.padding > 0 : !isBeside(c)
      if (wrong || (data.escaped && c !== SOLIDUS))
        throw new InvalidDocumentError(`data of attachment "${path[1]}" is not base64`)
      data.escaped = c === BACKSLASH
      if (c === BACKSLASH) data.escapes++
      else if (c === EQUALS) data.padding++
    }
  }

  #endAttachmentMember(path: JsonPath): void {
    if (path[2] === 'data') return
    const text = Buffer.concat(this.#pieces.splice(0)).toString()
    if (path[2] === 'content_type') this.#contentType = contentTypeOf(text, String(path[1]))
    // Leave out the digest: it may be that of a compressed form, which CouchDB would compare with what we send.
    if (path[2] === 'content_type' || path[2] === 'revpos')
      this.#stub.push(`${JSON.stringify(path[2])}:${text}`)
  }

  #endAttachment(name: string): void {
    if (!this.#data) throw new InvalidDocumentError(`attachment "${name}" has no data`)
    // Leave out the quotes and the padding.
    const from = this.#data.from + 1
    const to = this.#data.to - 1
    const characters = to - from - this.#data.padding - this.#data.escapes
    if (this.#data.padding > 2 || characters % 4 === 1) {
      throw new InvalidDocumentError(`data of attachment "${name}" is not base64`)
    }
    if (!name.isWellFormed())
      throw new InvalidDocumentError(`the name of attachment "${name}" is not Unicode`)
    const length = Math.floor((characters * 3) / 4)
    this.#claim(name.length + ATTACHMENT_BYTES)
    // The last one of a name counts, and so does its place.
    this.attachments.delete(name)
    const data = { file: this.#range.file, from: this.#range.from + from, to: this.#range.from + to }
    this.attachments.set(name, {
      name,
      contentType: this.#contentType,
      length,
      stub: this.#stub.join(','),
      open: () => decodeBase64(data),
      openText: () => readRange(data)
    })
    this.#data = undefined
    this.#stub = []
    this.#contentType = DEFAULT_CONTENT_TYPE
  }
}
