import type { IncomingMessage, ServerResponse } from 'node:http'
import nano from 'nano'
import t from 'tap'
import { apiOf, backupOf } from './helpers/api.js'
import { startAnsweringCouch } from './helpers/couch-client.js'
import { setupDatabases } from './helpers/database.js'
import { startFaultProxy } from './helpers/fault-proxy.js'
import { buildHost } from './helpers/host.js'

const NODE_DOWN = { error: 'nodedown', reason: 'progress not possible' }
const CONFLICT = { error: 'conflict', reason: 'Document update conflict.' }

function reply(response: ServerResponse, status: number, json: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' })
  response.end(JSON.stringify(json))
}

/** Answers reads of the document "doc", and counts writes. */
const answering = (write: (response: ServerResponse, count: number) => void) => {
  let writes = 0
  return (request: IncomingMessage, response: ServerResponse) => {
    request.resume()
    if (request.method === 'PUT' || request.method === 'POST') write(response, ++writes)
    else if (request.url === '/backups') reply(response, 404, { error: 'not_found', reason: 'no_db_file' })
    else reply(response, 200, { _id: 'doc', _rev: `${writes + 1}-a`, count: writes })
  }
}

t.test('a write is made again when nodes are down, which CouchDB tells by a 412', async (t) => {
  let asked = 0
  const { db } = await startAnsweringCouch(
    t,
    answering((response, count) => {
      asked = count
      if (count < 3) reply(response, 412, NODE_DOWN)
      else reply(response, 201, { ok: true, rev: '1-a' })
    })
  )
  t.equal(await db.put({ _id: 'doc' }), '1-a')
  t.equal(asked, 3)
})

t.test('a database is not taken to exist because nodes are down', async (t) => {
  const down = await startAnsweringCouch(
    t,
    answering((response) => reply(response, 412, NODE_DOWN))
  )
  await t.rejects(down.db.ensure(), { error: 'nodedown', retryable: true } as never)
  const exists = await startAnsweringCouch(
    t,
    answering((response) => reply(response, 412, { error: 'file_exists', reason: 'It exists.' }))
  )
  await t.resolves(exists.db.ensure())
})

t.test('a batch of which a shard is lost fails with the reason that its rows tell', async (t) => {
  const rows = [
    { ok: true, id: 'a', rev: '1-a' },
    { id: 'b', error: 'unknown_error', reason: 'internal_server_error' }
  ]
  const { db } = await startAnsweringCouch(
    t,
    answering((response) => reply(response, 500, rows))
  )
  await t.rejects(db.bulkDocs([Buffer.from('{"_id":"a"}')]), {
    status: 500,
    error: 'unknown_error',
    reason: 'internal_server_error'
  } as never)
})

t.test('a change that conflicts again and again ends, with waits between', async (t) => {
  const at: number[] = []
  const { db } = await startAnsweringCouch(
    t,
    answering((response) => {
      at.push(performance.now())
      reply(response, 409, CONFLICT)
    })
  )
  await t.rejects(
    db.modify('doc', () => ({ changed: Math.random() })),
    { status: 409 } as never
  )
  t.ok(at.length > 5 && at.length <= 12, `${at.length} attempts`)
  t.ok(at[at.length - 1] - at[0] > 500, 'the waits grow')
})

t.test('a restore bridges nodes that are down, and blames no document', async (t) => {
  const on = await setupDatabases(t)
  const proxy = await startFaultProxy(t, on.url)
  const retry = { attempts: 4, wait: 5, longest: 10 }
  const api = apiOf(await buildHost(t, { on: { ...on, couch: nano(proxy.url) }, retry }))
  const documents = Array.from({ length: 20 }, (_, i) => ({ _id: `doc ${i}` }))
  const rule = proxy.add({ fault: 'nodedown', path: /_bulk_docs/, times: 2 })
  t.match(await api.restore(backupOf(documents)), { status: 'success' })
  t.equal(rule.hits, 2)
  t.equal((await on.fetchAll(on.names.components)).size, 20)
})

t.test('a 412 that is not of a document fails the restore, not each document', async (t) => {
  const on = await setupDatabases(t)
  const proxy = await startFaultProxy(t, on.url)
  const api = apiOf(await buildHost(t, { on: { ...on, couch: nano(proxy.url) } }))
  const documents = Array.from({ length: 1000 }, (_, i) => ({ _id: `doc ${i}` }))
  proxy.add({ fault: 'precondition_storm', path: /_bulk_docs/, times: Number.POSITIVE_INFINITY })
  t.match(await api.restore(backupOf(documents)), { status: 'error' })
  const writes = proxy.seen.filter(({ path }) => path.includes('_bulk_docs')).length
  t.ok(writes < 700, `${writes} requests`)
})
