import { toBuffer } from '../bytes/views.js'
import { LONG } from '../waits/steps.js'
import { type DocumentBytes, InvalidDocumentError, readDocument } from './document.js'
import { isDigit, QUOTE, ZERO } from './json-bytes.js'
import { decodeString, standsAt } from './members.js'
import { JsonScanner, JsonSyntaxError, SKIP_ALL } from './scanner.js'
import { StringWalk } from './string-walk.js'

const OPEN = 0x7b
const CLOSE = 0x7d
const OPEN_ARRAY = 0x5b
const CLOSE_ARRAY = 0x5d
const COMMA = 0x2c
const COLON = 0x3a
const DASH = 0x2d
const POINT = 0x2e
const UNDERSCORE = 0x5f

/** Levels of nesting that {@link DocumentLine} reads by itself. */
const LEVELS = 256
const LITERALS: Record<number, Uint8Array> = {
  116: Buffer.from('true'),
  102: Buffer.from('false'),
  110: Buffer.from('null')
}

const ID = Buffer.from('_id')
const REV = Buffer.from('_rev')
const TYPE = Buffer.from('type')

/** The id and the revision of a document that fills a line. */
export interface LineDocument {
  /** Bytes of the id; `undefined` where only `id` is set. */
  idBytes: Uint8Array | undefined
  /** The id, where `idBytes` is `undefined`. */
  id: string
  hasRevision: boolean
}

/** Returns the id of a document that was read. */
export const idText = ({ idBytes, id }: LineDocument): string =>
  idBytes ? toBuffer(idBytes).toString('latin1') : id

/**
 * Checks lines that hold a document each. One walk checks a usual line, and finds its id and revision. It accepts
 * nothing that is not JSON, and leaves rare and wrong lines to {@link JsonScanner}, which reports what is wrong.
 * Documents of 800 bytes: 650 MiB/s of processor time, the scanner and a reader of members 175 (Node.js 20).
 */
export class DocumentLine implements LineDocument {
  idBytes: Uint8Array | undefined
  id = ''
  hasRevision = false
  readonly #isObject = new Uint8Array(LEVELS)
  readonly #strings = new StringWalk()
  #idFrom = 0
  #idTo = 0
  #revFrom = 0
  #revTo = 0
  /** Bounds of the `type` member's text, with its quotes. */
  #typeFrom = 0
  #typeTo = 0
  /** Whether the document has other members whose names begin with an underscore. */
  #hasOthers = false

