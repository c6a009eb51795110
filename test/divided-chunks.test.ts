/** Lines that take more than the largest request lie in several chunks. */
import { randomBytes } from 'node:crypto'
import t, { type Test } from 'tap'
import { ChunkPlaces } from '../lib/repository/chunk-places.js'
import { ChunkReader } from '../lib/repository/chunk-reader.js'
import { ChunkWriter } from '../lib/repository/chunk-writer.js'
import { gzip } from '../lib/repository/codec.js'
import { CHUNK_BYTES, type ChunkEntry } from '../lib/repository/layout.js'
import type { LineMarks } from '../lib/repository/line-marks.js'
import { conflictLinesOf } from '../lib/repository/line-set.js'
import { factsOf } from './helpers/chunk-writer.js'
import { faultyDatabase } from './helpers/couch-client.js'

const MOST = 64 * 1024

async function setup(t: Test) {
  const { db, client } = await faultyDatabase(t, 'system')
  client.size.bytes = MOST
  const told = new Map<string, { ordinal: number; marks: LineMarks }>()
  const writer = new ChunkWriter({
    db,
    codec: gzip,
    chunkBytes: CHUNK_BYTES,
    places: new ChunkPlaces({
      db,
      backup: '03_ibp_db_backup_1592924104038',
      database: 'components',
      first: 0
    }),
    onRefused: () => t.fail('nothing is refused'),
    async onStored({ id }, ordinal, marks) {
      told.set(id, { ordinal, marks })
    }
  })
  const reader = new ChunkReader(db, gzip)
  const linesIn = async (entry: ChunkEntry) => (await reader.lines(entry)).toString().trimEnd().split('\n')
  return { writer, told, linesIn }
}

t.test('they keep their order and numbers, and what is known of each', async (t) => {
  const { writer, told, linesIn } = await setup(t)
  const lines = Array.from({ length: 100 }, (_, i) => {
    const text = randomBytes(i % 3 === 0 ? 100 : 4000).toString('base64')
    return {
      id: `d${i}`,
      design: i % 7 === 0,
      conflicted: i % 5 === 0,
      json: `{"_id":"d${i}","t":"${text}"}`
    }
  })
  for (const { id, json, ...facts } of lines) await writer.add(Buffer.from(json), factsOf(id, facts))
  const entries = await writer.flush()
  t.ok(entries.length > 2)
  let first = 0
  for (const entry of entries) {
    const here = lines.slice(first, first + entry.docs)
    t.ok(entry.stored <= MOST)
    t.strictSame(
      await linesIn(entry),
      here.map(({ json }) => json)
    )
    t.equal(entry.design, here.filter(({ design }) => design).length)
    const conflicts = conflictLinesOf(entry)
    t.strictSame(
      here.map((_, i) => conflicts.has(i)),
      here.map(({ conflicted }) => conflicted)
    )
    const { ordinal, marks } = told.get(entry.id)!
    t.equal(ordinal, first)
    t.strictSame(
      Array.from({ length: marks.count }, (_, i) => [marks.print(i).h, marks.length(i)]),
      here.map(({ id, json }) => [factsOf(id).print.h >>> 0, json.length + 1])
    )
    first += entry.docs
  }
  t.equal(first, lines.length)
})

t.test('they are not joined by later backups, but what was too few for a chunk is', async (t) => {
  const { writer } = await setup(t)
  const line = (i: number) => Buffer.from(`{"_id":"${i}","t":"${randomBytes(4000).toString('base64')}"}`)
  for (let i = 0; i < 40; i++) await writer.add(line(i))
  const divided = await writer.flush()
  t.ok(divided.every(({ whole }) => whole))
  for (let i = 0; i < 40; i++) await writer.add(line(i))
  const filled = await writer.flush()
  t.ok(filled.length > 1)
  t.ok(filled.every(({ stored }) => stored > MOST / 3 && stored <= MOST))
  t.strictSame(
    filled.map(({ whole = false }) => whole),
    filled.map((_, i) => i < filled.length - 1)
  )
  await writer.add(line(0))
  t.match(await writer.flush(), [{ docs: 1, whole: undefined }])
})
