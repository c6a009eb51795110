import t from 'tap'
import { OrdinalSet } from '../lib/ids/ordinal-set.js'
import { ChunkList } from '../lib/repository/chunk-list.js'
import type { ChunkEntry } from '../lib/repository/layout.js'
import { decodeLines, encodeDead, encodeLines, liveConflicts } from '../lib/repository/line-set.js'
import { inTurns } from '../lib/waits/steps.js'

const USUAL = 1000

/** Returns the entry of a chunk of ten lines. `wasted`: bytes of its first line, which does not count. */
function entry(
  id: string,
  { wasted = 0, ...rest }: Partial<ChunkEntry> & { wasted?: number } = {}
): ChunkEntry {
  const dead = wasted > 0 && { dead: encodeDead(OrdinalSet.of([0]), wasted, 10) }
  return { id, rev: '1-a', docs: 10, design: 0, raw: USUAL, stored: 100, sha256: '', ...dead, ...rest }
}

const idsOf = (entries: readonly { id: string }[]) => entries.map(({ id }) => id)
const deadOf = ({ dead }: ChunkEntry, docs: number) =>
  Array.from({ length: docs }, (_, line) => line).filter((line) =>
    decodeLines(dead?.lines ?? encodeLines(new OrdinalSet(), docs), docs).has(line)
  )

t.test('lines that are dropped are told once, with their bytes, beside those known before', async (t) => {
  const list = new ChunkList([entry('a'), entry('b', { wasted: 70 }), entry('c')])
  for (const [chunk, line, length] of [
    ['a', 0, 10],
    ['a', 0, 10],
    ['a', 9, 20],
    // beyond the last line, and of a chunk that is not listed
    ['a', 10, 40],
    ['z', 0, 40],
    ['b', 0, 70],
    ['b', 3, 5]
  ] as const)
    list.drop(chunk, line, length)
  t.strictSame(list.entries[0]!.dead, undefined, 'only settled entries tell')
  await inTurns(list.settle())
  const [a, b, c] = list.entries
  t.match(a!.dead, { docs: 2, raw: 30 })
  t.strictSame(deadOf(a!, 10), [0, 9])
  t.match(b!.dead, { docs: 2, raw: 75 })
  t.strictSame(deadOf(b!, 10), [0, 3])
  t.equal(c!.dead, undefined)
  list.drop('a', 1, 4)
  await inTurns(list.settle())
  t.match(list.entries[0]!.dead, { docs: 3, raw: 34 })
  t.notOk(list.has('z'))
})

t.test('a chunk of which no line counts is not listed any more', async (t) => {
  const list = new ChunkList([
    entry('two', { docs: 2 }),
    entry('large', { docs: 1, raw: 9000, large: 'x' }),
    entry('other')
  ])
  list.drop('two', 0, 500)
  list.drop('other', 0, 500)
  await inTurns(list.settle())
  t.strictSame(idsOf(list.entries), ['two', 'large', 'other'])
  list.drop('two', 1, 500)
  list.drop('large', 0, 0xffffffff)
  await inTurns(list.settle())
  t.strictSame(idsOf(list.entries), ['other'])
  t.notOk(list.has('large'))
})

t.test('a line of a large chunk has the bytes that its entry tells', async (t) => {
  const list = new ChunkList([entry('large', { docs: 2, raw: 9000, large: 'x' })])
  list.drop('large', 0, 0xffffffff)
  await inTurns(list.settle())
  t.match(list.entries[0]!.dead, { docs: 1, raw: 9000 })
})