  /**
   * Reads the document between two offsets if it is like most: with id, revision and its own members only.
   * @param bytes valid UTF-8 @returns `undefined` for a document that is rare, wrong or long
   */
  usual(bytes: Buffer, from: number, to: number): DocumentBytes | undefined {
    if (to - from > LONG) return undefined
    if (!this.#walk(bytes, from, to) || this.#hasOthers || !this.#isUsual(bytes)) return undefined
    return {
      bytes: bytes.subarray(from, to),
      id: bytes.toString('latin1', this.#idFrom, this.#idTo),
      rev: bytes.toString('utf8', this.#revFrom, this.#revTo),
      type: this.#typeTo > 0 ? decodeString(bytes, this.#typeFrom, this.#typeTo) : undefined,
      deleted: false,
      attachments: undefined,
      conflicts: 0
    }
  }

  /**
   * Reads the line between two offsets. The result is valid until the next call.
   * @param bytes valid UTF-8 @throws JsonSyntaxError, InvalidDocumentError
   */
  read(bytes: Uint8Array, from: number, to: number): LineDocument {
    if (this.#walk(bytes, from, to) && this.#isUsual(bytes)) {
      this.idBytes = bytes.subarray(this.#idFrom, this.#idTo)
      this.hasRevision = true
      return this
    }
    const line = toBuffer(bytes).subarray(from, to)
    const scanner = new JsonScanner(SKIP_ALL, { maxDepth: Number.POSITIVE_INFINITY })
    scanner.write(line)
    scanner.end()
    if (line[line.findIndex((c) => c > 0x20)] !== OPEN) throw new JsonSyntaxError('not an object', 0)
    const { id, rev } = readDocument(line)
    this.idBytes = undefined
    this.id = id
    this.hasRevision = rev !== undefined
    return this
  }

  /** Returns whether the walk found an id of ASCII that is not reserved, and a valid revision. */
  #isUsual(bytes: Uint8Array): boolean {
    if (this.#idTo <= this.#idFrom || this.#revTo <= this.#revFrom) return false
    for (let i = this.#idFrom; i < this.#idTo; i++) if (bytes[i] >= 0x80) return false
    if (bytes[this.#idFrom] === UNDERSCORE) return false
    let i = this.#revFrom
    while (isDigit(bytes[i])) i++
    return i > this.#revFrom && bytes[i] === DASH && i < this.#revTo
  }

  /**
   * Notes a member of the document. @param name offset of its name @param value offset of its value
   * @returns `false` for a member that is rare or wrong
   */
  #noteMember(bytes: Uint8Array, name: number, value: number, to: number): boolean {
    const strings = this.#strings
    // A name with escapes may be any name.
    if (strings.lastEscape > name) return false
    const first = bytes[name + 1]
    if (first !== UNDERSCORE && first !== TYPE[0]) return true
    const [from, end] = [name + 1, value - 2]
    if (standsAt(bytes, from, end, TYPE)) {
      this.#typeFrom = value
      this.#typeTo = bytes[value] === QUOTE ? strings.endOf(bytes, value, to) : 0
      return true
    }
    if (first !== UNDERSCORE) return true
    const [isId, isRev] = [standsAt(bytes, from, end, ID), standsAt(bytes, from, end, REV)]
    if (!isId && !isRev) {
      this.#hasOthers = true
      return true
    }
    if (bytes[value] !== QUOTE || (isId ? this.#idTo : this.#revTo) > 0) return false
    const valueEnd = strings.endOf(bytes, value, to)
    if (valueEnd === 0 || strings.lastEscape > value) return false
    if (isId) [this.#idFrom, this.#idTo] = [value + 1, valueEnd - 1]
    else [this.#revFrom, this.#revTo] = [value + 1, valueEnd - 1]
    return true
  }

  /** Walks over an object that fills the line. @returns `false` for a line that is rare or wrong */
  #walk(bytes: Uint8Array, from: number, to: number): boolean {
    const isObject = this.#isObject
    const strings = this.#strings
    this.#idTo = this.#idFrom = this.#revTo = this.#revFrom = this.#typeTo = 0
    this.#hasOthers = false
    if (to - from < 2 || bytes[from] !== OPEN || bytes[to - 1] !== CLOSE) return false
    strings.begin(bytes)
    let depth = 1
    isObject[0] = 1
    let i = from + 1
    /** Whether a name comes next, and not a value. */
    let name = true
    if (bytes[i] === CLOSE) return false
    for (;;) {
      if (name) {
        if (bytes[i] !== QUOTE) return false
        const start = i
        i = strings.endOf(bytes, i, to)
        if (i === 0 || bytes[i] !== COLON) return false
        i++
        if (depth === 1 && !this.#noteMember(bytes, start, i, to)) return false
        name = false
      }
      const c = bytes[i]
      if (c === QUOTE) {
        i = strings.endOf(bytes, i, to)
        if (i === 0) return false
      } else if (c === OPEN || c === OPEN_ARRAY) {
        if (depth === LEVELS) return false
        i++
        if (c === OPEN) {
          if (bytes[i] === CLOSE) i++
          else {
            isObject[depth++] = 1
            name = true
            continue
          }
        } else if (bytes[i] === CLOSE_ARRAY) i++
        else {
          isObject[depth++] = 0
          continue
        }
      } else {
        i = isDigit(c) || c === DASH ? endOfNumber(bytes, i) : endOfLiteral(bytes, i)
        if (i === 0) return false
      }
      for (;;) {
        const after = bytes[i]
        if (after === COMMA) {
          i++
          name = isObject[depth - 1] === 1
          break
        }
        if (after !== (isObject[depth - 1] === 1 ? CLOSE : CLOSE_ARRAY)) return false
        i++
        if (--depth === 0) return i === to
      }
      if (i >= to) return false
    }
  }
}

/** Returns the offset after a number without an exponent, or 0. */
function endOfNumber(bytes: Uint8Array, start: number): number {
  let i = bytes[start] === DASH ? start + 1 : start
  if (!isDigit(bytes[i])) return 0
  if (bytes[i] === ZERO) i++
  else while (isDigit(bytes[i])) i++
  if (bytes[i] === POINT) {
    if (!isDigit(bytes[++i])) return 0
    while (isDigit(bytes[i])) i++
  }
  return i
}

function endOfLiteral(bytes: Uint8Array, start: number): number {
  const literal = LITERALS[bytes[start]]
  if (literal === undefined) return 0
  for (let k = 1; k < literal.length; k++) if (bytes[start + k] !== literal[k]) return 0
  return start + literal.length
}

/** Returns whether an error says that a line does not hold a document. */
export const isOfLine = (error: unknown): error is Error =>
  error instanceof JsonSyntaxError || error instanceof InvalidDocumentError
