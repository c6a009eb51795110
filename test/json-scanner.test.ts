import { isUtf8 } from 'node:buffer'
import fc from 'fast-check'
import t from 'tap'
import {
  type JsonAction,
  type JsonKind,
  type JsonPath,
  JsonScanner,
  JsonSyntaxError,
  MAX_DEPTH
} from '../lib/json/scanner.js'
import { cut, cuts, type JsonNode, jsonNode, jsonText } from './helpers/arbitraries.js'
import { cases } from './helpers/settings.js'

type Event = [name: string, path: JsonPath, detail?: string]
type Choose = (path: JsonPath, kind: JsonKind) => JsonAction

interface Scan {
  events: Event[]
  error: JsonSyntaxError | undefined
}

/** Feeds the pieces to a scanner. Bytes handed over one after the other are joined. */
function scan(pieces: readonly Buffer[], choose: Choose = () => 'enter', maxDepth?: number): Scan {
  const events: Event[] = []
  const scanner = new JsonScanner(
    {
      begin(path, kind) {
        events.push(['begin', [...path], kind])
        return choose(path, kind)
      },
      bytes(piece, path) {
        const text = Buffer.from(piece).toString('latin1')
        const last = events[events.length - 1]!
        if (last[0] === 'bytes') last[2] += text
        else events.push(['bytes', [...path], text])
      },
      end(path) {
        events.push(['end', [...path]])
      }
    },
    { maxDepth }
  )
  try {
    for (const piece of pieces) scanner.write(piece)
    scanner.end()
    return { events, error: undefined }
  } catch (error) {
    if (!(error instanceof JsonSyntaxError)) throw error
    return { events, error }
  }
}

const accepts = (bytes: Buffer) => {
  if (!isUtf8(bytes)) return false
  try {
    JSON.parse(bytes.toString())
    return true
  } catch {
    return false
  }
}

t.test(
  'reports the parts that were asked for, with exactly their bytes, however the text is cut',
  async (t) => {
    const expectedOf = (node: JsonNode, choose: Choose, path: JsonPath = [], events: Event[] = []) => {
      events.push(['begin', path, node.kind])
      const action = choose(path, node.kind)
      if (action === 'stream') {
        events.push(['bytes', path, Buffer.from(node.text).toString('latin1')])
        events.push(['end', path])
      } else if (action === 'enter' && (node.kind === 'object' || node.kind === 'array')) {
        for (const { key, node: child } of node.children) expectedOf(child, choose, [...path, key], events)
        events.push(['end', path])
      }
      return events
    }
    const chooser = (seed: number): Choose => {
      let calls = seed
      return () => {
        calls = (Math.imul(calls, 1_103_515_245) + 12_345) >>> 0
        const die = (calls >>> 16) % 10
        return die < 6 ? 'enter' : die < 9 ? 'stream' : 'skip'
      }
    }
    t.doesNotThrow(() =>
      fc.assert(
        fc.property(jsonNode, fc.nat(), cuts, (node, seed, shares) => {
          const { events, error } = scan(cut(Buffer.from(node.text), shares), chooser(seed))
          return (
            error === undefined && JSON.stringify(events) === JSON.stringify(expectedOf(node, chooser(seed)))
          )
        }),
        { numRuns: cases(1000) }
      )
    )
  }
)

t.test('accepts what JSON.parse accepts', async (t) => {
  t.doesNotThrow(() =>
    fc.assert(
      fc.property(jsonText, cuts, (text, shares) => {
        JSON.parse(text)
        const bytes = Buffer.from(text)
        const { events, error } = scan(cut(bytes, shares), () => 'stream')
        return error === undefined && events[1]![2] === bytes.toString('latin1').trim()
      }),
      { numRuns: cases(700) }
    )
  )
})

t.test('refuses what JSON.parse or UTF-8 refuse, at the same offset however the text is cut', async (t) => {
  const byte = fc.oneof(
    fc.constantFrom(...Buffer.from('{}[],:"\\0123456789.eE+-truefalsnul \n\t/\u0000\u001f')),
    fc.nat(255)
  )
  const edit = fc.record({
    at: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
    kind: fc.constantFrom('replace', 'insert', 'delete', 'cut'),
    byte
  })
  let refused = 0
  t.doesNotThrow(() =>
    fc.assert(
      fc.property(jsonText, fc.array(edit, { minLength: 1, maxLength: 3 }), cuts, (text, edits, shares) => {
        let bytes = Buffer.from(text)
        let first = Number.POSITIVE_INFINITY
        for (const { at, kind, byte } of edits) {
          const i = Math.floor(at * bytes.length)
          const rest = bytes.subarray(kind === 'insert' ? i : i + 1)
          const middle = kind === 'replace' || kind === 'insert' ? [byte] : []
          bytes = Buffer.concat([
            bytes.subarray(0, i),
            Buffer.from(middle),
            kind === 'cut' ? Buffer.alloc(0) : rest
          ])
          first = Math.min(first, i)
        }
        const { error } = scan([bytes])
        if ((error === undefined) !== accepts(bytes)) return false
        const again = scan(cut(bytes, shares)).error
        if (again?.message !== error?.message || again?.offset !== error?.offset) return false
        if (!error) return true
        refused++
        // the text before the first edit is the beginning of a JSON text
        if (error.offset < first) return false
        // a wrong byte is found as soon as it arrives, and no byte before it is wrong
        const before = scan([bytes.subarray(0, error.offset)]).error
        if (error.truncated) return error.offset === bytes.length
        if (scan([bytes.subarray(0, error.offset + 1)]).error?.truncated !== false) return false
        return before === undefined || before.truncated
      }),
      { numRuns: cases(1500) }
    )
  )
  t.ok(refused > 1000, `${refused} texts were refused`)
})