t.test('what wastes most is written anew, until no more than a share of all is waste', async (t) => {
  const list = new ChunkList([
    entry('a', { wasted: 100 }),
    entry('b', { wasted: 400 }),
    entry('c', { wasted: 300 }),
    entry('d')
  ])
  const rewritten = (share: number) => idsOf(list.toRewrite(share, USUAL))
  t.strictSame(rewritten(0.2), [], '800 of 4000 bytes')
  t.strictSame(rewritten(0.19), ['b'], '400 of 3600 bytes are left')
  t.strictSame(rewritten(400 / 3600), ['b'])
  t.strictSame(rewritten(0.11), ['b', 'c'], '100 of 3300 are left')
  t.strictSame(rewritten(0.01), ['a', 'b', 'c'])
})

t.test('waste of stored bytes counts as well', async (t) => {
  const list = new ChunkList([
    entry('packed', { wasted: 100, stored: 10 }),
    entry('loose', { wasted: 300, stored: 9000 }),
    entry('rest', { stored: 90, raw: 8000 })
  ])
  t.strictSame(
    idsOf(list.toRewrite(0.2, USUAL)),
    ['loose'],
    '400 of 10000 bytes, but 2701 of 9100 stored ones'
  )
  t.strictSame(idsOf(list.toRewrite(0.3, USUAL)), [])
})

t.test('large chunks are never written anew, whatever they waste', async (t) => {
  const list = new ChunkList([entry('large', { wasted: 900, large: 'x' }), entry('lines', { wasted: 10 })])
  t.strictSame(idsOf(list.toRewrite(0.1, USUAL)), ['lines'])
})

const many = (id: string, count: number, more: Parameters<typeof entry>[1] = {}) =>
  Array.from({ length: count }, (_, i) => entry(`${id}${i}`, more))
const small = (count: number) => many('small', count, { raw: 499 })

t.test('small chunks are joined when they are many beside the others', async (t) => {
  for (const [others, most] of [
    [0, 2],
    [3, 2],
    [5, 2],
    [6, 3],
    [16, 8],
    [100, 8]
  ] as const) {
    const usual = [
      ...many('usual', others - 1, { raw: 500 }),
      ...(others ? [entry('large', { large: 'x' })] : [])
    ]
    const rewritten = (count: number) =>
      idsOf(new ChunkList([...usual, ...small(count)]).toRewrite(0.5, USUAL))
    t.strictSame(rewritten(most), [], `${most} beside ${others}`)
    t.strictSame(rewritten(most + 1), idsOf(small(most + 1)), `one more beside ${others}`)
  }
})

t.test('what counts decides whether a chunk is small, and where no more are taken none is', async (t) => {
  const rewritten = (...entries: ChunkEntry[]) =>
    idsOf(new ChunkList([...entries, ...many('usual', 16)]).toRewrite(0.5, USUAL))
  const shrunk = entry('shrunk', { wasted: 501 })
  t.strictSame(rewritten(...small(8), shrunk), idsOf([...small(8), shrunk]))
  const whole = small(9).map((one) => ({ ...one, whole: true as const }))
  t.strictSame(rewritten(...whole), [])
  t.strictSame(rewritten(...small(8), ...whole.slice(0, 1).map((one) => ({ ...one, id: 'w' }))), [])
  const wasteful = entry('wasteful', { raw: 40_000, wasted: 39_999 })
  t.strictSame(
    rewritten(...small(8), wasteful),
    idsOf([...small(8), wasteful]),
    'beside one that is written anew'
  )
})

t.test('documents with conflicts are counted where they count', async (t) => {
  const conflicts = (...lines: number[]) => encodeLines(OrdinalSet.of(lines), 10)
  t.equal(liveConflicts(entry('a')), 0)
  t.equal(liveConflicts(entry('a', { conflicts: conflicts(0, 4, 9) })), 3)
  const dead = (...lines: number[]) => ({ dead: encodeDead(OrdinalSet.of(lines), 1, 10) })
  t.equal(liveConflicts(entry('a', { conflicts: conflicts(0, 4, 9), ...dead(4, 5) })), 2)
  t.equal(liveConflicts(entry('a', { conflicts: conflicts(0, 4, 9), ...dead(0, 9) })), 1)
})
