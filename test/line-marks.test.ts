import t from 'tap'
import { LineMarks } from '../lib/repository/line-marks.js'

const print = (i: number) => ({ h: i * 7 - 3, l: (i * 2_654_435_761) >>> 0 })
const unsigned = ({ h, l }: { h: number; l: number }) => ({ h: h >>> 0, l: l >>> 0 })

t.test('marks are read as they were written, whatever their number', async (t) => {
  for (const count of [0, 1, 63, 64, 65, 128, 129, 1000]) {
    const marks = LineMarks.empty()
    for (let i = 0; i < count; i++) marks.add(print(i), i % 2 === 0 ? i : LineMarks.LARGE)
    const read = LineMarks.fromBase64(marks.toBase64())!
    t.equal(read.count, count)
    const told = Array.from({ length: count }, (_, i) => [read.print(i), read.length(i)])
    const written = Array.from({ length: count }, (_, i) => [
      unsigned(print(i)),
      i % 2 === 0 ? i : LineMarks.LARGE
    ])
    t.strictSame(told, written)
  }
})

t.test('a slice holds the marks of its lines', async (t) => {
  const marks = LineMarks.empty()
  for (let i = 0; i < 100; i++) marks.add(print(i), i)
  const some = marks.slice(20, 30)
  t.equal(some.count, 10)
  t.strictSame([some.print(0), some.length(9)], [unsigned(print(20)), 29])
  t.equal(some.toBase64().length, 160)
  const one = some.slice(5, 6).withLength(3)
  t.strictSame([one.count, one.print(0), one.length(0)], [1, unsigned(print(25)), 3])
})

t.test('what is no marks is refused', async (t) => {
  for (const text of [undefined, 12, {}, 'AAAA', Buffer.alloc(13).toString('base64')])
    t.equal(LineMarks.fromBase64(text), undefined)
  t.equal(LineMarks.fromBase64('')!.count, 0)
})