t.test('names the first wrong byte', async (t) => {
  const wrong: [string, number][] = [
    ['x', 0],
    ['[1 2]', 3],
    ['[1,]', 3],
    ['[,1]', 1],
    ['{,}', 1],
    ['{"a":1,}', 7],
    ['{"a" 1}', 5],
    ['{"a":}', 5],
    ['{a:1}', 1],
    ["{'a':1}", 1],
    ['[1}', 2],
    ['{"a":1]', 6],
    ['{"a":[1}}', 7],
    ['[1]]', 3],
    ['1 2', 2],
    ['{}{}', 2],
    ['01', 1],
    ['-01', 2],
    ['-a', 1],
    ['+1', 0],
    ['.5', 0],
    ['1.e5', 2],
    ['1.5.5', 3],
    ['1ee', 2],
    ['[1e+]', 4],
    ['0x10', 1],
    ['NaN', 0],
    ['nul1', 3],
    ['True', 0],
    ['truee', 4],
    ['"\\x41"', 2],
    ['"\\u12g4"', 5],
    ['"a\u0000"', 2],
    ['"a\nb"', 2],
    ['\ufeff[]', 0],
    ['[] // comment', 3],
    ['\u00a0[]', 0]
  ]
  for (const [text, offset] of wrong) {
    const { error } = scan([Buffer.from(text)])
    t.match(error, { offset, truncated: false }, JSON.stringify(text))
    t.match(scan(cut(Buffer.from(text), null)).error, { offset, truncated: false })
  }
})

t.test('refuses bytes that are not UTF-8', async (t) => {
  const wrong: [string, number][] = [
    ['80', 1],
    ['c080', 1],
    ['c1bf', 1],
    ['c341', 2],
    ['e08080', 2],
    ['e28228', 3],
    ['eda080', 2],
    ['f08080af', 2],
    ['f4908080', 2],
    ['f5808080', 1],
    ['ff', 1],
    ['e282', 3]
  ]
  for (const [hex, offset] of wrong) {
    const bytes = Buffer.concat([Buffer.from('"'), Buffer.from(hex, 'hex'), Buffer.from('"')])
    t.equal(isUtf8(bytes), false)
    for (const pieces of [[bytes], cut(bytes, null)]) {
      t.match(
        scan(pieces).error,
        { offset, truncated: false, message: `invalid UTF-8 at byte ${offset}` },
        hex
      )
    }
  }
})

t.test('says when the text has ended too soon', async (t) => {
  const text = ' {"a\\u00e9": [1, -2.5e-7, true, "x\\ud83dé😀"], "b": {"c": null}, "d": [[]]} '
  const bytes = Buffer.from(text)
  for (let length = 0; length < bytes.length - 1; length++) {
    const { error } = scan([bytes.subarray(0, length)])
    t.match(error, { truncated: true, offset: length }, `${length} bytes`)
  }
  t.equal(scan([bytes.subarray(0, -1)]).error, undefined)
  for (const text of ['-', '1.', '1e', '1e+', 'tru', '"', '"\\', '"\\u00', '[', '{"a"', '{"a":1']) {
    t.match(scan([Buffer.from(text)]).error, { truncated: true, offset: text.length }, text)
  }
  for (const text of ['0', '-0', '12', '1.0', '1e400', '1E+2']) {
    t.equal(scan([Buffer.from(text)], () => 'stream').events[1]![2], text)
  }
})

t.test('goes as deep as it may and no deeper', async (t) => {
  const nested = (depth: number) => Buffer.from(`${'[{"a":'.repeat(depth / 2)}1${'}]'.repeat(depth / 2)}`)
  for (const action of ['enter', 'stream', 'skip'] as const) {
    t.equal(scan([nested(100)], () => action, 100).error, undefined)
    t.match(scan([nested(102)], () => action, 100).error, { offset: 300, truncated: false })
    t.equal(scan(cut(nested(2000), null), () => action, 2000).error, undefined)
  }
  t.equal(scan([nested(1_000_000)], () => 'skip').error, undefined)
  const endless = scan(Array(200).fill(Buffer.alloc(64 * 1024, '[')), () => 'skip')
  t.match(endless.error, { offset: MAX_DEPTH, message: /nested deeper than 8388608 levels/ })
})

t.test('hands over views of its input, not copies', async (t) => {
  const bytes = Buffer.from('["abc",123]')
  const pieces: Uint8Array[] = []
  const scanner = new JsonScanner({
    begin: (path) => (path.length === 0 ? 'enter' : 'stream'),
    bytes: (piece) => pieces.push(piece),
    end: () => undefined
  })
  scanner.write(bytes)
  t.equal(scanner.offset, bytes.length)
  t.same(
    pieces.map(({ buffer, byteOffset, length }) => [
      buffer === bytes.buffer,
      byteOffset - bytes.byteOffset,
      length
    ]),
    [
      [true, 1, 5],
      [true, 7, 3]
    ]
  )
})

t.test('does not collect a member name without end', async (t) => {
  const piece = Buffer.alloc(16 * 1024, 'x')
  const pieces = [Buffer.from('{"'), ...Array.from({ length: 8 }, () => piece), Buffer.from('":1}')]
  t.match(scan(pieces).error, { message: /^member name too long/, truncated: false })
  t.equal(scan(pieces, () => 'stream').error, undefined, 'where the name is not wanted, it may be long')
})
