import fc from 'fast-check'
import t from 'tap'
import { fingerprint } from '../lib/ids/fingerprint.js'
import { largeKey } from '../lib/ids/large-key.js'
import { OrdinalSet } from '../lib/ids/ordinal-set.js'
import { LastVersions, VersionIndex } from '../lib/ids/version-index.js'
import { character } from './helpers/arbitraries.js'
import { cases } from './helpers/settings.js'

const operations = fc.array(
  fc.record({
    id: fc.oneof(
      fc.nat(12).map((n) => `doc_${n}`),
      fc.string({ unit: character, maxLength: 2 })
    ),
    remove: fc.nat(4).map((n) => n === 0)
  }),
  { maxLength: 60 }
)

t.test('tells the last version of every document, as a map of all of them would', async (t) => {
  t.doesNotThrow(() =>
    fc.assert(
      fc.property(operations, fc.constantFrom(0, 10, 100_000), (all, expected) => {
        const index = new VersionIndex(expected)
        const last = new Map<string, number>()
        const versions: string[] = []
        for (const { id, remove } of all) {
          if (remove) {
            index.noteDeleted(fingerprint(id))
            if (last.has(id)) last.set(id, -1)
          } else {
            if (index.note(fingerprint(id)) !== versions.length) return false
            last.set(id, versions.length)
            versions.push(id)
          }
        }
        return (
          index.count === versions.length &&
          versions.every(
            (id, ordinal) => index.isLast(fingerprint(id), ordinal) === (last.get(id) === ordinal)
          )
        )
      }),
      { numRuns: cases(300) }
    )
  )
})

t.test('keeps only documents that may have come again', async (t) => {
  const count = 200_000
  const index = new VersionIndex(count)
  for (let i = 0; i < count; i++) index.note(fingerprint(`doc_${i}`))
  const mistaken = index.repeated.size
  t.ok(mistaken < count / 1000, `${mistaken} of ${count} by mistake`)
  for (let i = 0; i < count; i += 1000) index.note(fingerprint(`doc_${i}`))
  for (let i = 500; i < count; i += 1000) index.noteDeleted(fingerprint(`doc_${i}`))
  for (let i = 0; i < count; i++) index.noteDeleted(fingerprint(`other_${i}`))
  t.ok(index.repeated.size < 400 + 3 * (mistaken + 100))
  let wrong = 0
  for (let i = 0; i < count; i++) {
    const counts = i % 1000 !== 0 && i % 1000 !== 500
    if (index.isLast(fingerprint(`doc_${i}`), i) !== counts) wrong++
  }
  for (let i = 0; i < count / 1000; i++) if (!index.isLast(fingerprint(`doc_${i * 1000}`), count + i)) wrong++
  t.equal(wrong, 0)
})

t.test('is right even with more documents than expected', async (t) => {
  const index = new VersionIndex(0)
  const count = 50_000
  for (let i = 0; i < count; i++) index.note(fingerprint(`doc_${i}`))
  let wrong = 0
  for (let i = 0; i < count; i++) if (!index.isLast(fingerprint(`doc_${i}`), i)) wrong++
  t.equal(wrong, 0)
})

t.test('ids of any length are told apart', async (t) => {
  const index = new VersionIndex()
  const id = 'x'.repeat(1_000_000)
  for (let time = 0; time < 2; time++) for (let i = 0; i < 100; i++) index.note(fingerprint(`${id}${i}`))
  t.equal(index.repeated.size, 100)
  t.notOk(index.isLast(fingerprint(`${id}7`), 7))
  t.ok(index.isLast(fingerprint(`${id}7`), 107))
})

t.test(
  'a long id and its key are the same document, as earlier backups and this version write them',
  async (t) => {
    const id = `${'é"'.repeat(300)}`
    t.not(largeKey(id), id)
    t.equal(largeKey(largeKey(id)), largeKey(id))
    for (const written of [id, largeKey(id)]) {
      const versions = new LastVersions()
      versions.put(fingerprint(written), 5)
      for (const asked of [id, largeKey(id)]) {
        t.notOk(versions.isLast(fingerprint(asked), 4))
        t.ok(versions.isLast(fingerprint(asked), 5))
      }
    }
  }
)

t.test('where each document may have an earlier version elsewhere, all are kept', async (t) => {
  const index = new VersionIndex(null)
  for (const id of ['a', 'b']) index.note(fingerprint(id))
  for (const id of ['b', 'c']) index.noteDeleted(fingerprint(id))
  const { repeated } = index
  t.equal(repeated.size, 3)
  t.ok(index.isLast(fingerprint('a'), 0))
  for (const id of ['b', 'c'])
    for (const ordinal of [-2, 0, 1]) t.notOk(index.isLast(fingerprint(id), ordinal))
  t.notOk(index.isLast(fingerprint('a'), -2), 'the version elsewhere')
  t.ok(index.isLast(fingerprint('d'), -2), 'of a document that did not come, the version elsewhere counts')
})

t.test('a set of ordinals is a set', async (t) => {
  t.doesNotThrow(() =>
    fc.assert(
      fc.property(fc.array(fc.nat(40_000)), fc.array(fc.nat(40_000)), (added, asked) => {
        const [set, expected] = [OrdinalSet.of(added), new Set(added)]
        return set.size === expected.size && [...added, ...asked].every((n) => set.has(n) === expected.has(n))
      })
    )
  )
})

t.test('ids that differ in half a character are different ids, long ones too', async (t) => {
  for (const start of ['a', 'a'.repeat(600)]) {
    const index = new VersionIndex()
    for (const end of ['\ud800', '\ud801', '\ufffd']) index.note(fingerprint(start + end))
    t.ok(index.isLast(fingerprint(`${start}\ud800`), 0))
    t.ok(index.isLast(fingerprint(`${start}\ud801`), 1))
    t.ok(index.isLast(fingerprint(`${start}\ufffd`), 2))
  }
})
