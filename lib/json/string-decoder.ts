const QUOTE = 0x22
const BACKSLASH = 0x5c
const LETTER_U = 0x75

/** What the character after a backslash stands for. */
const ESCAPED = new Uint8Array(256)
for (const [letter, meaning] of ['""', '\\\\', '//', 'b\b', 'f\f', 'n\n', 'r\r', 't\t'])
  ESCAPED[letter.charCodeAt(0)] = meaning.charCodeAt(0)

/** Bytes that a piece may make beyond its own length: what a piece before has begun to spell. */
const SLACK = 6
const REPLACEMENT = 0xfffd

const hexValue = (c: number) => (c <= 0x39 ? c - 0x30 : (c | 0x20) - 0x57)
const isHigh = (unit: number) => unit >= 0xd800 && unit < 0xdc00
const isLow = (unit: number) => unit >= 0xdc00 && unit < 0xe000

/**
 * Decodes a JSON string that comes in pieces to UTF-8: to the bytes that `Buffer.from(JSON.parse(text))` gives. Half of a
 * surrogate pair is no character, and becomes U+FFFD.
 */
export class JsonStringDecoder {
  #begun = false
  #escaped = false
  #hexLeft = 0
  #unit = 0
  /** First half of a surrogate pair, or 0. */
  #high = 0

  /**
   * Returns what the next bytes of a well-formed string say, quotes included: a view of the bytes where that is the same.
   */
  write(piece: Uint8Array): Uint8Array {
    const from = this.#begun || piece.length === 0 ? 0 : 1
    this.#begun ||= piece.length > 0
    const pending = this.#escaped || this.#hexLeft > 0 || this.#high > 0
    if (!pending && !piece.includes(BACKSLASH, from)) return piece.subarray(from, endOf(piece, piece.length))
    return this.#decode(piece, from)
  }

  #decode(piece: Uint8Array, from: number): Uint8Array {
    const output = new Utf8Writer(piece.length + SLACK)
    for (let i = from; i < piece.length; ) {
      if (this.#hexLeft > 0) this.#hex(piece[i++], output)
      else if (this.#escaped) this.#escape(piece[i++], output)
      else {
        const found = piece.indexOf(BACKSLASH, i)
        const end = found < 0 ? piece.length : found
        if (end > i) this.#plain(piece.subarray(i, endOf(piece, end)), output)
        this.#escaped = found >= 0
        i = end + 1
      }
    }
    return output.written
  }

  /** Takes characters that stand for themselves; none, when it is the closing quote that ends what came before. */
  #plain(run: Uint8Array, output: Utf8Writer): void {
    this.#endHigh(output)
    output.bytes(run)
  }

  #escape(c: number, output: Utf8Writer): void {
    this.#escaped = false
    if (c === LETTER_U) {
      this.#hexLeft = 4
      this.#unit = 0
      return
    }
    this.#endHigh(output)
    output.codePoint(ESCAPED[c])
  }

  #hex(c: number, output: Utf8Writer): void {
    this.#unit = this.#unit * 16 + hexValue(c)
    if (--this.#hexLeft === 0) this.#endUnit(this.#unit, output)
  }

  #endUnit(unit: number, output: Utf8Writer): void {
    if (this.#high > 0 && isLow(unit)) {
      output.codePoint(0x10000 + (this.#high - 0xd800) * 0x400 + (unit - 0xdc00))
      this.#high = 0
      return
    }
    this.#endHigh(output)
    if (isHigh(unit)) this.#high = unit
    else output.codePoint(isLow(unit) ? REPLACEMENT : unit)
  }

  /** Writes the first half of a pair whose second did not come. */
  #endHigh(output: Utf8Writer): void {
    if (this.#high > 0) output.codePoint(REPLACEMENT)
    this.#high = 0
  }
}

/** Returns where a run of plain characters ends: a quote in it can only be the last one, which closes the string. */
const endOf = (piece: Uint8Array, end: number): number =>
  end === piece.length && piece[end - 1] === QUOTE ? end - 1 : end

class Utf8Writer {
  readonly #output: Uint8Array
  #at = 0

  constructor(room: number) {
    this.#output = new Uint8Array(room)
  }

  get written(): Uint8Array {
    return this.#output.subarray(0, this.#at)
  }

  bytes(bytes: Uint8Array): void {
    this.#output.set(bytes, this.#at)
    this.#at += bytes.length
  }

  codePoint(c: number): void {
    if (c < 0x80) this.#byte(c)
    else if (c < 0x800) {
      this.#byte(0xc0 | (c >> 6))
      this.#rest(c)
    } else if (c < 0x10000) {
      this.#byte(0xe0 | (c >> 12))
      this.#rest(c >> 6)
      this.#rest(c)
    } else {
      this.#byte(0xf0 | (c >> 18))
      this.#rest(c >> 12)
      this.#rest(c >> 6)
      this.#rest(c)
    }
  }

  #rest(bits: number): void {
    this.#byte(0x80 | (bits & 0x3f))
  }

  #byte(byte: number): void {
    this.#output[this.#at++] = byte
  }
}
