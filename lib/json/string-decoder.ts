import { toBuffer } from '../bytes/views.js'
import { BACKSLASH, QUOTE } from './json-bytes.js'

/**
 * Finds the end that the next piece may continue, in text with a character for each byte: an escape, half of a
 * surrogate pair with any part of the other half, or a character beyond ASCII, which may be whole.
 */
const UNFINISHED =
  /(?<!\\)(?:\\\\)*(\\(?:u[dD][89abAB]..(?:\\(?:u.{0,3})?)?|u.{0,3})?)$|([\xc2-\xf4][\x80-\xbf]*)$/s
/** Most bytes of a character that lacks its last byte. */
const CUT_CHARACTER = 3
/** Finds the quotes around a string. */
const QUOTES = /^"|"$(?<=(?<!\\)(?:\\\\)*")/g

/** Decodes a JSON string in pieces to UTF-8, as `JSON.parse` does. Half a surrogate pair becomes U+FFFD. */
export class JsonStringDecoder {
  /** The end of the last piece, which is decoded with the next. */
  #rest: Uint8Array = Buffer.alloc(0)

  /** Decodes the next bytes of a well-formed string, its quotes included. Returns a view of them where possible. */
  write(piece: Uint8Array): Uint8Array {
    const bytes = this.#rest.length > 0 ? Buffer.concat([this.#rest, piece]) : toBuffer(piece)
    const escapes = bytes.includes(BACKSLASH)
    const searched = escapes ? bytes : bytes.subarray(-CUT_CHARACTER)
    const [, cutEscape, cutCharacter] = UNFINISHED.exec(searched.toString('latin1')) ?? []
    const end = bytes.length - (cutEscape ?? cutCharacter ?? '').length
    this.#rest = Buffer.from(bytes.subarray(end))
    const whole = bytes.subarray(0, end)
    return escapes ? unescaped(whole) : withoutQuotes(whole)
  }
}

const unescaped = (bytes: Buffer): Buffer =>
  Buffer.from(JSON.parse(`"${bytes.toString().replace(QUOTES, '')}"`) as string)

/** Returns a view without the quotes around the string. Without escapes, it has no others. */
function withoutQuotes(bytes: Buffer): Buffer {
  const start = bytes[0] === QUOTE ? 1 : 0
  return bytes.subarray(start, bytes.length > start && bytes.at(-1) === QUOTE ? -1 : undefined)
}
