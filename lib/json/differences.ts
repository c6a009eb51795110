import { toBuffer } from '../bytes/views.js'
import { fingerprint } from '../ids/fingerprint.js'
import { FingerprintTable } from '../ids/fingerprint-table.js'
import type { Steps } from '../waits/steps.js'
import { type DocumentBytes, nextOfBody, valueAt } from './document.js'
import { MemberCursor } from './members.js'
import { sameValue } from './same-value.js'

/** Receives a member that differs, and views of its value in each document that has it. */
type OnDifference = (name: string, value: Buffer | undefined, other: Buffer | undefined) => void

type Bytes = Pick<DocumentBytes, 'bytes'>

/**
 * Finds the members that differ between two live documents, besides id, revision and attachments.
 * @returns whether the documents say the same: no member differs, and all have the same order
 */
export function* bodyDifferences(a: Bytes, b: Bytes, found: OnDifference): Steps<boolean> {
  const [one, other] = [new MemberCursor(a.bytes), new MemberCursor(b.bytes)]
  let same = true
  for (;;) {
    const [key, otherKey] = [yield* nextOfBody(one), yield* nextOfBody(other)]
    if (key !== otherKey) {
      yield* differencesByName([one, key], [other, otherKey], found)
      return false
    }
    if (key === undefined) return same
    if (yield* sameValue(valueAt(one), valueAt(other))) continue
    same = false
    found(key, valueAt(one), valueAt(other))
  }
}

/** A cursor, and the name of the member that it has reached. */
type CursorAtMember = [MemberCursor, string | undefined]

/** Words of an entry: a fingerprint of the name, the bounds of the value, and a mark. */
const WORDS = 5
const UNMATCHED = 1
const MATCHED = 2

/** Compares by name the members from two cursors on. Holds 20 bytes for each member of `other`. */
function* differencesByName(
  [one, name]: CursorAtMember,
  [other, otherName]: CursorAtMember,
  found: OnDifference
): Steps<void> {
  const others = new FingerprintTable(WORDS)
  const first = otherName === undefined ? Number.POSITIVE_INFINITY : other.valueStart
  for (let key = otherName; key !== undefined; key = yield* nextOfBody(other)) {
    const place = others.place(fingerprint(key))
    const values = [other.valueStart, other.valueEnd, UNMATCHED]
    for (const [i, value] of values.entries()) others.setWord(place, i + 2, value)
  }
  for (let key = name; key !== undefined; key = yield* nextOfBody(one)) {
    const place = others.find(fingerprint(key))
    if (!others.isUsed(place)) {
      found(key, valueAt(one), undefined)
      continue
    }
    others.setWord(place, 4, MATCHED)
    const match = toBuffer(other.bytes).subarray(others.word(place, 2), others.word(place, 3))
    if (!(yield* sameValue(valueAt(one), match))) found(key, valueAt(one), match)
  }
  const again = new MemberCursor(other.bytes)
  for (let key = yield* nextOfBody(again); key !== undefined; key = yield* nextOfBody(again)) {
    if (again.valueStart < first) continue
    const place = others.find(fingerprint(key))
    const isLast = others.word(place, 2) === again.valueStart
    if (others.word(place, 4) === UNMATCHED && isLast) found(key, undefined, valueAt(again))
  }
}
