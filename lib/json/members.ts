const QUOTE = 0x22
const BACKSLASH = 0x5c
const MINUS = 0x2d

/**
 * Walks the members of one JSON object. The bytes must be a JSON object already known to be well-formed (see
 * `JsonScanner`); nothing is checked again.
 *
 * ```ts
 * const cursor = new MemberCursor(bytes)
 * while (cursor.next()) if (cursor.key() === '_id') use(cursor.valueStart, cursor.valueEnd)
 * ```
 */
export class MemberCursor {
  readonly bytes: Uint8Array
  /** Offset of the key's opening quote. */
  keyStart = 0
  /** Offset after the key's closing quote. */
  keyEnd = 0
  valueStart = 0
  /** 0: not looked for yet. */
  #valueEnd = 0
  #at: number

  constructor(bytes: Uint8Array, start = 0) {
    this.bytes = bytes
    this.#at = skipSpace(bytes, start) + 1
  }

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

  /** Offset after the value's last byte. Found when it is asked for: values are long. */
  get valueEnd(): number {
    if (this.#valueEnd === 0) this.#valueEnd = skipValue(this.bytes, this.valueStart)
    return this.#valueEnd
  }

  /** Offset after the object's last byte, once {@link next} has found no more members. */
  get end(): number {
    return this.#at + 1
  }

  /** Says where the value ends, once that is known otherwise. */
  endsAt(offset: number): void {
    this.#valueEnd = offset
  }

  /** The member's name, escapes decoded. */
  key(): string {
    return decodeString(this.bytes, this.keyStart, this.keyEnd)
  }

  /** The value when it is a string, else `undefined`. */
  string(): string | undefined {
    if (this.bytes[this.valueStart] !== QUOTE) return undefined
    return decodeString(this.bytes, this.valueStart, this.valueEnd)
  }

  /** The value when it is a number, else `undefined`. */
  number(): number | undefined {
    const first = this.bytes[this.valueStart]
    if (first !== MINUS && (first < 0x30 || first > 0x39)) return undefined
    return Number(toBuffer(this.bytes).toString('latin1', this.valueStart, this.valueEnd))
  }
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

/**
 * Walks the objects of the array that is the value at hand, each once: what `object` leaves is walked after it.
 * Nothing happens where it is another value.
 */
export function eachObject(array: MemberCursor, object: (members: MemberCursor) => void): void {
  const { bytes } = array
  if (bytes[array.valueStart] !== 0x5b) return
  let i = skipSpace(bytes, array.valueStart + 1)
  while (bytes[i] === 0x7b) {
    const members = new MemberCursor(bytes, i)
    object(members)
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

export function toBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/** @returns the offset of the first byte from `at` on that is not white space. */
export function skipSpace(bytes: Uint8Array, at: number): number {
  let i = at
  for (;;) {
    const c = bytes[i]
    if (c !== 0x20 && c !== 0x0a && c !== 0x0d && c !== 0x09) return i
    i++
  }
}

/** @returns the offset after the closing quote of the string that begins at `at`. */
function skipString(bytes: Uint8Array, at: number): number {
  let i = at + 1
  for (;;) {
    const c = bytes[i++]
    if (c === QUOTE) return i
    if (c === BACKSLASH) i++
  }
}

/** @returns the offset after the value that begins at `at`. */
export function skipValue(bytes: Uint8Array, at: number): number {
  const first = bytes[at]
  if (first === QUOTE) return skipString(bytes, at)
  let i = at
  if (first === 0x7b || first === 0x5b) {
    let depth = 0
    do {
      const c = bytes[i]
      if (c === QUOTE) {
        i = skipString(bytes, i)
        continue
      }
      if (c === 0x7b || c === 0x5b) depth++
      else if (c === 0x7d || c === 0x5d) depth--
      i++
    } while (depth > 0)
    return i
  }
  for (; i < bytes.length; i++) {
    const c = bytes[i]
    if (c === 0x2c || c === 0x7d || c === 0x5d || c === 0x20 || c === 0x0a || c === 0x0d || c === 0x09) break
  }
  return i
}
