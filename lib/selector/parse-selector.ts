import { cutText, MOST } from '../bytes/cut-text.js'
import { InvalidParameterError } from '../errors.js'
import { isObject } from '../json/parsed.js'
import { type Comparable, type Comparison, type Condition, type Test, TYPES } from './condition.js'
import { PathName } from './json-view.js'

/** Most levels, values and characters of a selector. */
const MOST_LEVELS = 20
const MOST_VALUES = 1000
const MOST_CHARACTERS = 64 * 1024

/** The negation of each comparison, as in CouchDB. */
const NEGATED: Readonly<Record<Comparison, Comparison>> = {
  $eq: '$ne',
  $ne: '$eq',
  $lt: '$gte',
  $gte: '$lt',
  $gt: '$lte',
  $lte: '$gt'
}
const KNOWN = [
  '$and',
  '$or',
  '$nor',
  '$not',
  ...Object.keys(NEGATED),
  '$in',
  '$nin',
  '$exists',
  '$type',
  '$size',
  '$elemMatch',
  '$allMatch',
  '$beginsWith'
]

/** The place of a condition: in the selector as given, and in the documents. */
interface ConditionPlace {
  /** The place in the selector, for messages. */
  at: string
  /** Names of the members of a document down to the value. */
  path: readonly string[]
  /** Whether the path begins at the document, rather than at an element of an array. */
  ofDocument: boolean
  negated: boolean
  level: number
}

/** Parses a selector of the subset in docs/selectors.md. @throws InvalidParameterError that names the wrong place */
export function parseSelector(selector: unknown, at: string): Condition {
  return new Parser().condition(selector, { at, path: [], ofDocument: true, negated: false, level: 0 })
}

class Parser {
  #values = 0
  #characters = 0

  condition(given: unknown, place: ConditionPlace): Condition {
    this.#count(place)
    if (isObject(given)) return this.#members(given, place)
    if (place.path.length === 0) throw refused(place.at, 'must be an object')
    return field(place, { op: place.negated ? '$ne' : '$eq', to: this.#comparable(given, place) })
  }

  #members(given: Record<string, unknown>, place: ConditionPlace): Condition {
    const members = Object.entries(given)
    if (members.length === 0) throw refused(place.at, 'is empty: name what it is to match')
    const all = members.map(([name, value]) => {
      this.#countText(name, place.at)
      const at = `${place.at}/${cutText(name, MOST.inMessage)}`
      return name.startsWith('$')
        ? this.#operator(name, value, { ...place, at, level: place.level + 1 })
        : this.condition(value, below(place, name, at))
    })
    if (all.length === 1) return all[0]
    return { op: place.negated ? 'any' : 'all', of: all }
  }

  #operator(name: string, value: unknown, place: ConditionPlace): Condition {
    if (!place.ofDocument && (name === '$not' || name === '$nor'))
      throw refused(place.at, 'must not stand in $elemMatch or $allMatch: name what elements are to be')
    switch (name) {
      case '$and':
        return this.#each('all', value, place)
      case '$or':
        return this.#each('any', value, place)
      case '$nor':
        return this.#each('any', value, { ...place, negated: !place.negated })
      case '$not':
        if (!isObject(value)) throw refused(place.at, 'must be an object')
        return this.condition(value, { ...place, negated: !place.negated })
    }
    if (!KNOWN.includes(name))
      throw refused(place.at, `is an unknown operator; use one of ${KNOWN.join(', ')}`)
    if (place.path.length === 0 && place.ofDocument) throw refused(place.at, 'must stand below a member')
    return field(place, this.#test(name, value, place))
  }

  #each(op: 'all' | 'any', given: unknown, place: ConditionPlace): Condition {
    if (!Array.isArray(given) || given.length === 0)
      throw refused(place.at, 'must be an array that is not empty')
    const of = given.map((one, i) => {
      const at = `${place.at}/${i}`
      if (!isObject(one)) throw refused(at, 'must be an object')
      return this.condition(one, { ...place, at, level: place.level + 1 })
    })
    return { op: place.negated ? opposite(op) : op, of }
  }

