import t from 'tap'
import { DamagedBackupError } from '../lib/errors.js'
import { VersionIndex } from '../lib/ids/version-index.js'
import { ChunkReader } from '../lib/repository/chunk-reader.js'
import { type Codec, gzip } from '../lib/repository/codec.js'
import { Repository } from '../lib/repository/repository.js'
import { chunkWriter, factsOf } from './helpers/chunk-writer.js'
import { clientOf, faultyDatabase } from './helpers/couch-client.js'
import { compareDatabases, recreate, setupDatabases } from './helpers/database.js'
import { backUp, begin, restore, sent, sourcesOn } from './helpers/repository-runs.js'
import { load, seedDocuments } from './helpers/seed.js'

/** Inverts every bit of gzip's output, so that only this codec can read it. */
function turning(attachment = gzip.attachment): Codec {
  const turned = (bytes: Uint8Array) => Buffer.from(bytes.map((byte) => ~byte))
  const each = async function* (pieces: AsyncIterable<Uint8Array>) {
    for await (const piece of pieces) yield turned(piece)
  }
  return {
    attachment,
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
  const writer = chunkWriter(t, db, { codec })
  await writer.add(Buffer.from('{"_id":"a"}'))
  await writer.addLarge('b', factsOf('b'), async function* () {
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

t.test('a whole backup is made, sent and restored by the codec of its repository', async (t) => {
  const on = await setupDatabases(t)
  const { names } = on
  const components = on.couch.use(names.components)
  const large = { content_type: 'image/png', data: Buffer.alloc(5 * 1024 * 1024, 7).toString('base64') }
  await load(components, [...seedDocuments({ count: 30 }), { _id: 'large', _attachments: { large } }])
  const sources = sourcesOn(clientOf(t, on.url), names)
  const codec = turning({ name: 'documents.turned', contentType: 'application/x-turned' })
  const repository = new Repository(sources.system, { codec })

  const made = await backUp(repository, sources)
  t.equal(made.header.error, undefined)
  const { rows } = await on.couch.use(names.system).list({ startkey: 'backup_chunk_', include_docs: true })
  const kinds = rows.flatMap(({ doc }) =>
    Object.entries((doc as { _attachments?: object })._attachments ?? {}).map(
      ([name, { content_type }]) => `${name} ${content_type}`
    )
  )
  t.ok(kinds.length >= 2, 'lines, and a large document')
  t.strictSame([...new Set(kinds)], ['documents.turned application/x-turned'])

  const backup = await repository.get(made.id)
  const { docs } = JSON.parse(await sent(backup, names)).dbs.athena_components
  t.equal(docs.length, 31)

  const before = await on.fetchAll(names.components)
  await recreate(on.couch, names.components)
  t.match((await restore(backup, repository, sources)).databases.components, { created: 31, failed: 0 })
  compareDatabases(t, before, await on.fetchAll(names.components))

  const other = await new Repository(sources.system).get(made.id)
  await t.rejects(restore(other, repository, sources), DamagedBackupError, 'no other codec reads it')
})

t.test('which versions count is read and written by the codec of the repository', async (t) => {
  const on = await setupDatabases(t)
  const sources = sourcesOn(clientOf(t, on.url), on.names)
  const repository = new Repository(sources.system, { codec: turning() })
  const running = repository.runningBackup(await begin(repository, sources))
  const writer = running.writer({
    database: 'components',
    first: 0,
    base: undefined,
    waste: 0.25,
    onRefused: () => t.fail('nothing is refused')
  })
  const versions = new VersionIndex()
  for (const line of ['{"_id":"a","n":1}', '{"_id":"b"}', '{"_id":"a","n":2}']) {
    const facts = factsOf('', { print: writer.print(JSON.parse(line)._id) })
    await writer.add(Buffer.from(line), facts)
    versions.note(facts.print)
  }
  await writer.endDocuments()
  const { documents, rawBytes: raw_bytes } = await writer.finish(versions.repeated, undefined)
  t.equal(documents, 2)
  const { id } = await running.finish({ athena_components: { doc_count: 2, raw_bytes } as never })
  const { dbs } = JSON.parse(await sent(await repository.get(id), on.names))
  t.strictSame(dbs.athena_components.docs, [{ _id: 'b' }, { _id: 'a', n: 2 }])
})

async function textOf(pieces: AsyncIterable<Buffer>): Promise<string> {
  let text = ''
  for await (const piece of pieces) text += piece
  return text
}
