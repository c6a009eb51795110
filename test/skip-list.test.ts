import fc from 'fast-check'
import t from 'tap'
import { parseSkipList } from '../lib/routes/skip-list.js'
import { atOnce } from '../lib/waits/steps.js'
import { character } from './helpers/arbitraries.js'
import { cases } from './helpers/settings.js'

const parse = (value: string | string[] | undefined) => atOnce(parseSkipList('skip_system', value))

t.test('reads every spelling that clients use', async (t) => {
  const spellings: [string | string[] | undefined, string[]][] = [
    [undefined, []],
    ['[]', []],
    ["'[]'", []],
    ['["00_settings_athena"]', ['00_settings_athena']],
    ['["a","b"]', ['a', 'b']],
    [' [ "a" , "b" ] ', ['a', 'b']],
    ["['a']", ['a']],
    ["[ 'a' , 'b' ]", ['a', 'b']],
    [`"['00_settings_athena']"`, ['00_settings_athena']],
    [`"["a","b"]"`, ['a', 'b']],
    ['"[\\"a\\",\\"b\\"]"', ['a', 'b']],
    [`'["a"]'`, ['a']],
    ['a', ['a']],
    ['"a"', ['a']],
    ["'a'", ['a']],
    ['a,b', ['a', 'b']],
    [' a , b,c ', ['a', 'b', 'c']],
    ['"a,b"', ['a', 'b']],
    ["'a, b'", ['a', 'b']],
    ['"a","b"', ['a', 'b']],
    ["'a' , 'b'", ['a', 'b']],
    ['"a,b","c"', ['a,b', 'c']],
    ['"[a","b]"', ['[a', 'b]']],
    ['["a,b"]', ['a,b']],
    ["['a,b','c']", ['a,b', 'c']],
    ["it's", ["it's"]],
    [
      ['a', '["b","c"]', "['d']", 'e,f'],
      ['a', 'b', 'c', 'd', 'e', 'f']
    ],
    ["['it\\'s']", ["it's"]],
    ["['a\"b']", ['a"b']],
    ['["a]","[b"]', ['a]', '[b']],
    ["['a, b','c']", ['a, b', 'c']],
    ['_design/x', ['_design/x']],
    ['["ü漢😀"]', ['ü漢😀']]
  ]
  for (const [value, expected] of spellings) t.strictSame(parse(value), expected, JSON.stringify(value))
})

t.test('any ids come through, as JSON, as repeated parameters and in quotes', async (t) => {
  const ids = fc.array(fc.string({ unit: character, minLength: 1 }), { maxLength: 5 })
  const quoted = (list: string[]) => `[${list.map((id) => `'${id.replace(/[\\']/g, '\\$&')}'`).join(',')}]`
  t.doesNotThrow(() =>
    fc.assert(
      fc.property(ids, (list) => {
        const expected = JSON.stringify(list)
        return (
          JSON.stringify(parse(expected)) === expected &&
          JSON.stringify(parse(list.map((id) => JSON.stringify([id])))) === expected &&
          JSON.stringify(parse(JSON.stringify(expected))) === expected &&
          JSON.stringify(parse(`'${expected}'`)) === expected &&
          JSON.stringify(parse(quoted(list))) === expected
        )
      }),
      { numRuns: cases(300) }
    )
  )
})

t.test('refuses anything else, naming the parameter', async (t) => {
  const wrong = [
    '',
    ' ',
    '""',
    "''",
    '{}',
    '{"a":1}',
    '[',
    '["a"',
    '["a",]',
    '[a]',
    '["a" "b"]',
    "['a' 'b']",
    "['a]",
    "['a',]",
    '[1]',
    '[null]',
    '[""]',
    "['']",
    '[["a"]]',
    '["a",1]',
    '"a',
    ',',
    'a,',
    ',a',
    'a,,b',
    'a,"b"',
    'a,["b"]',
    '"a","b',
    '"a,"',
    "'a"
  ]
  for (const value of [...wrong, ['a', '']]) {
    t.throws(
      () => parse(value),
      { statusCode: 400, message: /^querystring\/skip_system must be document ids/ },
      JSON.stringify(value)
    )
  }
})
