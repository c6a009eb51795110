import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import nano from 'nano'
import t from 'tap'
import { documentMeets } from '../lib/selector/condition.js'
import { parseSelector } from '../lib/selector/parse-selector.js'
import { atOnce } from '../lib/waits/steps.js'
import { cases } from './helpers/settings.js'

const matches = (selector: unknown, document: object | string): boolean => {
  const text = typeof document === 'string' ? document : JSON.stringify(document)
  return atOnce(documentMeets(Buffer.from(text), parseSelector(selector, 'selector')))
}

const PEER = { _id: 'p', type: 'peer', n: 5, no: null, tags: ['a', 'b'], at: { zone: 'x', n: 0 }, 'a.b': 1 }

t.test('a selector is met as CouchDB decides', async (t) => {
  const met: unknown[] = [
    { type: 'peer' },
    { type: { $eq: 'peer' }, n: { $gt: 4, $lte: 5 } },
    { no: null },
    { no: { $exists: true } },
    { missing: { $exists: false } },
    { n: { $ne: 4 } },
    { n: { $in: [1, 5] } },
    { tags: { $in: ['b'] } },
    { tags: { $nin: ['c'] } },
    { tags: ['a', 'b'] },
    { tags: { $gt: ['a'], $size: 2, $type: 'array' } },
    { tags: { $elemMatch: { $eq: 'b' } } },
    { tags: { $allMatch: { $beginsWith: '' } } },
    { at: { zone: 'x' } },
    { 'at.n': 0 },
    { 'tags.1': 'b' },
    { 'a\\.b': 1 },
    { $or: [{ type: 'ca' }, { n: 5 }] },
    { $nor: [{ type: 'ca' }, { n: 6 }] },
    { $not: { type: 'ca' } },
    { n: { $not: { $lt: 5 } } },
    { type: { $or: [{ $eq: 'ca' }, { $eq: 'peer' }] } },
    { at: { $gt: ['z'] } },
    { _id: { $gte: 'p' } },
    { $and: [{ tags: { $in: ['a'] } }, { tags: { $in: ['b'] } }] }
  ]
  const unmet: unknown[] = [
    { type: 'Peer' },
    { missing: { $ne: 1 } },
    { missing: { $nin: [1] } },
    { $not: { missing: 1 } },
    { missing: { $not: { $size: 1 } } },
    { 'n.x': { $exists: false } },
    { 'at.n.x': 0 },
    { constructor: { $exists: true } },
    { 'tags.length': 2 },
    { 'tags.2': { $exists: false } },
    { n: '5' },
    { no: { $exists: false } },
    { tags: { $elemMatch: { $eq: 'c' } } },
    { tags: { $allMatch: { $eq: 'a' } } },
    { $and: [{ tags: { $in: ['a'] } }, { tags: { $in: ['c'] } }] },
    { n: { $in: [] } }
  ]
  for (const selector of met) t.ok(matches(selector, PEER), JSON.stringify(selector))
  for (const selector of unmet) t.notOk(matches(selector, PEER), JSON.stringify(selector))
})

t.test('numbers that JavaScript rounds, escapes and white space are read as they are', async (t) => {
  t.ok(matches({ n: { $gt: Number.MAX_SAFE_INTEGER } }, '{"n":9007199254740993}'))
  t.notOk(matches({ n: Number.MAX_SAFE_INTEGER }, '{"n":9007199254740993}'))
  t.ok(matches({ type: 'peer' }, '{ "\\u0074ype" : "\\u0070eer" }'))
  t.ok(matches({ n: 1 }, '{"n":1.0}'))
  t.ok(matches({ é: { $exists: true } }, '{"\\u00e9":[]}'))
})

t.test('what is not known of a selector is refused by name', async (t) => {
  const refused: [unknown, RegExp][] = [
    [[], /selector: must be an object/],
    ['x', /selector: must be an object/],
    [{}, /selector: is empty/],
    [{ a: {} }, /selector\/a: is empty/],
    [{ a: { $regex: 'x' } }, /selector\/a\/\$regex: is an unknown operator; use one of \$and/],
    [{ a: { $mod: [2, 0] } }, /\$mod: is an unknown operator/],
    [{ $where: 'x' }, /\$where: is an unknown operator/],
    [{ $eq: 1 }, /\$eq: must stand below a member/],
    [{ $and: [] }, /\$and: must be an array that is not empty/],
    [{ $or: [1] }, /\$or\/0: must be an object/],
    [{ a: { $in: 1 } }, /\$in: must be an array/],
    [{ a: { $in: [{ b: 1 }] } }, /\$in\/0: cannot be compared with/],
    [{ a: { $exists: 1 } }, /\$exists: must be true or false/],
    [{ a: { $type: 'int' } }, /\$type: must be one of null, boolean/],
    [{ a: { $size: -1 } }, /\$size: must be a whole number/],
    [{ a: { $elemMatch: 1 } }, /\$elemMatch: must be an object/],
    [{ a: { $elemMatch: { b: { $not: { $eq: 1 } } } } }, /b\/\$not: must not stand in \$elemMatch/],
    [{ a: { $allMatch: { $nor: [{ b: 1 }] } } }, /\$nor: must not stand in \$elemMatch/],
    [{ _id: { $lte: [true] } }, /_id\/\$lte: is an array/],
    [{ a: { $beginsWith: 1 } }, /\$beginsWith: must be a string/],
    [{ a: 2 ** 53 }, /selector\/a: is a number beyond 2\^53/],
    [{ a: { $lt: Number.POSITIVE_INFINITY } }, /\$lt: is a number beyond/],
    [{ a: undefined }, /selector\/a: cannot be compared with/],
    [{ _rev: '1-x' }, /selector\/_rev: is a member that CouchDB makes/],
    [{ '_attachments.x': { $exists: true } }, /_attachments\.x: is a member/],
    [{ 'a..b': 1 }, /has an empty name between its dots/],
    [{ a: { $in: Array(1001).fill(1) } }, /more than 1000 values/],
    [{ a: 'x'.repeat(65_537) }, /more than 65536 characters/]
  ]
  const deep: Record<string, unknown> = {}
  deep.a = deep
  refused.push([deep, /more than 20 levels/])
  for (const [selector, message] of refused) {
    const error = (() => {
      try {
        return parseSelector(selector, 'selector')
      } catch (error) {
        return error
      }
    })()
    t.match(error, { code: 'DB_BACKUPS_INVALID_PARAMETER', statusCode: 400, message })
  }
})