  #test(name: string, value: unknown, place: ConditionPlace): Test {
    const { negated, at } = place
    switch (name) {
      case '$in':
      case '$nin': {
        if (!Array.isArray(value)) throw refused(at, 'must be an array')
        const values = value.map((one, i) => this.#comparable(one, { ...place, at: `${at}/${i}` }))
        return { op: (name === '$in') === negated ? '$nin' : '$in', values }
      }
      case '$exists':
        if (typeof value !== 'boolean') throw refused(at, 'must be true or false')
        return { op: '$exists', wanted: value !== negated }
      case '$type': {
        const type = TYPES.find((one) => one === value)
        if (!type) throw refused(at, `must be one of ${TYPES.join(', ')}`)
        return reversed(negated, { op: '$type', type })
      }
      case '$size':
        if (!Number.isSafeInteger(value) || (value as number) < 0) throw refused(at, 'must be a whole number')
        return reversed(negated, { op: '$size', size: value as number })
      case '$beginsWith':
        if (typeof value !== 'string') throw refused(at, 'must be a string')
        this.#countText(value, at)
        return reversed(negated, { op: '$beginsWith', prefix: value })
      case '$elemMatch':
      case '$allMatch': {
        if (!isObject(value)) throw refused(at, 'must be an object')
        const of = this.condition(value, { ...place, path: [], ofDocument: false, negated: false })
        return reversed(negated, { op: name, of })
      }
      default: {
        const op = name as Comparison
        return { op: negated ? NEGATED[op] : op, to: this.#comparable(value, place) }
      }
    }
  }

  #comparable(given: unknown, place: ConditionPlace): Comparable {
    this.#count(place)
    const { at } = place
    if (given === null || typeof given === 'boolean') return given
    if (typeof given === 'string') {
      this.#countText(given, at)
      return given
    }
    if (typeof given === 'number') {
      // JSON.parse has rounded larger numbers, and CouchDB has not.
      if (!Number.isFinite(given) || Math.abs(given) > Number.MAX_SAFE_INTEGER)
        throw refused(at, 'is a number beyond 2^53, which cannot be compared exactly')
      return given
    }
    if (Array.isArray(given) && place.ofDocument && place.path.length === 1 && place.path[0] === '_id')
      throw refused(at, 'is an array, which "_id" cannot be compared with')
    if (Array.isArray(given))
      return given.map((one, i) =>
        this.#comparable(one, { ...place, at: `${at}/${i}`, level: place.level + 1 })
      )
    throw refused(at, 'cannot be compared with: name its members instead')
  }

  #count({ at, level }: ConditionPlace): void {
    if (level > MOST_LEVELS) throw refused(cutText(at, MOST.reason), `has more than ${MOST_LEVELS} levels`)
    if (++this.#values > MOST_VALUES) throw refused(at, `has more than ${MOST_VALUES} values`)
  }

  #countText(text: string, at: string): void {
    this.#characters += text.length
    if (this.#characters > MOST_CHARACTERS) throw refused(at, `has more than ${MOST_CHARACTERS} characters`)
  }
}

function below(place: ConditionPlace, name: string, at: string): ConditionPlace {
  const path = [...place.path, ...namesIn(name, at)]
  if (place.ofDocument && path[0].startsWith('_') && path[0] !== '_id')
    throw refused(at, 'is a member that CouchDB makes: of these, only "_id" can be compared')
  return { ...place, path, at, level: place.level + 1 }
}

/** Splits `a.b` into the names of members; `\\.` and `\\$` stand for the characters themselves. */
function namesIn(text: string, at: string): string[] {
  const names = ['']
  for (let i = 0; i < text.length; i++) {
    const isEscape = text[i] === '\\' && (text[i + 1] === '.' || text[i + 1] === '$')
    if (text[i] === '.') names.push('')
    else names[names.length - 1] += isEscape ? text[++i] : text[i]
  }
  if (names.includes('')) throw refused(at, 'has an empty name between its dots')
  return names
}

const field = ({ path }: ConditionPlace, test: Test): Condition => ({
  op: 'field',
  path: path.map((name) => new PathName(name)),
  isId: path.length === 1 && path[0] === '_id',
  test
})

const opposite = (op: 'all' | 'any') => (op === 'all' ? 'any' : 'all')

const reversed = (negated: boolean, test: Test): Test => (negated ? { op: 'not', test } : test)

const refused = (at: string, problem: string): InvalidParameterError =>
  new InvalidParameterError(`${cutText(at, MOST.reason)}: ${problem}`)
