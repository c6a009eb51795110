import fc from 'fast-check'
import t from 'tap'
import { OrdinalSet } from '../lib/ids/ordinal-set.js'
import { decodeLines, encodeLines } from '../lib/repository/line-set.js'
import { cases } from './helpers/settings.js'

const membersOf = (lines: OrdinalSet, count: number) =>
  Array.from({ length: count }, (_, line) => line).filter((line) => lines.has(line))

const sets = fc.oneof(
  fc.array(fc.boolean(), { maxLength: 400 }),
  // a few runs
  fc
    .array(fc.tuple(fc.boolean(), fc.nat(300)), { maxLength: 8 })
    .map((runs) => runs.flatMap(([isIn, length]) => Array.from({ length }, () => isIn)))
)

t.test('a set of lines is read as it was written, in no more than a bit for each line', async (t) => {
  t.doesNotThrow(() =>
    fc.assert(
      fc.property(sets, (all) => {
        const members = all.flatMap((isIn, line) => (isIn ? [line] : []))
        const text = encodeLines(OrdinalSet.of(members), all.length)
        const read = decodeLines(text, all.length)
        const most = 1 + Math.ceil(all.length / 8)
        return (
          Buffer.from(text, 'base64').length <= most &&
          read.size === members.length &&
          JSON.stringify(membersOf(read, all.length)) === JSON.stringify(members)
        )
      }),
      { numRuns: cases(500) }
    )
  )
})

t.test('a few lines among many take a few bytes', async (t) => {
  t.equal(Buffer.from(encodeLines(OrdinalSet.of([39_999]), 40_000), 'base64').length, 5)
  t.equal(encodeLines(new OrdinalSet(), 40_000), 'AA==')
})

t.test('lines beyond the last are refused, whatever the text', async (t) => {
  for (const [members, count] of [
    [[9], 10],
    [[0, 2, 4, 6, 8, 9], 10]
  ] as const) {
    const text = encodeLines(OrdinalSet.of(members), count)
    t.equal(decodeLines(text, count).size, members.length)
    t.throws(() => decodeLines(text, count - 1), RangeError)
  }
  t.throws(
    () => decodeLines(Buffer.from([0, 0, 255, 255, 255, 255, 255, 255, 127]).toString('base64'), 10),
    RangeError
  )
  t.doesNotThrow(() =>
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 20 }), fc.nat(100), (bytes, count) => {
        try {
          return decodeLines(Buffer.from(bytes).toString('base64'), count).size <= count
        } catch (error) {
          return error instanceof RangeError
        }
      }),
      { numRuns: cases(500) }
    )
  )
})
