import { BACKSLASH, ESCAPABLE, isDigit, QUOTE, ZERO } from './json-bytes.js'
import { decodeString } from './members.js'

/** Thrown for bytes that are not JSON. `offset` counts bytes from the start of the text. */
export class JsonSyntaxError extends Error {
  override readonly name = 'JsonSyntaxError'
  readonly offset: number
  /** Whether the text ended before the JSON value did. */
  readonly truncated: boolean

  constructor(reason: string, offset: number, truncated = false) {
    super(`${reason} at byte ${offset}`)
    this.offset = offset
    this.truncated = truncated
  }
}

/** Thrown for a member name of more bytes than the scanner may hold. */
export class LongNameError extends JsonSyntaxError {}

/** Thrown for JSON that nests deeper than the scanner takes. */
export class JsonDepthError extends JsonSyntaxError {
  constructor(depth: number, offset: number) {
    super(`nested deeper than ${depth} levels`, offset)
  }
}

export type JsonKind = 'object' | 'array' | 'string' | 'number' | 'literal'

/** The path of a value: member names of objects, and {@link ELEMENT} for an element of an array. */
export type JsonPath = readonly (string | typeof ELEMENT)[]

/** Stands in a path for any element of an array. */
export const ELEMENT = 0

/**
 * - `enter`: report what an object or array holds (other kinds: the same as `skip`)
 * - `stream`: hand over the value's bytes as they arrive
 * - `skip`: check the syntax only
 */
export type JsonAction = 'enter' | 'stream' | 'skip'

/** Receives what a {@link JsonScanner} finds. `path` is reused between calls: copy it to keep it. */
export interface JsonVisitor {
  /** Called where a value begins: the root, and everything directly inside an entered value. */
  begin(path: JsonPath, kind: JsonKind): JsonAction
  /** Called with the next bytes of a streamed value, a view of the chunk that is being written. */
  bytes(piece: Uint8Array, path: JsonPath): void
  /** Called when an entered or streamed value has ended. */
  end(path: JsonPath): void
}

/** Has only the syntax checked. */
export const SKIP_ALL: JsonVisitor = { begin: () => 'skip', bytes() {}, end() {} }

/** States up to `After` stand between two tokens. */
enum State {
  Value,
  ValueOrClose,
  Key,
  KeyOrClose,
  Colon,
  After,
  String,
  Escape,
  Hex,
  Utf8,
  Literal,
  Minus,
  Zero,
  Integer,
  Point,
  Fraction,
  Exponent,
  ExponentSign,
  ExponentDigits,
  Done
}

const MAX_KEY_BYTES = 64 * 1024
/** Most levels of nesting, one byte each. No JSON of 16 MiB, the most that a restore takes, is deeper. */
export const MAX_DEPTH = 8 * 1024 * 1024
/** Levels that have room from the start. */
const USUAL_DEPTH = 256

/** 1 for every ASCII byte that stands for itself in a string. */
const PLAIN = new Uint8Array(256)
for (let c = 0x20; c < 0x80; c++) PLAIN[c] = c === QUOTE || c === BACKSLASH ? 0 : 1

const LITERALS: Record<number, string> = { 116: 'true', 102: 'false', 110: 'null' }

const isSpace = (c: number) => c === 0x20 || c === 0x0a || c === 0x0d || c === 0x09
const isHex = (c: number) => isDigit(c) || (c >= 0x41 && c <= 0x46) || (c >= 0x61 && c <= 0x66)

/** Returns the offset after a string of ASCII and short escapes; 0 for other strings, or if it is cut. */
function endOfPlainString(chunk: Uint8Array, start: number): number {
  const { length } = chunk
  let i = start + 1
  for (;;) {
    while (i < length && PLAIN[chunk[i]] === 1) i++
    if (i + 1 >= length) return 0
    if (chunk[i] === QUOTE) return i + 1
    if (chunk[i] !== BACKSLASH || ESCAPABLE[chunk[i + 1]] === 0) return 0
    i += 2
  }
}

/** Returns the offset after a natural number or a literal; 0 for other scalars, or if it may be cut. */
function endOfPlainScalar(chunk: Uint8Array, start: number): number {
  const first = chunk[start]
  let i = start + 1
  if (isDigit(first)) {
    if (first !== ZERO) while (i < chunk.length && isDigit(chunk[i])) i++
  } else {
    const literal = LITERALS[first]
    if (literal === undefined) return 0
    for (let k = 1; k < literal.length; k++) if (chunk[i++] !== literal.charCodeAt(k)) return 0
  }
  const next = chunk[i]
  return next === 0x2c || next === 0x7d || next === 0x5d ? i : 0
}

