import t from 'tap'
import { fingerprint } from '../lib/ids/fingerprint.js'
import type { ChunkReader } from '../lib/repository/chunk-reader.js'
import type { ChunkEntry } from '../lib/repository/layout.js'
import { SupersededVersions } from '../lib/repository/superseded-versions.js'

async function read(text: string): Promise<SupersededVersions> {
  const versions = new SupersededVersions()
  const reader = { lines: async () => Buffer.from(text) } as unknown as ChunkReader
  await versions.read(reader, { id: 'chunk' } as ChunkEntry)
  return versions
}

t.test('the last version of a document counts, none of a deleted one, and all of others', async (t) => {
  const versions = await read('["again",7]\n["gone",-1]\n')
  const counting = (id: string) => [6, 7].filter((ordinal) => versions.isLast(fingerprint(id), ordinal))
  t.strictSame(counting('again'), [7])
  t.strictSame(counting('gone'), [])
  t.strictSame(counting('once'), [6, 7])
})

t.test('lines that are something else are damage', async (t) => {
  for (const line of ['["again",7', '7', 'null'])
    await t.rejects(read(`["again",7]\n${line}\n`), {
      code: 'DB_BACKUPS_DAMAGED',
      message: 'backup chunk "chunk" does not hold lines of superseded documents'
    })
})
