import fc from 'fast-check'
import t from 'tap'
import { CopyIndex } from '../lib/store/copy-index.js'

const operations = fc.array(
  fc.record({
    id: fc.oneof(
      fc.nat(12).map((n) => `doc_${n}`),
      fc.string({ unit: 'binary', maxLength: 2 })
    ),
    remove: fc.nat(4).map((n) => n === 0)
  }),
  { maxLength: 60 }
)

t.test('tells the last copy of every document, as a map of all of them would', async (t) => {
  t.doesNotThrow(() =>
    fc.assert(
      fc.property(operations, fc.constantFrom(0, 10, 100_000), (all, expected) => {
        const index = new CopyIndex(expected)
        const last = new Map<string, number>()
        const copies: string[] = []
        for (const { id, remove } of all) {
          if (remove) {
            index.noteDeleted(id)
            if (last.has(id)) last.set(id, -1)
          } else {
            if (index.note(id) !== copies.length) return false
            last.set(id, copies.length)
            copies.push(id)
          }
        }
        return (
          index.copies === copies.length &&
          copies.every((id, ordinal) => index.isLast(id, ordinal) === (last.get(id) === ordinal))
        )
      }),
      { numRuns: 1000 }
    )
  )
})

t.test('keeps only documents that may have come again', async (t) => {
  const count = 200_000
  const index = new CopyIndex(count)
  for (let i = 0; i < count; i++) index.note(`doc_${i}`)
  const mistaken = index.repeated.size
  t.ok(mistaken < count / 1000, `${mistaken} of ${count} by mistake`)
  for (let i = 0; i < count; i += 1000) index.note(`doc_${i}`)
  for (let i = 500; i < count; i += 1000) index.noteDeleted(`doc_${i}`)
  for (let i = 0; i < count; i++) index.noteDeleted(`other_${i}`)
  t.ok(index.repeated.size < 400 + 3 * (mistaken + 100))
  let wrong = 0
  for (let i = 0; i < count; i++) {
    const counts = i % 1000 !== 0 && i % 1000 !== 500
    if (index.isLast(`doc_${i}`, i) !== counts) wrong++
  }
  for (let i = 0; i < count / 1000; i++) if (!index.isLast(`doc_${i * 1000}`, count + i)) wrong++
  t.equal(wrong, 0)
})

t.test('is right also with more documents than expected', async (t) => {
  const index = new CopyIndex(0)
  const count = 50_000
  for (let i = 0; i < count; i++) index.note(`doc_${i}`)
  let wrong = 0
  for (let i = 0; i < count; i++) if (!index.isLast(`doc_${i}`, i)) wrong++
  t.equal(wrong, 0)
})