/**
 * Scans JSON (RFC 8259) strictly and incrementally. The visitor chooses which values to walk into, and which to get as
 * bytes. Holds one byte for each level. @throws JsonSyntaxError, with the offset of the first wrong byte
 */
export class JsonScanner {
  readonly #visitor: JsonVisitor
  readonly #maxDepth: number
  readonly #maxKey: number
  /** One byte for each open container: 1 for an object, 0 for an array. */
  #isObject: Uint8Array
  readonly #path: (string | typeof ELEMENT)[] = []
  #depth = 0
  /** How many containers, from the root, the visitor walks into. */
  #entered = 0
  #state: State = State.Value
  #offset = 0
  /** Depth at which the streamed value stands, or -1. */
  #streamDepth = -1
  /** Where the part of the streamed value that the visitor has not got begins in the current chunk. */
  #streamFrom = 0
  #inKey = false
  /** Where the key being read begins in the current chunk, or -1 when it is not wanted. */
  #keyFrom = -1
  #keyPieces: Buffer[] = []
  #keyBytes = 0
  #literal = ''
  #literalAt = 0
  #hexLeft = 0
  #utf8Left = 0
  #utf8Low = 0
  #utf8High = 0

  /** @param options `maxDepth`: most levels; `maxKey`: most bytes of a member name that is reported */
  constructor(visitor: JsonVisitor, options: { maxDepth?: number; maxKey?: number } = {}) {
    this.#visitor = visitor
    this.#maxDepth = options.maxDepth ?? MAX_DEPTH
    this.#maxKey = options.maxKey ?? MAX_KEY_BYTES
    this.#isObject = new Uint8Array(Math.min(this.#maxDepth, USUAL_DEPTH))
  }

  /** Returns how many bytes were written. */
  get offset(): number {
    return this.#offset
  }

  /** Returns whether an element of an entered array may come next. */
  get isBeforeElement(): boolean {
    const isBeforeValue = this.#state === State.Value || this.#state === State.ValueOrClose
    return isBeforeValue && this.#depth === this.#entered && this.#isObject[this.#depth - 1] === 0
  }

  /** Passes over an element of the entered array that the caller has read, with the comma after it, if any. */
  passElement(bytes: number, hasComma: boolean): void {
    this.#offset += bytes
    this.#state = hasComma ? State.Value : State.After
  }

