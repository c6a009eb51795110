import { text } from 'node:stream/consumers'
import nano from 'nano'
import t from 'tap'
import { BulkBody } from '../lib/couch/bulk-body.js'
import type { CouchDatabase } from '../lib/couch/database.js'
import { readFeed } from '../lib/couch/feed.js'
import { anyNodeKnows, nodeNames, nodesUp } from '../lib/couch/nodes.js'
import { settleReplicas } from '../lib/couch/replicas.js'
import { createCouchWebhookStore } from '../lib/index.js'
import { asData, startAnsweringCouch } from './helpers/couch-client.js'

/** JSON that is complete, with a good status, and not what was asked for: of a proxy, or of another version. */
const BODIES = [
  null,
  1,
  'text',
  [],
  [null],
  [[]],
  [{ error: null }],
  {},
  { docs: null },
  { docs: [null, 1, {}, { tx_id: 1 }, { tx_id: 'a', ts_started: 'b' }] },
  { results: null },
  { results: [null] },
  { results: [{}] },
  { results: [{ id: 'a', docs: null }] },
  { results: [{ id: 'a', docs: [null, {}, { ok: null }, { error: 1 }] }] },
  { results: [{ id: 'a', seq: {}, changes: [null], doc: 1 }], last_seq: {} },
  { results: [], last_seq: '1', pending: 'many' },
  { rows: null },
  { rows: [null] },
  { rows: [{ id: 1, value: null, doc: [] }] },
  { a: null },
  { a: { missing: 1 } },
  { rev: 1 },
  { doc_count: 'many' },
  { doc_count: 1, cluster: null },
  { all_nodes: [null] },
  { all_nodes: ['n'], shards: null },
  { all_nodes: ['n'], shards: { r: 1 }, uptime: 'long' },
  { all_nodes: ['n', 'm'], shards: { r: ['n', 'm'] }, uuid: 'u', results: [null], rows: [{ doc: null }] },
  { all_nodes: ['n', 'm'], shards: { r: ['n', 'm'] }, uuid: 'u', results: [{ seq: 1 }], rows: [null] },
  {
    all_nodes: ['n', 'm'],
    shards: { r: ['n', 'm'] },
    uuid: 'u',
    results: [{ seq: 1 }],
    rows: [{ doc: { history: { a: [null] } } }]
  }
]

const readAll = async (values: AsyncIterable<unknown>) => {
  for await (const _ of values);
}
const document = [Buffer.from('{"_id":"a"}')]
const write = { newEdits: true, write: true } as never

const CALLS: Record<string, (db: CouchDatabase) => Promise<unknown>> = {
  info: (db) => db.info(),
  find: (db) => db.find(),
  time: (db) => db.time(),
  get: (db) => db.get('a'),
  type: (db) => db.type('a'),
  put: (db) => db.put({ _id: 'a' }),
  leaves: (db) => db.leaves('a'),
  changes: (db) => readAll(db.changes({ since: '0', includeDocs: true })),
  countChanges: (db) => db.countChanges('0'),
  readFeed: (db) => readAll(readFeed(db, { since: '0' }, { includeDocs: true })),
  rows: (db) => db.rows({}),
  allDocs: (db) => readAll(db.allDocs({ includeDocs: true })),
  bulkGet: (db) => readAll(db.bulkGet([{ id: 'a' }], { attachments: false })),
  bulkDocs: (db) => db.bulkDocs(document),
  'writeBulk, revisions kept': (db) => db.writeBulk(BulkBody.of(false, document)),
  query: (db) => db.query({}),
  revsDiff: (db) => db.revsDiff([{ id: 'a', rev: '1-a' }]),
  putAttachment: (db) => db.putAttachment('a', 'b', '1-a', 'a/b', asData('c')),
  putWithAttachments: (db) => db.putWithAttachments('a', document, [], write),
  nodeNames: (db) => nodeNames(db.client),
  nodesUp: (db) => nodesUp(db.client),
  anyNodeKnows: (db) => anyNodeKnows(db.client, 'a'),
  settleReplicas: (db) =>
    settleReplicas(db, { doc_count: 1, instance_start_time: '1', cluster: { q: 1, n: 2 } }, 300)
}

for (const [name, call] of Object.entries(CALLS))
  t.test(`${name} takes no answer of another shape for an error of its own`, async (t) => {
    let body = ''
    const { db } = await startAnsweringCouch(t, async (request, response) => {
      await text(request)
      response.setHeader('content-type', 'application/json')
      response.end(body)
    })
    for (const answer of BODIES) {
      body = JSON.stringify(answer)
      await call(db.once).catch((error: unknown) => {
        t.match(error, { code: 'DB_BACKUPS_DATABASE_ERROR', statusCode: Number }, `${body}: ${error}`)
      })
    }
  })

t.test('the store of transactions lists what it can read, and fails with a code', async (t) => {
  let body = ''
  const { db } = await startAnsweringCouch(t, async (request, response) => {
    await text(request)
    response.setHeader('content-type', 'application/json')
    response.end(body)
  })
  const { origin } = await db.client.settings.connect()
  const { list } = createCouchWebhookStore({ couch: nano(origin), database: 'system', timeout: 5000 })
  body = JSON.stringify({
    docs: [null, { tx_id: 'old', ts_started: 1 }, {}, { tx_id: 'new', ts_started: 2 }]
  })
  t.strictSame(await list?.(10), ['new', 'old'])
  body = JSON.stringify({ docs: null })
  await t.rejects(async () => list?.(10), { code: 'DB_BACKUPS_DATABASE_ERROR', message: /docs/ })
})
