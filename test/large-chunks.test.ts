import { randomBytes } from 'node:crypto'
import { gzipSync } from 'node:zlib'
import t from 'tap'
import { DamagedBackupError } from '../lib/errors.js'
import { ChunkReader } from '../lib/repository/chunk-reader.js'
import { gzip } from '../lib/repository/codec.js'
import { chunkWriter, factsOf } from './helpers/chunk-writer.js'
import { startAnsweringCouch } from './helpers/couch-client.js'
import { poll } from './helpers/poll.js'

const MiB = 1024 * 1024

t.test('a large chunk that its reader gives up, or that is damaged, is not read on', async (t) => {
  const raw = randomBytes(16 * MiB)
  const stored = gzipSync(raw, { level: 1 })
  const broken = Buffer.from(stored)
  broken.fill(0, MiB, 2 * MiB)
  const { db, reading } = await startAnsweringCouch(t, (request, response) => {
    response.setHeader('content-type', 'application/gzip')
    response.end(request.url?.includes('broken') ? broken : stored)
  })
  const reader = new ChunkReader(db, gzip)
  const entry = { rev: '1-a', docs: 1, design: 0, raw: raw.length, stored: stored.length, sha256: '' }

  for await (const _ of reader.document({ ...entry, id: 'whole', large: 'a' })) break
  await poll('given up by its reader', () => reading() === 0 || undefined)

  const longer = async () => {
    for await (const _ of reader.document({ ...entry, id: 'whole', raw: 1000, large: 'a' }));
  }
  await t.rejects(longer(), DamagedBackupError)
  await poll('longer than was stored', () => reading() === 0 || undefined)

  const damaged = async () => {
    for await (const _ of reader.document({ ...entry, id: 'broken', large: 'a' }));
  }
  await t.rejects(damaged())
  await poll('damaged', () => reading() === 0 || undefined)
})

t.test('a large document that cannot be stored is not read on', async (t) => {
  const { db } = await startAnsweringCouch(t, (request, response) => {
    response.setHeader('content-type', 'application/json')
    if (request.url?.includes('documents.ndjson.gz')) {
      response.statusCode = 403
      response.end('{"error":"forbidden","reason":"no"}')
      request.socket.end()
    } else {
      response.statusCode = 201
      response.end('[{"ok":true,"id":"backup_chunk_1592924104038_system_000000","rev":"1-a"}]')
    }
  })
  let ended = false
  const document = async function* () {
    try {
      for (;;) yield randomBytes(MiB)
    } finally {
      ended = true
    }
  }
  const writer = chunkWriter(t, db, { database: 'system' })
  await t.rejects(writer.addLarge('large', factsOf('large'), document))
  await poll('the end of its source', () => ended || undefined)
})
