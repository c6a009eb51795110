import t from 'tap'
import { DamagedBackupError } from '../lib/errors.js'
import { ChunkReader } from '../lib/repository/chunk-reader.js'
import { ChunkWriter } from '../lib/repository/chunk-writer.js'
import { type Codec, gzip } from '../lib/repository/codec.js'
import { faultyDatabase } from './helpers/faulty-database.js'

/** Inverts every bit of gzip's output, so that only this codec can read it. */
function turning(): Codec {
  const turned = (bytes: Uint8Array) => Buffer.from(bytes.map((byte) => ~byte))
  const each = async function* (pieces: AsyncIterable<Uint8Array>) {
    for await (const piece of pieces) yield turned(piece)
  }
  return {
    attachment: gzip.attachment,
    bound: gzip.bound,
    async encode(lines, output) {
      const encoded = await gzip.encode(lines, output)
      encoded.set(turned(encoded))
      return encoded
    },
    encodeStream: (lines) => each(gzip.encodeStream(lines)),
    decode: (stored, room) => gzip.decode(turned(stored), room),
    decodeStream: (stored) => gzip.decodeStream(each(stored))
  }
}

t.test('chunks lie in the database as their codec makes them, and only it reads them', async (t) => {
  const { db, on } = await faultyDatabase(t, 'system')
  const codec = turning()
  const writer = new ChunkWriter({
    db,
    codec,
    backup: '03_ibp_db_backup_1592924104038',
    database: 'components',
    first: 0,
    onRefused: () => t.fail('nothing is refused')
  })
  await writer.add(Buffer.from('{"_id":"a"}'))
  await writer.addLarge({ id: 'b', design: false }, async function* () {
    yield Buffer.from('{"_id":"b"}')
  })
  const entries = await writer.flush()
  const [lines, large] = entries
  t.equal(entries.length, 2)
  const system = on.couch.use(on.names.system)
  for (const { id } of entries) {
    const stored = await system.attachment.get(id, 'documents.ndjson.gz')
    t.not(stored[0], 0x1f, 'it is no gzip')
  }

  const reader = new ChunkReader(db, codec)
  t.equal((await reader.lines(lines!)).toString(), '{"_id":"a"}\n')
  t.equal(await textOf(reader.document(large!)), '{"_id":"b"}')

  const other = new ChunkReader(db, gzip)
  await t.rejects(other.lines(lines!), DamagedBackupError)
  await t.rejects(textOf(other.document(large!)), DamagedBackupError)
  for (const entry of entries) await t.resolves(other.verify(entry), 'digests are of what is stored')
})

async function textOf(pieces: AsyncIterable<Buffer>): Promise<string> {
  let text = ''
  for await (const piece of pieces) text += piece
  return text
}
