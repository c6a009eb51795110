import { endianness } from 'node:os'
import { BACKSLASH, ESCAPABLE, QUOTE } from './json-bytes.js'

/** The highest bit of each byte of a word. */
const HIGH = 0x80808080
/** For each place of a byte in a word, the highest bits of this byte and those behind it. */
const FROM = new Int32Array(
  Uint8Array.of(128, 128, 128, 128, 0, 128, 128, 128, 0, 0, 128, 128, 0, 0, 0, 128).buffer
)
const IS_LITTLE = endianness() === 'LE'

/**
 * Finds the ends of JSON strings in valid UTF-8, four bytes at a time: 1.5 times as fast as a walk by single bytes, in
 * lines of 1.2 KB with 80 strings each (Node.js 20). Keeps the memory of the bytes alive until it begins with others.
 */
export class StringWalk {
  #words: Int32Array = new Int32Array(0)
  /** Offset of the bytes in the memory of the words. */
  #offset = 0
  /** Offset of the last backslash passed since {@link begin}, or -1. */
  lastEscape = -1

  /** Begins with other bytes, or with another line of the same ones. */
  begin(bytes: Uint8Array): void {
    const { buffer } = bytes
    if (this.#words.buffer !== buffer) this.#words = new Int32Array(buffer, 0, buffer.byteLength >> 2)
    this.#offset = bytes.byteOffset
    this.lastEscape = -1
  }

  /**
   * Returns the offset after the string that begins at `start`; 0 if the string is rare or wrong, does not end before
   * `to`, or ends in the last bytes of memory, which are no whole word.
   */
  endOf(bytes: Uint8Array, start: number, to: number): number {
    const words = this.#words
    const offset = this.#offset
    let i = start + 1
    for (;;) {
      const at = i + offset
      let word = at >> 2
      let found = specialIn(words[word]) & FROM[at & 3]
      while (found === 0) found = specialIn(words[++word])
      i = (word << 2) + firstOf(found) - offset
      if (i >= to) return 0
      if (bytes[i] === QUOTE) return i + 1
      if (bytes[i] !== BACKSLASH || ESCAPABLE[bytes[i + 1]] === 0) return 0
      this.lastEscape = i
      i += 2
    }
  }
}

/**
 * Sets the highest bits of the bytes that end a string or are no plain part of it: quotes, backslashes and control
 * characters. `undefined`, beyond the words, counts as control characters.
 */
function specialIn(word: number): number {
  // Sums of two bytes below 128 are never carried to the next byte.
  const low = word & 0x7f7f7f7f
  const notControl = low + 0x60606060
  const notQuote = (low ^ 0x22222222) + 0x7f7f7f7f
  const notBackslash = (low ^ 0x5c5c5c5c) + 0x7f7f7f7f
  return ~((notControl & notQuote & notBackslash) | word) & HIGH
}

/** Returns which byte of a word is the first whose highest bit is set. */
const firstOf = (bits: number): number => (IS_LITTLE ? 31 - Math.clz32(bits & -bits) : Math.clz32(bits)) >> 3
