import t from 'tap'
import { partId, partRanges, rangesOf } from '../lib/repository/ids.js'
import { groupsOf } from '../lib/repository/part-documents.js'

const BACKUP = 'backup_1700000000000'

t.test('the ranges of a backup hold its parts, and those of no other', async (t) => {
  const isIn = (id: string, ranges: { from: string; to: string }[]) =>
    ranges.some(({ from, to }) => from <= id && id <= to)
  for (const kind of ['chunk', 'manifest'] as const) {
    for (const index of [0, 7, 999_999, 1_234_567]) {
      const id = partId(kind, BACKUP, 'components', index)
      t.ok(isIn(id, partRanges(BACKUP)))
      t.ok(isIn(id, partRanges(BACKUP, 'components')))
      t.notOk(isIn(id, partRanges(BACKUP, 'sessions')))
      t.notOk(isIn(id, partRanges(`${BACKUP}0`)))
      t.notOk(isIn(id, partRanges(BACKUP.slice(0, -1))))
    }
  }
})

t.test('ids of parts sort in the order of their numbers', async (t) => {
  const ids = [9, 10, 99, 100, 99_999].map((index) => partId('chunk', BACKUP, 'system', index))
  t.strictSame(ids.toSorted(), ids)
})

t.test(
  'parts of each maker and database are asked for by one range, from the first to the last',
  async (t) => {
    const of = (backup: string, database: 'components' | 'system', ...indexes: number[]) =>
      indexes.map((index) => partId('chunk', backup, database, index))
    const later = 'backup_1700000000001'
    t.strictSame(rangesOf([]), [])
    const parts = [
      ...of(later, 'components', 4),
      ...of(BACKUP, 'components', 12, 3, 7),
      ...of(BACKUP, 'system', 1, 0)
    ]
    const [first, last] = of(BACKUP, 'components', 3, 12)
    const [zero, one] = of(BACKUP, 'system', 0, 1)
    const [only] = of(later, 'components', 4)
    t.strictSame(rangesOf(parts), [
      { from: first, to: last },
      { from: zero, to: one },
      { from: only, to: only }
    ])
  }
)

t.test('parts are read and deleted in groups of 500', async (t) => {
  const sizes = (count: number) => [...groupsOf(Array.from({ length: count }))].map(({ length }) => length)
  t.strictSame(sizes(0), [])
  t.strictSame(sizes(500), [500])
  t.strictSame(sizes(1001), [500, 500, 1])
  t.strictSame([...groupsOf([1, 2])], [[1, 2]])
})