const scalar = fc.oneof(
  fc.constantFrom<unknown>(
    null,
    true,
    false,
    0,
    1,
    -1,
    1.5,
    2,
    '',
    'a',
    'A',
    'b',
    'ä',
    'ab',
    'a b',
    '-a',
    '_',
    '1',
    '10',
    '9'
  )
)
const value = fc.oneof({ weight: 3, arbitrary: scalar }, fc.array(scalar, { maxLength: 3 }))
const name = fc.constantFrom('a', 'b', 'c', 'a.b', 'a.0', 'b.a')
const documents = fc.array(
  fc.dictionary(
    fc.constantFrom('a', 'b', 'c'),
    fc.oneof(value, fc.dictionary(fc.constantFrom('a', 'b', '0'), value, { maxKeys: 2 })),
    { maxKeys: 3 }
  ),
  { minLength: 1, maxLength: 12 }
)
const { condition } = fc.letrec<{ condition: object; test: object }>((tie) => ({
  test: fc.oneof(
    fc
      .tuple(fc.constantFrom('$eq', '$ne', '$lt', '$lte', '$gt', '$gte'), value)
      .map(([op, to]) => ({ [op]: to })),
    fc
      .tuple(fc.constantFrom('$in', '$nin'), fc.array(scalar, { maxLength: 3 }))
      .map(([op, to]) => ({ [op]: to })),
    fc.boolean().map((wanted) => ({ $exists: wanted })),
    fc
      .constantFrom('null', 'boolean', 'number', 'string', 'array', 'object')
      .map((type) => ({ $type: type })),
    fc.nat(3).map((size) => ({ $size: size })),
    fc
      .tuple(fc.constantFrom('$elemMatch', '$allMatch'), fc.constantFrom('$eq', '$gt', '$lt'), scalar)
      .map(([op, by, to]) => ({ [op]: { [by]: to } })),
    tie('test').map((test) => ({ $not: test }))
  ),
  condition: fc.oneof(
    { maxDepth: 3 },
    fc.tuple(name, tie('test')).map(([field, test]) => ({ [field]: test })),
    fc
      .tuple(
        fc.constantFrom('$and', '$or', '$nor'),
        fc.array(tie('condition'), { minLength: 1, maxLength: 3 })
      )
      .map(([op, of]) => ({ [op]: of })),
    tie('condition').map((of) => ({ $not: of }))
  )
}))

const { COUCHDB_URL } = process.env

t.test(
  'any selector selects what _find does',
  { skip: COUCHDB_URL ? false : 'needs COUCHDB_URL' },
  async (t) => {
    const couch = nano(COUCHDB_URL ?? '')
    const database = `t${randomBytes(6).toString('hex')}`
    await couch.db.create(database)
    t.teardown(() => couch.db.destroy(database))
    const db = couch.use<Record<string, unknown>>(database)
    let round = 0
    const numRuns = cases(10)
    await fc.assert(
      fc.asyncProperty(
        documents,
        fc.array(condition, { minLength: 1, maxLength: 5 }),
        async (docs, selectors) => {
          const prefix = `${String(round++).padStart(6, '0')}_`
          const all = docs.map((doc, i) => ({ ...doc, _id: `${prefix}${i}` }))
          await db.bulk({ docs: all })
          for (const selector of selectors) {
            const range = { _id: { $gte: prefix, $lt: `${prefix}~` } }
            const found = await db.find({ selector: { $and: [range, selector] } as never, limit: 100 })
            t.strictSame(
              all
                .filter((doc) => matches(selector, doc))
                .map(({ _id }) => _id)
                .sort(),
              found.docs.map(({ _id }) => _id).sort(),
              JSON.stringify({ selector, docs: all })
            )
            if (!t.passing()) throw new Error(JSON.stringify(selector))
          }
        }
      ),
      { numRuns }
    )
  }
)
