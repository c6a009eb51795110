import type { Steps } from '../waits/steps.js'
import { hasEscape, QUOTE } from './json-bytes.js'
import { decodeString, skipSpace, skipValue } from './members.js'

/** Scalars compared in one step. */
const STEP = 2000
/** Bytes of a scalar that is a step by itself. */
const LONG = 64 * 1024

/**
 * Returns whether two valid JSON texts say the same to CouchDB, with members in the same order: compares
 * strings decoded, integers digit by digit, other numbers as doubles. An integer never equals a fraction.
 */
export function* sameValue(a: Buffer, b: Buffer): Steps<boolean> {
  if (a.equals(b)) return true
  let i = skipSpace(a, 0)
  let j = skipSpace(b, 0)
  for (let scalars = 1; i < a.length && j < b.length; ) {
    if (PUNCTUATION[a[i]] === 1 || PUNCTUATION[b[j]] === 1) {
      if (a[i++] !== b[j++]) return false
    } else {
      const [iEnd, jEnd] = [skipValue(a, i), skipValue(b, j)]
      if (scalars++ % STEP === 0 || iEnd - i > LONG) yield
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
  if (sameBytes(a, i, iEnd, b, j, jEnd)) return true
  if (a[i] === QUOTE || b[j] === QUOTE) {
    // Equal strings without escapes are equal bytes.
    if (a[i] !== b[j] || !(hasEscape(a, i, iEnd) || hasEscape(b, j, jEnd))) return false
    return decodeString(a, i, iEnd) === decodeString(b, j, jEnd)
  }
  return sameNumber(a.toString('latin1', i, iEnd), b.toString('latin1', j, jEnd))
}

/** Returns whether two scalars are the same bytes. Most are so short that calling `compare` would take longer. */
function sameBytes(a: Buffer, i: number, iEnd: number, b: Buffer, j: number, jEnd: number): boolean {
  const length = iEnd - i
  if (length !== jEnd - j) return false
  if (length > 64) return a.compare(b, j, jEnd, i, iEnd) === 0
  for (let k = 0; k < length; k++) if (a[i + k] !== b[j + k]) return false
  return true
}

/** Returns whether two scalars with other bytes are the same number; `false` where one is no number. */
function sameNumber(a: string, b: string): boolean {
  const [whole, otherWhole] = [INTEGER.test(a), INTEGER.test(b)]
  if (whole || otherWhole) return whole && otherWhole && ZERO.test(a) && ZERO.test(b)
  const number = Number(a)
  return Number.isFinite(number) && number === Number(b)
}

const INTEGER = /^-?[0-9]+$/
const ZERO = /^-?0$/

const PUNCTUATION = new Uint8Array(256)
for (const c of Buffer.from('{}[],:')) PUNCTUATION[c] = 1
