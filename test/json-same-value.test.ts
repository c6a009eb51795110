import fc from 'fast-check'
import t from 'tap'
import { sameValue } from '../lib/json/same-value.js'
import { atOnce } from '../lib/waits/steps.js'
import { cases } from './helpers/settings.js'

const same = (a: string, b: string) => atOnce(sameValue(Buffer.from(a), Buffer.from(b)))

t.test('other spellings of the same are the same', async (t) => {
  const pairs = [
    ['{"a":[1,{"b":null}]}', ' {\n\t"a" : [ 1 , { "b" : null } ]\r\n} '],
    ['"\\u001f"', '"\\u001F"'],
    ['"A/é😀"', '"\\u0041\\/\\u00e9\\ud83d\\ude00"'],
    ['{"\\u0061":1}', '{"a":1}'],
    ['1e2', '100.0'],
    ['1E+21', '1e21'],
    ['0.12345678901234567890', '0.12345678901234568'],
    ['-0.0', '0.0'],
    ['-0', '0']
  ] as const
  for (const [a, b] of pairs) {
    t.ok(same(a, b), `${a} ${b}`)
    t.ok(same(b, a), `${b} ${a}`)
  }
})

t.test('values that differ are not the same', async (t) => {
  const pairs = [
    ['1', '1.0'],
    ['1', '1e0'],
    ['9007199254740993', '9007199254740992'],
    ['12345678901234567890123', '12345678901234567890124'],
    ['1e400', '1e500'],
    ['0.1', '0.10000000000000002'],
    ['0', '1'],
    ['0', '"0"'],
    ['null', '0.0'],
    ['null', 'true'],
    ['true', 'false'],
    ['"a"', '"b"'],
    ['"\\ud800"', '"\\ud801"'],
    ['[]', '{}'],
    ['[1]', '[1,1]'],
    ['[]', '[[]]'],
    ['{"a":1,"b":2}', '{"b":2,"a":1}'],
    ['{"a":1}', '{"a":1,"b":2}']
  ] as const
  for (const [a, b] of pairs) {
    t.notOk(same(a, b), `${a} ${b}`)
    t.notOk(same(b, a), `${b} ${a}`)
  }
})

t.test('white space and escapes never count, values always do', async () => {
  const escaped = (json: string) =>
    json.replace(/[^\n -~]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`)
  fc.assert(
    fc.property(fc.jsonValue(), fc.jsonValue(), (a, b) => {
      const [compact, other] = [JSON.stringify(a), JSON.stringify(b)]
      return (
        same(compact, escaped(JSON.stringify(a, null, 2))) && same(compact, other) === (compact === other)
      )
    }),
    { numRuns: cases(200) }
  )
})

t.test('nesting is not bounded by the stack', async (t) => {
  const deep = (inner: string) => '['.repeat(100_000) + inner + ']'.repeat(100_000)
  t.ok(same(deep('1'), deep(' 1')))
  t.notOk(same(deep('1'), deep('2')))
})
