import { createHash } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { buffer } from 'node:stream/consumers'
import { gzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { DamagedBackupError } from '../lib/errors.js'
import { ChunkReader } from '../lib/repository/chunk-reader.js'
import { gzip } from '../lib/repository/codec.js'
import { Parts } from '../lib/repository/parts.js'
import { Repository } from '../lib/repository/repository.js'
import { asData, startAnsweringCouch } from './helpers/couch-client.js'

const BACKUP = '03_ibp_db_backup_1592924104038'
const CHUNK = 'backup_chunk_1592924104038_components_000000'
const LEFT = 'backup_chunk_1592924104038_components_000001'
const lines = Buffer.from('{"_id":"a"}\n')
const stored = gzipSync(lines)
const entry = {
  id: CHUNK,
  rev: '2-a',
  docs: 1,
  design: 0,
  raw: lines.length,
  stored: stored.length,
  sha256: createHash('sha256').update(stored).digest('hex')
}
const components = { manifests: [], chunks: [entry], superseded: [] }
const document = { _id: CHUNK, _rev: '2-a', type: 'athena_backup_chunk', backup_id: BACKUP }

/** Builds a database with several replicas, by its answers to methods and paths. */
async function setup(t: Test, answers: (line: string, body: string) => object | Buffer | undefined) {
  const seen: string[] = []
  const answer = async (request: IncomingMessage, response: ServerResponse) => {
    const body = (await buffer(request)).toString()
    const line = `${request.method} ${decodeURIComponent(request.url ?? '')}`
    seen.push(line)
    const found = answers(line, body)
    response.statusCode = found ? 200 : 404
    response.setHeader('content-type', Buffer.isBuffer(found) ? 'application/gzip' : 'application/json')
    response.end(
      Buffer.isBuffer(found) ? found : JSON.stringify(found ?? { error: 'not_found', reason: 'missing' })
    )
  }
  const { db } = await startAnsweringCouch(t, (request, response) => void answer(request, response))
  return { db, parts: new Parts(db), repository: new Repository(db), seen }
}

const rows = (...parts: { _id: string; _rev: string }[]) => ({
  rows: parts.map(({ _id: id, _rev: rev }) => ({ id, key: id, value: { rev } }))
})
const found = (id: string, doc: object | undefined) => ({
  results: [{ id, docs: [doc ? { ok: doc } : { error: { id, error: 'not_found', reason: 'missing' } }] }]
})

t.test(
  'a chunk that one replica does not list is missing only when a majority does not have it',
  async (t) => {
    let has: object | undefined = document
    const { parts, seen } = await setup(t, (line) => (/_bulk_get/.test(line) ? found(CHUNK, has) : rows()))
    await parts.check(BACKUP, [components])
    t.equal(seen.filter((line) => /_bulk_get/.test(line)).length, 1)
    has = { ...document, _rev: '1-a' }
    await t.rejects(parts.check(BACKUP, [components]), DamagedBackupError, 'at an earlier revision')
    has = undefined
    await t.rejects(parts.check(BACKUP, [components]), DamagedBackupError)
  }
)

t.test('chunks that are listed are not read one by one, and what nobody needs is deleted', async (t) => {
  const left = { ...document, _id: LEFT }
  const deleted: string[] = []
  const { parts, seen } = await setup(t, (line, body) => {
    if (/_all_docs\?startkey="backup_chunk/.test(line)) return rows(document, left)
    if (/_all_docs/.test(line)) return rows()
    if (/_bulk_get/.test(line)) return found(LEFT, left)
    deleted.push(...JSON.parse(body).docs.map(({ _id }: { _id: string }) => _id))
    return [{ ok: true, id: LEFT, rev: '3-a' }]
  })
  await parts.check(BACKUP, [components])
  t.strictSame(deleted, [LEFT])
  t.equal(seen.length, 4)
})

t.test('a chunk that another backup has made is looked for by its entry, and kept', async (t) => {
  const shared = { ...document, _id: 'backup_chunk_1492924104038_components_000000' }
  const { parts, seen } = await setup(t, (line) => {
    if (/_all_docs/.test(line)) return rows()
    return /_bulk_get/.test(line) ? found(shared._id, shared) : undefined
  })
  await parts.check(BACKUP, [{ ...components, chunks: [{ ...entry, id: shared._id }] }])
  t.equal(seen.filter((line) => /_bulk_get/.test(line)).length, 1)
  t.notOk(seen.some((line) => /_bulk_docs/.test(line)))
})

t.test('a chunk that is not found is asked for again where its document is there', async (t) => {
  let reads = 0
  const { db } = await setup(t, (line) => {
    if (/ndjson/.test(line)) return ++reads < 3 ? undefined : stored
    return { ...document, _attachments: { 'documents.ndjson.gz': { stub: true } } }
  })
  t.equal((await new ChunkReader(db, gzip).lines(entry)).toString(), lines.toString())
  t.equal(reads, 3)
})

t.test('a chunk whose document is not there either is missing', async (t) => {
  const { db } = await setup(t, () => undefined)
  await t.rejects(new ChunkReader(db, gzip).lines(entry), { message: /is missing/ } as never)
})

t.test('a backup that was listed stays listed while a replica does not show it', async (t) => {
  const header = { _id: BACKUP, _rev: '1-a', type: 'athena_backup' }
  let shown = true
  let there = true
  const { repository } = await setup(t, (line) => {
    if (/_all_docs/.test(line)) return shown ? rows(header) : rows()
    return there ? header : undefined
  })
  t.strictSame(await repository.list(), [BACKUP])
  shown = false
  t.strictSame(await repository.list(), [BACKUP])
  t.strictSame(await repository.list(), [BACKUP])
  there = false
  t.strictSame(await repository.list(), [])
})

t.test(
  'an attachment that some replicas took beside another writer is a conflict, and leaves nothing',
  async (t) => {
    // each leaf with its ancestors
    const CASES: [leaves: string[][], deleted: boolean, error: string | undefined][] = [
      [[['b', 'a']], false, undefined],
      [[['b', 'a'], ['1']], false, undefined],
      [
        [
          ['b', 'a'],
          ['c', 'a']
        ],
        true,
        'conflict'
      ],
      [
        [
          ['c', 'a'],
          ['b', 'a']
        ],
        true,
        'conflict'
      ],
      // the other revision loses in CouchDB's order, and is kept all the same
      [
        [
          ['b', 'a'],
          ['0', 'a']
        ],
        true,
        'conflict'
      ],
      [[['c', 'b', 'a']], false, undefined],
      [[['a']], false, 'bad_answer']
    ]
    for (const [leaves, deleted, error] of CASES) {
      const seen: string[] = []
      const { db } = await startAnsweringCouch(t, (request, response) => {
        request.resume().on('end', () => {
          seen.push(`${request.method} ${request.url}`)
          response.setHeader('content-type', 'application/json')
          if (request.method === 'PUT') {
            response.statusCode = 202
            return response.end('{"ok":true,"id":"doc","rev":"2-b"}')
          }
          if (request.method === 'DELETE') return response.end('{"ok":true,"id":"doc","rev":"3-b"}')
          const docs = leaves.map((ids) => ({
            ok: { _id: 'doc', _rev: `${ids.length}-${ids[0]}`, _revisions: { start: ids.length, ids } }
          }))
          response.end(JSON.stringify({ results: [{ id: 'doc', docs }] }))
        })
      })
      const put = db.putAttachment('doc', 'a', '1-a', 'text/plain', asData('a'))
      if (error) await t.rejects(put, { error } as never, `${leaves}`)
      else t.equal(await put, '2-b', `${leaves}`)
      t.strictSame(
        seen.filter((line) => line.startsWith('DELETE')),
        deleted ? ['DELETE /backups/doc?rev=2-b'] : []
      )
    }
  }
)