  /** Scans the next bytes. */
  write(chunk: Uint8Array): void {
    const length = chunk.length
    let state = this.#state
    let i = 0

    const fail = (reason: string): never => {
      throw new JsonSyntaxError(reason, this.#offset + i)
    }

    /** The offset at which skimming last stopped. The states handle the byte there. */
    let skimmedTo = -1
    while (i < length) {
      if (state <= State.After && this.#depth > this.#entered && i > skimmedTo) {
        i = skimmedTo = this.#skim(chunk, i, state)
        state = this.#state
        if (i === length) break
      }
      const c = chunk[i]
      switch (state) {
        case State.String:
          if (PLAIN[c] === 1) {
            do i++
            while (i < length && PLAIN[chunk[i]] === 1)
          } else if (c === QUOTE) {
            i++
            if (this.#inKey) {
              this.#inKey = false
              this.#endKey(chunk, i)
              state = State.Colon
            } else state = this.#endValue(chunk, i)
          } else if (c === BACKSLASH) {
            i++
            state = State.Escape
          } else if (c < 0x20) fail('control character in a string')
          else {
            if (!this.#beginUtf8(c)) fail('invalid UTF-8')
            i++
            state = State.Utf8
          }
          break

        case State.Utf8:
          if (c < this.#utf8Low || c > this.#utf8High) fail('invalid UTF-8')
          this.#utf8Low = 0x80
          this.#utf8High = 0xbf
          i++
          if (--this.#utf8Left === 0) state = State.String
          break

        case State.Escape:
          if (c === 0x75) {
            this.#hexLeft = 4
            state = State.Hex
          } else if (ESCAPABLE[c] === 1) state = State.String
          else fail('invalid escape')
          i++
          break

        case State.Hex:
          if (!isHex(c)) fail('invalid unicode escape')
          i++
          if (--this.#hexLeft === 0) state = State.String
          break

        case State.After:
          if (isSpace(c)) i++
          else if (c === 0x2c) {
            i++
            state = this.#isObject[this.#depth - 1] === 1 ? State.Key : State.Value
          } else if (c === 0x7d || c === 0x5d) {
            if ((c === 0x7d ? 1 : 0) !== this.#isObject[this.#depth - 1]) fail('mismatched bracket')
            i++
            this.#depth--
            state = this.#endValue(chunk, i)
          } else fail('expected "," or the end of the array or object')
          break

        case State.KeyOrClose:
          if (c === 0x7d) {
            i++
            this.#depth--
            state = this.#endValue(chunk, i)
          } else if (isSpace(c)) i++
          else state = State.Key
          break

        case State.Key:
          if (isSpace(c)) i++
          else if (c === QUOTE) {
            this.#inKey = true
            this.#keyFrom = this.#entered === this.#depth ? i : -1
            i++
            state = State.String
          } else fail('expected a member name')
          break

        case State.Colon:
          if (isSpace(c)) i++
          else if (c === 0x3a) {
            i++
            state = State.Value
          } else fail('expected ":"')
          break

        case State.ValueOrClose:
          if (c === 0x5d) {
            i++
            this.#depth--
            state = this.#endValue(chunk, i)
          } else if (isSpace(c)) i++
          else state = State.Value
          break

        case State.Value:
          if (isSpace(c)) i++
          else if (c === QUOTE) {
            this.#beginValue('string', i)
            i++
            state = State.String
          } else if (c === 0x7b || c === 0x5b) {
            if (this.#depth === this.#maxDepth) throw new JsonDepthError(this.#maxDepth, this.#offset + i)
            if (this.#depth === this.#isObject.length) this.#deepen()
            const isObject = c === 0x7b
            const isEntered = this.#beginValue(isObject ? 'object' : 'array', i) === 'enter'
            i++
            this.#isObject[this.#depth++] = isObject ? 1 : 0
            if (isEntered) {
              this.#entered = this.#depth
              this.#path.push(isObject ? '' : ELEMENT)
            }
            state = isObject ? State.KeyOrClose : State.ValueOrClose
          } else if (isDigit(c) || c === 0x2d) {
            this.#beginValue('number', i)
            i++
            state = c === 0x2d ? State.Minus : c === ZERO ? State.Zero : State.Integer
          } else {
            const literal = LITERALS[c]
            if (literal === undefined) fail('expected a value')
            this.#beginValue('literal', i)
            i++
            this.#literal = literal
            this.#literalAt = 1
            state = State.Literal
          }
          break

        case State.Literal:
          if (c !== this.#literal.charCodeAt(this.#literalAt)) fail(`expected "${this.#literal}"`)
          i++
          if (++this.#literalAt === this.#literal.length) state = this.#endValue(chunk, i)
          break

        case State.Minus:
        case State.Point:
        case State.ExponentSign:
          if (!isDigit(c)) fail('expected a digit')
          i++
          if (state === State.Minus) state = c === ZERO ? State.Zero : State.Integer
          else state = state === State.Point ? State.Fraction : State.ExponentDigits
          break

        case State.Integer:
          if (isDigit(c)) i++
          else state = State.Zero
          break

        case State.Zero:
          if (c === 0x2e) {
            i++
            state = State.Point
          } else if (c === 0x65 || c === 0x45) {
            i++
            state = State.Exponent
          } else state = this.#endValue(chunk, i)
          break

        case State.Fraction:
          if (isDigit(c)) i++
          else if (c === 0x65 || c === 0x45) {
            i++
            state = State.Exponent
          } else state = this.#endValue(chunk, i)
          break

        case State.Exponent:
          if (c === 0x2b || c === 0x2d) state = State.ExponentSign
          else if (isDigit(c)) state = State.ExponentDigits
          else fail('expected a digit')
          i++
          break

        case State.ExponentDigits:
          if (isDigit(c)) i++
          else state = this.#endValue(chunk, i)
          break

        case State.Done:
          if (!isSpace(c)) fail('unexpected data after the JSON value')
          i++
          break
      }
    }

    if (this.#streamDepth >= 0) {
      if (this.#streamFrom < length) this.#visitor.bytes(chunk.subarray(this.#streamFrom), this.#path)
      this.#streamFrom = 0
    }
    if (this.#inKey && this.#keyFrom >= 0) {
      this.#addKeyPiece(chunk.subarray(this.#keyFrom))
      this.#keyFrom = 0
    }
    this.#state = state
    this.#offset += length
  }

  /** Ends the text. @throws JsonSyntaxError when it is incomplete */
  end(): void {
    const atEndOfNumber = [State.Zero, State.Integer, State.Fraction, State.ExponentDigits].includes(
      this.#state
    )
    if (this.#depth === 0 && atEndOfNumber) this.#state = this.#endValue(new Uint8Array(0), 0)
    if (this.#state !== State.Done) throw new JsonSyntaxError('unexpected end of JSON', this.#offset, true)
  }

  /**
   * Skims a container that is not entered, several times as fast as the states do, up to its end or a token that is
   * wrong, cut or rare. Sets `#state` and `#depth` for that place. @returns its offset
   */
  #skim(chunk: Uint8Array, from: number, fromState: State): number {
    const length = chunk.length
    const isObject = this.#isObject
    const lowest = this.#entered + 1
    let depth = this.#depth
    let state = fromState
    let i = from
    scan: while (i < length) {
      const c = chunk[i]
      if (isSpace(c)) {
        i++
        continue
      }
      switch (state) {
        case State.After:
          if (c === 0x2c) {
            state = isObject[depth - 1] === 1 ? State.Key : State.Value
            i++
            continue
          }
          break
        case State.Key:
        case State.KeyOrClose:
          if (c === QUOTE) {
            const end = endOfPlainString(chunk, i)
            if (end === 0 || chunk[end] !== 0x3a) break scan
            i = end + 1
            state = State.Value
            continue
          }
          if (state === State.Key) break scan
          break
        case State.Value:
        case State.ValueOrClose:
          if (c === QUOTE) {
            const end = endOfPlainString(chunk, i)
            if (end === 0) break scan
            i = end
            state = State.After
            continue
          }
          if (c === 0x7b || c === 0x5b) {
            if (depth === isObject.length) break scan
            isObject[depth++] = c === 0x7b ? 1 : 0
            state = c === 0x7b ? State.KeyOrClose : State.ValueOrClose
            i++
            continue
          }
          if (c !== 0x5d || state === State.Value) {
            const end = endOfPlainScalar(chunk, i)
            if (end === 0) break scan
            i = end
            state = State.After
            continue
          }
          break
        default:
          break scan
      }
      // Only the end of the innermost container may come here.
      if (depth === lowest || c !== (isObject[depth - 1] === 1 ? 0x7d : 0x5d)) break
      depth--
      state = State.After
      i++
    }
    this.#depth = depth
    this.#state = state
    return i
  }

  #deepen(): void {
    const deeper = new Uint8Array(Math.min(this.#maxDepth, this.#isObject.length * 4))
    deeper.set(this.#isObject)
    this.#isObject = deeper
  }

  #beginValue(kind: JsonKind, i: number): JsonAction {
    if (this.#entered !== this.#depth || this.#streamDepth >= 0) return 'skip'
    const action = this.#visitor.begin(this.#path, kind)
    if (action === 'stream') {
      this.#streamDepth = this.#depth
      this.#streamFrom = i
    }
    return action
  }

  #endValue(chunk: Uint8Array, i: number): State {
    const depth = this.#depth
    if (this.#streamDepth === depth) {
      if (this.#streamFrom < i) this.#visitor.bytes(chunk.subarray(this.#streamFrom, i), this.#path)
      this.#streamDepth = -1
      this.#visitor.end(this.#path)
    } else if (this.#entered > depth) {
      this.#entered = depth
      this.#path.pop()
      this.#visitor.end(this.#path)
    }
    return depth === 0 ? State.Done : State.After
  }

  #endKey(chunk: Uint8Array, i: number): void {
    if (this.#keyFrom < 0) return
    const piece = chunk.subarray(this.#keyFrom, i)
    this.#countKey(piece)
    const whole = this.#keyPieces.length === 0 ? piece : Buffer.concat([...this.#keyPieces, piece])
    this.#path[this.#path.length - 1] = decodeString(whole, 0, whole.length)
    this.#keyPieces = []
    this.#keyBytes = 0
  }

  /** Keeps this chunk's part of a name that goes on in the next chunk. */
  #addKeyPiece(piece: Uint8Array): void {
    this.#countKey(piece)
    this.#keyPieces.push(Buffer.from(piece))
  }

  #countKey({ length }: Uint8Array): void {
    this.#keyBytes += length
    if (this.#keyBytes > this.#maxKey) throw new LongNameError('member name too long', this.#offset)
  }

  /** Sets what must follow the first byte of a character beyond ASCII (RFC 3629, section 4). */
  #beginUtf8(c: number): boolean {
    this.#utf8Low = c === 0xe0 ? 0xa0 : c === 0xf0 ? 0x90 : 0x80
    this.#utf8High = c === 0xed ? 0x9f : c === 0xf4 ? 0x8f : 0xbf
    this.#utf8Left = c >= 0xc2 && c <= 0xdf ? 1 : c >= 0xe0 && c <= 0xef ? 2 : c >= 0xf0 && c <= 0xf4 ? 3 : 0
    return this.#utf8Left > 0
  }
}
