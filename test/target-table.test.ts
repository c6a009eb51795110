import { createHash } from 'node:crypto'
import fc from 'fast-check'
import t from 'tap'
import { partitionOf, TargetTable } from '../lib/restore/target-table.js'
import { character } from './helpers/arbitraries.js'
import { cases, extent } from './helpers/settings.js'

const digest = (text: string) => createHash('md5').update(text).digest('hex')

const rev = fc
  .tuple(
    fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 2 ** 31 - 1 })),
    fc.oneof(
      fc.string({ unit: fc.constantFrom(...'0123456789abcdef'), minLength: 32, maxLength: 32 }),
      fc.constantFrom(
        '0'.repeat(32),
        `${'0'.repeat(31)}1`,
        'f'.repeat(32),
        'F'.repeat(32),
        'abc',
        '1-2',
        'ü',
        'x'.repeat(100)
      )
    )
  )
  .map(([generation, digest]) => `${generation}-${digest}`)

const id = fc.oneof(fc.nat(8).map(String), fc.string({ unit: character, maxLength: 3 }))

t.test('compares revisions as a map does', async (t) => {
  const operation = fc.record({ id, rev: fc.option(rev) })
  t.doesNotThrow(() =>
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 60 }), fc.constantFrom(0, 10_000), (all, expected) => {
        const table = new TargetTable(expected)
        const model = new Map<string, string>()
        const seen = new Set<string>()
        for (const { id, rev } of all) {
          // a table is filled before it is read
          if (seen.size === 0 && rev !== null) {
            table.set(id, { rev })
            model.set(id, rev)
          } else {
            const expected = !model.has(id) ? 'absent' : model.get(id) === rev ? 'same' : 'other'
            if (table.compare(id, rev === null ? undefined : { rev }) !== expected) return false
            if (model.has(id)) seen.add(id)
          }
          if (table.has(id) !== model.has(id) || table.wasSeen(id) !== seen.has(id)) return false
        }
        return (
          table.size === model.size && [...model].every(([id, rev]) => table.compare(id, { rev }) === 'same')
        )
      }),
      { numRuns: cases(500) }
    )
  )
})

t.test('grows beyond what was expected, and forgets nothing', async (t) => {
  const count = extent(40_000, 200_000)
  const table = new TargetTable(10)
  const revOf = (i: number) => `${(i % 50) + 1}-${i % 1000 === 0 ? `other${i}` : digest(`${i}`)}`
  for (let i = 0; i < count; i++) table.set(`doc_${i}`, { rev: revOf(i) })
  t.equal(table.size, count)
  let wrong = 0
  for (let i = 0; i < count; i += 2) if (table.compare(`doc_${i}`, { rev: revOf(i) }) !== 'same') wrong++
  for (let i = 0; i < count; i++) if (table.wasSeen(`doc_${i}`) !== (i % 2 === 0)) wrong++
  for (let i = 1; i < count; i += 2) if (table.compare(`doc_${i}`, { rev: revOf(i + 1) }) !== 'other') wrong++
  for (let i = 0; i < count; i++)
    if (table.has(`other_${i}`) || table.compare(`other_${i}`, { rev: revOf(i) }) !== 'absent') wrong++
  t.equal(wrong, 0)
})

t.test('every document belongs to one partition, and partitions are about equal', async (t) => {
  const counts = new Array<number>(7).fill(0)
  for (let i = 0; i < 70_000; i++) {
    const partition = partitionOf(`doc_${i}`, 7)
    counts[partition]!++
    if (partition !== partitionOf(`doc_${i}`, 7)) t.fail('the same document, another partition')
  }
  t.equal(counts.length, 7)
  for (const count of counts) t.ok(Math.abs(count - 10_000) < 1000, `${count}`)
  t.equal(partitionOf('any', 1), 0)
})
