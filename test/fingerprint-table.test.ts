import fc from 'fast-check'
import t from 'tap'
import { FingerprintTable } from '../lib/ids/fingerprint-table.js'

const WIDTH = 4

/** Few segments and slots, so that entries meet. */
const print = fc.record({
  h: fc.oneof(fc.integer({ min: 0, max: 130 }), fc.integer({ min: 0xffffff00, max: 0xffffffff })),
  l: fc.oneof(fc.integer({ min: 0, max: 40 }), fc.integer({ min: 0, max: 0xffffffff }))
})

t.test('a table holds what a map does, whatever size was expected', async (t) => {
  fc.assert(
    fc.property(
      fc.array(print, { maxLength: 400 }),
      fc.array(print, { maxLength: 50 }),
      fc.constantFrom(0, 1, 100, 5000),
      (entries, others, expected) => {
        const table = new FingerprintTable(WIDTH, expected)
        const map = new Map<string, number>()
        const keyOf = ({ h, l }: { h: number; l: number }) => `${h} ${l}`
        const isAsInMap = (of: { h: number; l: number }) => {
          const place = table.find(of)
          const value = map.get(keyOf(of))
          return (
            table.isUsed(place) === (value !== undefined) &&
            table.word(place, 2) === (value ?? 0) &&
            (value === undefined || (table.word(place, 0) === of.h && table.word(place, 1) === of.l))
          )
        }
        for (const [i, entry] of entries.entries()) {
          if (!isAsInMap(entry)) return false
          const place = table.place(entry)
          table.setWord(place, 2, i + 1)
          table.setWord(place, WIDTH - 1, 1)
          map.set(keyOf(entry), i + 1)
        }
        return table.size === map.size && [...entries, ...others].every(isAsInMap)
      }
    )
  )
  t.pass('all of them')
})
