import { toBuffer } from '../bytes/views.js'
import { BACKSLASH, hasEscape, QUOTE } from './json-bytes.js'

/** Bytes walked over in one step: a fraction of a millisecond, or one before V8 has compiled the loop. */
const STEP = 32 * 1024

/** Walks the members of a well-formed JSON object without checking it again. */
export class MemberCursor {
  readonly bytes: Uint8Array
  /** Offset of the key's opening quote. */
  keyStart = 0
  /** Offset after the key's closing quote. */
  keyEnd = 0
  valueStart = 0
  /** 0 until it is found. */
  #valueEnd = 0
  /** How far {@link reachEnd} has come in a value that takes several steps. */
  #walk: NestedWalk | undefined
  #stepEnd: number
  #at: number

  constructor(bytes: Uint8Array, start = 0) {
    this.bytes = bytes
    this.#at = skipSpace(bytes, start) + 1
    this.#stepEnd = this.#at + STEP
  }

  /** Goes to the next member. @returns `false` after the last */
  next(): boolean {
    const { bytes } = this
    if (this.valueStart > 0) this.#at = this.valueEnd
    let i = skipSpace(bytes, this.#at)
    if (bytes[i] === 0x2c) i = skipSpace(bytes, i + 1)
    if (bytes[i] !== QUOTE) {
      this.#at = i
      this.valueStart = 0
      return false
    }
    this.keyStart = i
    this.keyEnd = i = skipString(bytes, i)
    i = skipSpace(bytes, i) + 1
    this.valueStart = skipSpace(bytes, i)
    this.#valueEnd = 0
    return true
  }

  /** Returns the offset after the value's last byte. Searched when it is needed, since values may be long. */
  get valueEnd(): number {
    if (this.#valueEnd === 0) this.#valueEnd = skipValue(this.bytes, this.valueStart)
    return this.#valueEnd
  }

  /** Walks one step on towards the end of the value. @returns whether the end is reached */
  reachEnd(): boolean {
    const { bytes } = this
    const at = this.#walk?.at ?? this.valueStart
    if (at >= this.#stepEnd) {
      this.#stepEnd = at + STEP
      return false
    }
    if (this.#valueEnd > 0 || !isNested(bytes[this.valueStart])) return true
    const walk = this.#walk ?? new NestedWalk(at)
    if (walk.to(bytes, this.#stepEnd)) {
      this.#valueEnd = walk.at
      this.#walk = undefined
      return true
    }
    this.#walk = walk
    this.#stepEnd = walk.at + STEP
    return false
  }

  /** Returns the offset after the object's last byte, once {@link next} has found no more members. */
  get end(): number {
    return this.#at + 1
  }

  /** Sets the offset after the value's last byte, for a caller that knows it. */
  endsAt(offset: number): void {
    this.#valueEnd = offset
  }

  /** Returns the member's name, escapes decoded. */
  key(): string {
    return decodeString(this.bytes, this.keyStart, this.keyEnd)
  }

  /** Returns the member's name if it is among `names`, else `undefined`. Seldom decodes it. */
  keyOf(names: KnownNames): string | undefined {
    return names.find(this.bytes, this.keyStart, this.keyEnd)
  }

  /** Returns the value, decoded; `undefined` if it is not a string. */
  string(): string | undefined {
    if (this.bytes[this.valueStart] !== QUOTE) return undefined
    return decodeString(this.bytes, this.valueStart, this.valueEnd)
  }
}

/** Finds names of members among those wanted. */
export class KnownNames {
  readonly #names: readonly { name: string; bytes: Uint8Array }[]
  /** 1 for the first characters of names that may be wanted. */
  readonly #firsts = new Uint8Array(256)
  /** Bytes of the longest spelling of a name, with its quotes. */
  readonly #longest: number

  /** @param names of ASCII, without characters that JSON escapes */
  constructor(names: readonly string[]) {
    this.#names = names.map((name) => ({ name, bytes: Buffer.from(name) }))
    for (const { bytes } of this.#names) this.#firsts[bytes[0]] = 1
    // An escape may spell any character, and takes six bytes at most.
    this.#firsts[BACKSLASH] = 1
    this.#longest = 6 * Math.max(...names.map(({ length }) => length)) + 2
  }

  /** Returns the wanted name that the JSON string between two offsets spells, if any. */
  find(bytes: Uint8Array, start: number, end: number): string | undefined {
    if (this.#firsts[bytes[start + 1]] === 0) return undefined
    for (const known of this.#names) if (standsAt(bytes, start + 1, end - 1, known.bytes)) return known.name
    if (end - start > this.#longest || !hasEscape(bytes, start, end)) return undefined
    const decoded = decodeString(bytes, start, end)
    return this.#names.find(({ name }) => name === decoded)?.name
  }
}

/** Returns whether the bytes between two offsets are those wanted. */
export function standsAt(bytes: Uint8Array, start: number, end: number, wanted: Uint8Array): boolean {
  if (end - start !== wanted.length) return false
  for (let i = 0; i < wanted.length; i++) if (bytes[start + i] !== wanted[i]) return false
  return true
}

/** Calls `element` with the bounds of each element of the JSON array that begins at `start`. */
export function eachElement(
  bytes: Uint8Array,
  start: number,
  element: (start: number, end: number) => void
): void {
  let i = skipSpace(bytes, skipSpace(bytes, start) + 1)
  while (bytes[i] !== 0x5d) {
    const end = skipValue(bytes, i)
    element(i, end)
    i = skipSpace(bytes, end)
    if (bytes[i] === 0x2c) i = skipSpace(bytes, i + 1)
  }
}

/** Yields the objects of the array that a cursor has reached. The caller may walk each of them once. */
export function* objectsOf(array: MemberCursor): Generator<MemberCursor> {
  const { bytes } = array
  if (bytes[array.valueStart] !== 0x5b) return
  let i = skipSpace(bytes, array.valueStart + 1)
  while (bytes[i] === 0x7b) {
    const members = new MemberCursor(bytes, i)
    yield members
    while (members.next());
    i = skipSpace(bytes, members.end)
    if (bytes[i] === 0x2c) i = skipSpace(bytes, i + 1)
  }
  if (bytes[i] === 0x5d) array.endsAt(i + 1)
}

/** Decodes the JSON string whose quotes stand at `start` and `end - 1`. */
export function decodeString(bytes: Uint8Array, start: number, end: number): string {
  const text = toBuffer(bytes).toString('utf8', start, end)
  return text.includes('\\') ? JSON.parse(text) : text.slice(1, -1)
}

/** Decodes any small JSON value. */
export function decodeValue(bytes: Uint8Array, start: number, end: number): unknown {
  return JSON.parse(toBuffer(bytes).toString('utf8', start, end))
}

/** Returns the offset of the first byte from `at` on that is not white space. */
export function skipSpace(bytes: Uint8Array, at: number): number {
  let i = at
  for (;;) {
    const c = bytes[i]
    if (c !== 0x20 && c !== 0x0a && c !== 0x0d && c !== 0x09) return i
    i++
  }
}

/** Bytes of a string that are read one by one, before a native search for its end, since most strings are short. */
const SHORT = 128

/** Returns the offset after the closing quote of the string that begins at `at`. */
function skipString(bytes: Uint8Array, at: number): number {
  let i = at + 1
  for (;;) {
    const limit = i + SHORT
    while (i < limit) {
      const c = bytes[i++]
      if (c === QUOTE) return i
      if (c === BACKSLASH) i++
    }
    const quote = toBuffer(bytes).indexOf(QUOTE, i)
    if (!isEscaped(bytes, i, quote)) return quote + 1
    i = quote + 1
  }
}

/** Returns whether an odd number of backslashes, from `from` on, stands before the character at `at`. */
function isEscaped(bytes: Uint8Array, from: number, at: number): boolean {
  let first = at
  while (first > from && bytes[first - 1] === BACKSLASH) first--
  return (at - first) % 2 === 1
}

/** Returns the offset after the value that begins at `at`. */
export function skipValue(bytes: Uint8Array, at: number): number {
  const first = bytes[at]
  if (first === QUOTE) return skipString(bytes, at)
  if (isNested(first)) {
    const walk = new NestedWalk(at)
    walk.to(bytes, bytes.length)
    return walk.at
  }
  let i = at
  for (; i < bytes.length; i++) {
    const c = bytes[i]
    if (c === 0x2c || c === 0x7d || c === 0x5d || c === 0x20 || c === 0x0a || c === 0x0d || c === 0x09) break
  }
  return i
}

const isNested = (first: number) => first === 0x7b || first === 0x5b

/** A walk over an object or array, which may be interrupted. */
class NestedWalk {
  /** Offset of the next byte to walk; at the end, of the byte after the value. */
  at: number
  #depth = 0

  constructor(start: number) {
    this.at = start
  }

  /** Walks on to `limit`, or past a string beyond it. @returns whether the end of the value is reached */
  to(bytes: Uint8Array, limit: number): boolean {
    let i = this.at
    let depth = this.#depth
    do {
      const c = bytes[i]
      if (c === QUOTE) {
        i = skipString(bytes, i)
        continue
      }
      if (isNested(c)) depth++
      else if (c === 0x7d || c === 0x5d) depth--
      i++
    } while (depth > 0 && i < limit)
    this.at = i
    this.#depth = depth
    return depth === 0
  }
}
