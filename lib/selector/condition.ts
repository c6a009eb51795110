import type { Steps } from '../waits/steps.js'
import { JsonView, type PathName, rankOf } from './json-view.js'

/** A value in a selector, which values of documents are compared with. */
export type Comparable = null | boolean | number | string | readonly Comparable[]

export type Comparison = '$eq' | '$ne' | '$lt' | '$lte' | '$gt' | '$gte'

export const TYPES = ['null', 'boolean', 'number', 'string', 'array', 'object'] as const

/** What one value must meet. */
export type Test =
  | { op: Comparison; to: Comparable }
  | { op: '$in' | '$nin'; values: readonly Comparable[] }
  | { op: '$exists'; wanted: boolean }
  | { op: '$type'; type: (typeof TYPES)[number] }
  | { op: '$size'; size: number }
  | { op: '$beginsWith'; prefix: string }
  | { op: '$elemMatch' | '$allMatch'; of: Condition }
  | { op: 'not'; test: Test }

/** What an object must meet; with an empty path, any value. */
export type Condition =
  | { op: 'all' | 'any'; of: readonly Condition[] }
  | { op: 'field'; path: readonly PathName[]; isId: boolean; test: Test }

/** CouchDB sorts by the root collation, which `en` uses unchanged. */
const collator = new Intl.Collator('en')

type Order = (a: string, b: string) => number

const collated: Order = (a, b) => collator.compare(a, b)
/** CouchDB sorts ids by their bytes. */
const byBytes: Order = (a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))

/** Returns whether a value meets a condition, as CouchDB's `_find` decides it. */
export function* meets(value: JsonView, condition: Condition): Steps<boolean> {
  if (condition.op === 'field') return yield* fieldMeets(value, condition)
  const { op, of } = condition
  for (const one of of) {
    yield
    if ((yield* meets(value, one)) === (op === 'any')) return op === 'any'
  }
  return op === 'all'
}

function* fieldMeets(
  value: JsonView,
  { path, isId, test }: Extract<Condition, { op: 'field' }>
): Steps<boolean> {
  let found = value
  for (const name of path) {
    const next = yield* found.find(name)
    // A member that is not there meets this test alone, and that only where an object could have it.
    if (!next) return found.kind === 'object' && test.op === '$exists' && !test.wanted
    found = next
  }
  return yield* passes(found, test, isId ? byBytes : collated)
}

function* passes(value: JsonView, test: Test, order: Order): Steps<boolean> {
  switch (test.op) {
    case 'not':
      return !(yield* passes(value, test.test, order))
    case '$exists':
      return test.wanted
    case '$type':
      return isOfType(value, test.type)
    case '$size':
      return value.kind === 'array' && (yield* hasSize(value, test.size))
    case '$beginsWith':
      return value.kind === 'string' && value.string().startsWith(test.prefix)
    case '$in':
      return yield* isAmong(value, test.values, order)
    case '$nin':
      return !(yield* isAmong(value, test.values, order))
    case '$elemMatch':
      return value.kind === 'array' && (yield* anyElement(value, test.of, true))
    case '$allMatch':
      return yield* allElements(value, test.of)
    default:
      return holds(test.op, yield* compare(value, test.to, order))
  }
}

function holds(op: Comparison, order: number): boolean {
  switch (op) {
    case '$eq':
      return order === 0
    case '$ne':
      return order !== 0
    case '$lt':
      return order < 0
    case '$lte':
      return order <= 0
    case '$gt':
      return order > 0
    case '$gte':
      return order >= 0
  }
}

const isOfType = ({ kind }: JsonView, type: (typeof TYPES)[number]): boolean =>
  type === 'boolean' ? kind === 'true' || kind === 'false' : kind === type

function* hasSize(value: JsonView, size: number): Steps<boolean> {
  let count = 0
  for (const _ of value.elements()) {
    if (++count > size) return false
    yield
  }
  return count === size
}

/** Returns whether a value, or any element of an array, is among the values. */
function* isAmong(value: JsonView, values: readonly Comparable[], order: Order): Steps<boolean> {
  const candidates = value.kind === 'array' ? value.elements() : [value]
  for (const candidate of candidates) {
    for (const one of values) {
      yield
      if ((yield* compare(candidate, one, order)) === 0) return true
    }
  }
  return false
}

/** Returns whether any element meets the condition; if not `wanted`, whether any element fails it. */
function* anyElement(array: JsonView, condition: Condition, wanted: boolean): Steps<boolean> {
  for (const element of array.elements()) {
    yield
    if ((yield* meets(element, condition)) === wanted) return true
  }
  return false
}

function* allElements(value: JsonView, condition: Condition): Steps<boolean> {
  if (value.kind !== 'array' || (yield* hasSize(value, 0))) return false
  return !(yield* anyElement(value, condition, false))
}

function rankOfComparable(value: Comparable): number {
  if (value === null) return rankOf('null')
  if (typeof value === 'boolean') return rankOf(value ? 'true' : 'false')
  if (typeof value === 'number') return rankOf('number')
  return rankOf(typeof value === 'string' ? 'string' : 'array')
}

/** Returns a negative number where the value sorts before `other`, 0 where they are equal. */
function* compare(value: JsonView, other: Comparable, order: Order): Steps<number> {
  const rank = rankOf(value.kind) - rankOfComparable(other)
  if (rank !== 0) return rank
  if (typeof other === 'number') return value.number() - other
  if (typeof other === 'string') return order(value.string(), other)
  return Array.isArray(other) ? yield* compareElements(value, other, order) : 0
}

function* compareElements(value: JsonView, others: readonly Comparable[], order: Order): Steps<number> {
  let i = 0
  for (const element of value.elements()) {
    yield
    if (i >= others.length) return 1
    const result = yield* compare(element, others[i++], order)
    if (result !== 0) return result
  }
  return i - others.length
}

/** Returns whether a document's JSON meets a condition. */
export const documentMeets = (bytes: Uint8Array, condition: Condition): Steps<boolean> =>
  meets(new JsonView(bytes), condition)
