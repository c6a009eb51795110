import { gzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { DamagedBackupError } from '../lib/errors.js'
import { fingerprint } from '../lib/ids/fingerprint.js'
import { ChunkReader } from '../lib/repository/chunk-reader.js'
import { gzip, sha256Of } from '../lib/repository/codec.js'
import { readIndex } from '../lib/repository/document-index.js'
import type { ChunkEntry } from '../lib/repository/layout.js'
import { LineMarks } from '../lib/repository/line-marks.js'
import { startAnsweringCouch } from './helpers/couch-client.js'

/** Reads a chunk of these lines as an index. `changed`: what its entry tells that is not so. */
async function read(t: Test, lines: readonly unknown[], changed: Partial<ChunkEntry> = {}) {
  const texts = lines.map((line) => (typeof line === 'string' ? line : JSON.stringify(line)))
  const raw = Buffer.from(texts.map((text) => `${text}\n`).join(''))
  const stored = gzipSync(raw)
  const { db } = await startAnsweringCouch(t, (_request, response) => void response.end(stored))
  const entry: ChunkEntry = {
    id: 'index',
    rev: '1-a',
    docs: lines.length,
    design: 0,
    raw: raw.length,
    stored: stored.length,
    sha256: sha256Of(stored),
    ...changed
  }
  const found: unknown[] = []
  for await (const { lines } of readIndex(new ChunkReader(db, gzip), [entry]))
    for await (const { chunk, first, marks, bytes } of lines)
      found.push([chunk, first, marks.toBase64(), bytes.toString() === texts[found.length]])
  return found
}

const marks = LineMarks.empty()
marks.add(fingerprint('a'), 12)
const MARKS = marks.toBase64()

t.test('the lines of an index are read in order, however many', async (t) => {
  const lines = Array.from({ length: 250 }, (_, i) => [`chunk ${i % 3}`, i, MARKS])
  t.strictSame(
    await read(t, lines),
    lines.map((line) => [...line, true])
  )
})

t.test('what is not an index is not read as one', async (t) => {
  for (const line of [
    { _id: 'a' },
    '{"_id":',
    'null',
    [7, 0, MARKS],
    [undefined, 0, MARKS],
    ['chunk', '0', MARKS],
    ['chunk', 0.5, MARKS],
    ['chunk', 0],
    ['chunk', 0, 'AAAA']
  ])
    await t.rejects(read(t, [['chunk', 0, MARKS], line]), DamagedBackupError, JSON.stringify(line))
})

t.test('an index of more or fewer lines than are listed, or of a large chunk, is damaged', async (t) => {
  const lines = [0, 1].map((first) => ['chunk', first, MARKS])
  for (const changed of [{ docs: 1 }, { docs: 3 }, { large: 'x' }])
    await t.rejects(read(t, lines, changed), DamagedBackupError, JSON.stringify(changed))
})
