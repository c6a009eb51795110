import { decodeString, skipSpace, skipValue } from './members.js'

/**
 * Whether two JSON texts, known to be well-formed, say the same to CouchDB, which writes white space, escapes and
 * fractions in its own way: strings are compared decoded, integers digit by digit, other numbers as the doubles that
 * CouchDB makes of them. An integer is never the same as a fraction, and members must stand in the same order.
 */
export function sameValue(a: Buffer, b: Buffer): boolean {
  if (a.equals(b)) return true
  let i = skipSpace(a, 0)
  let j = skipSpace(b, 0)
  while (i < a.length && j < b.length) {
    if (isPunctuation(a[i]) || isPunctuation(b[j])) {
      if (a[i++] !== b[j++]) return false
    } else {
      const [iEnd, jEnd] = [skipValue(a, i), skipValue(b, j)]
      if (!sameScalar(a, i, iEnd, b, j, jEnd)) return false
      i = iEnd
      j = jEnd
    }
    i = skipSpace(a, i)
    j = skipSpace(b, j)
  }
  return i === a.length && j === b.length
}

function sameScalar(a: Buffer, i: number, iEnd: number, b: Buffer, j: number, jEnd: number): boolean {
  if (a.compare(b, j, jEnd, i, iEnd) === 0) return true
  if (a[i] === QUOTE || b[j] === QUOTE) return a[i] === b[j] && sameString(a, i, iEnd, b, j, jEnd)
  return sameNumber(a.toString('latin1', i, iEnd), b.toString('latin1', j, jEnd))
}

/** Of two that are not spelled alike: only escapes can make them the same. They are long: most are not decoded. */
function sameString(a: Buffer, i: number, iEnd: number, b: Buffer, j: number, jEnd: number): boolean {
  const escaped = a.subarray(i, iEnd).includes(BACKSLASH) || b.subarray(j, jEnd).includes(BACKSLASH)
  return escaped && decodeString(a, i, iEnd) === decodeString(b, j, jEnd)
}

/** Of two that are not spelled alike; neither may be a number. */
function sameNumber(a: string, b: string): boolean {
  const [whole, otherWhole] = [INTEGER.test(a), INTEGER.test(b)]
  if (whole || otherWhole) return whole && otherWhole && ZERO.test(a) && ZERO.test(b)
  const number = Number(a)
  return Number.isFinite(number) && number === Number(b)
}

const QUOTE = 0x22
const BACKSLASH = 0x5c
const INTEGER = /^-?[0-9]+$/
const ZERO = /^-?0$/

const PUNCTUATION = new Set(Buffer.from('{}[],:'))
const isPunctuation = (c: number) => PUNCTUATION.has(c)
