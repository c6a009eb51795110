import fc from 'fast-check'
import t from 'tap'
import { compareSides } from '../lib/diff/compare-sides.js'
import { storedSide } from '../lib/diff/side.js'
import { UnsharedDocuments } from '../lib/repository/stored-documents.js'
import { sorted, type Told } from './helpers/naive-diff.js'
import { cases } from './helpers/settings.js'

type Documents = Record<string, { v: number; rev: number }>

/** Lays documents in chunks of some lines, as a backup does. */
function sideOf(documents: Documents, perChunk: number, reads: { chunks: number }) {
  const lines = Object.entries(documents).map(([id, { v, rev }]) =>
    Buffer.from(`{"_id":"${id}","_rev":"${rev}-a","type":"${v % 5 === 0 ? 'kept out' : 'x'}","v":${v}}`)
  )
  const chunks = Array.from({ length: Math.ceil(lines.length / perChunk) }, (_, i) =>
    lines.slice(i * perChunk, (i + 1) * perChunk)
  )
  const sizes = chunks.map((chunk) => ({
    entry: {} as never,
    documents: chunk.length,
    bytes: chunk.reduce((sum, line) => sum + line.length, 0)
  }))
  const unshared = new UnsharedDocuments(sizes, async function* (wanted) {
    for (const [chunk, group] of chunks.entries()) {
      if (!wanted(chunk)) continue
      reads.chunks++
      // the memory of a chunk is used again for the next
      const memory = group.map((line) => Buffer.from(line))
      yield {
        chunk,
        kind: 'lines' as const,
        counting: async function* () {
          yield memory
        }
      }
      for (const line of memory) line.fill(0)
    }
  })
  return storedSide(unshared, () => {
    throw new Error('nothing is large')
  })
}

const documents: fc.Arbitrary<Documents> = fc.dictionary(
  fc.integer({ min: 0, max: 40 }).map((n) => `doc ${n}`),
  fc.record({ v: fc.nat(6), rev: fc.integer({ min: 1, max: 3 }) }),
  { maxKeys: 40, size: 'max' }
)

const settings = fc.record({
  perChunk: fc.integer({ min: 1, max: 9 }),
  window: fc.constantFrom(1, 1000, 5000, 1_000_000),
  indexed: fc.constantFrom(7, 1000)
})

t.test('however little fits in memory, each document that differs is told once', async () => {
  await fc.assert(
    fc.asyncProperty(documents, documents, settings, async (before, after, { perChunk, window, indexed }) => {
      const reads = { chunks: 0 }
      const sides = [before, after].map((one) => sideOf(one, perChunk, reads))
      const leftOut = new Set(['kept out'])
      const options = { ...OPTIONS, leftOut }
      const found = []
      for await (const one of compareSides(sides[0]!, sides[1]!, { ...options, window, indexed }))
        found.push(one)
      const expected = [...new Set([...Object.keys(before), ...Object.keys(after)])].flatMap((id): Told[] => {
        const [one, other] = [before[id]?.v, after[id]?.v]
        if (one === other) return []
        const told = { database: 'components' as const, id }
        if (other === undefined) return one! % 5 === 0 ? [] : [{ ...told, change: 'deleted' as const }]
        if (one === undefined) return other % 5 === 0 ? [] : [{ ...told, change: 'created' as const }]
        const types = (one % 5 === 0) !== (other % 5 === 0) ? ['type'] : []
        return [{ ...told, change: 'changed' as const, fields: [...types, 'v'] }]
      })
      if (sorted(found).join() !== sorted(expected).join())
        throw new Error(`${sorted(found).join()}; expected ${sorted(expected).join()}`)
    }),
    { numRuns: cases(20) }
  )
})

const OPTIONS = {
  database: 'components',
  values: false,
  leftOut: new Set<string>(),
  isUnread: () => false
} as const

t.test(
  'documents that the held side lacks come once where its documents fill the window exactly',
  async (t) => {
    const reads = { chunks: 0 }
    const [small, large] = [{ a: { v: 1, rev: 1 } }, { a: { v: 1, rev: 1 }, b: { v: 1, rev: 1 } }]
    const [held, streamed] = [sideOf(small, 1, reads), sideOf(large, 1, reads)]
    const found = []
    for await (const one of compareSides(held, streamed, { ...OPTIONS, window: held.bytes })) found.push(one)
    t.match(found, [{ id: 'b', change: 'created' }])
    t.equal(found.length, 1)
  }
)

t.test(
  'what is the same is read once where an index is needed, and what is held is read again',
  async (t) => {
    const all = Object.fromEntries(Array.from({ length: 1000 }, (_, n) => [`doc ${n}`, { v: 1, rev: 1 }]))
    const reads = { chunks: 0 }
    const changed = { ...all, 'doc 500': { v: 2, rev: 2 } }
    const sides = [all, changed].map((one) => sideOf(one, 10, reads))
    const found = []
    for await (const one of compareSides(sides[0]!, sides[1]!, { ...OPTIONS, window: 1000 })) found.push(one)
    t.match(found, [{ id: 'doc 500', change: 'changed', fields: ['v'] }])
    t.equal(reads.chunks, 100 + 100 + 1 + 1)
  }
)
