import { getEventListeners } from 'node:events'
import t, { type Test } from 'tap'
import { allRows } from '../lib/couch/all-rows.js'
import { attachmentBase64, stubOf } from '../lib/couch/attachments.js'
import { BulkBody } from '../lib/couch/bulk-body.js'
import type { CouchDatabase } from '../lib/couch/database.js'
import { readFeed } from '../lib/couch/feed.js'
import { LinkedAbort } from '../lib/waits/linked-abort.js'
import { asData, startAnsweringCouch } from './helpers/couch-client.js'

const ATTEMPTS = 3

async function read(rows: AsyncIterable<unknown>): Promise<number> {
  let count = 0
  for await (const _ of rows) count++
  return count
}

const streamed = () => ({ newEdits: true, sent: () => {}, deadline: new AbortController().signal })
const body = async function* () {
  yield Buffer.from('{"_id":"a"}')
}
const documents = [Buffer.from('{"_id":"a"}')]

/** All calls of a database. */
const calls: Record<string, (db: CouchDatabase) => Promise<unknown>> = {
  info: (db) => db.info(),
  find: (db) => db.find(),
  ensure: (db) => db.ensure(),
  probeWrite: (db) => db.probeWrite(),
  get: (db) => db.get('a'),
  type: (db) => db.type('a'),
  readStream: (db) => db.readStream('a', read),
  put: (db) => db.put({ _id: 'a' }),
  putUnconfirmed: (db) => db.putUnconfirmed({ _id: 'a' }),
  leaves: (db) => db.leaves('a'),
  size: (db) => db.size('a'),
  delete: (db) => db.delete('a', '1-a'),
  modify: (db) => db.modify('a', () => ({})),
  changes: (db) => read(db.changes({ since: '0', includeDocs: true })),
  rows: (db) => db.rows({}),
  allDocs: (db) => read(db.allDocs()),
  bulkGet: (db) => read(db.bulkGet([{ id: 'a' }], { attachments: false })),
  bulkDocs: (db) => db.bulkDocs(documents),
  writeBulk: (db) => db.writeBulk(BulkBody.of(true, documents)),
  revsDiff: (db) => db.revsDiff([{ id: 'a', rev: '1-a' }]),
  attachment: (db) => db.attachment('a', 'b'),
  'attachment, compressed': (db) => db.attachment('a', 'b', { gzip: true }),
  attachmentBase64: (db) =>
    read(attachmentBase64(db, { id: 'a', rev: '1-a' }, stubOf('b', { content_type: 'a/b' }))),
  'attachmentBase64, by the document': (db) =>
    read(attachmentBase64(db, { id: 'a', rev: '1-a' }, stubOf('b', {}))),
  putAttachment: (db) => db.putAttachment('a', 'b', '1-a', 'a/b', asData('c')),
  putWithAttachments: (db) => db.putWithAttachments('a', documents, [], streamed()),
  putStream: (db) => db.putStream(body, streamed())
}

/** Calls that continue where they failed, and count attempts themselves. */
const loops: typeof calls = {
  readFeed: (db) => read(readFeed(db, { since: '0' }, { includeDocs: false })),
  allRows: (db) => read(allRows(db, 'content'))
}

/** Starts a database that answers every request with a failure. */
async function failing(t: Test, text = '{"error":"unavailable","reason":"later"}', status = 503) {
  let requests = 0
  const { db } = await startAnsweringCouch(t, (request, response) => {
    requests++
    request.resume().on('end', () => {
      response.writeHead(status, { 'content-type': 'application/json' })
      response.end(text)
    })
  })
  const countOf = async (call: () => Promise<unknown>) => {
    requests = 0
    await t.rejects(call(), { name: 'CouchError' })
    return requests
  }
  return { db, countOf }
}

t.test('every call is tried as often as the client says, whatever calls it', async (t) => {
  const { db, countOf } = await failing(t)
  for (const [name, call] of Object.entries({ ...calls, ...loops })) {
    t.equal(await countOf(() => call(db)), ATTEMPTS, name)
    t.equal(await countOf(() => db.client.retry(() => call(db))), ATTEMPTS, `${name}, within other work`)
  }
})

t.test('a caller that counts attempts itself gets one of every call', async (t) => {
  const { db, countOf } = await failing(t)
  for (const [name, call] of Object.entries({ ...calls, ...loops })) {
    t.equal(await countOf(() => call(db.once)), 1, name)
    t.equal(await countOf(() => db.client.retry(() => call(db.once))), ATTEMPTS, `${name}, within a loop`)
  }
})

t.test('an answer that lacks what it has to have is asked for again', async (t) => {
  const { db, countOf } = await failing(t, '{}', 200)
  for (const name of ['info', 'get', 'put', 'leaves', 'writeBulk', 'changes', 'allDocs', 'bulkGet'])
    t.equal(await countOf(() => (calls[name] as (typeof calls)[string])(db)), ATTEMPTS, name)
})

t.test('a stream that breaks after its first rows is not begun again by itself', async (t) => {
  let requests = 0
  const { db } = await startAnsweringCouch(t, (_request, response) => {
    requests++
    response.writeHead(200, { 'content-type': 'application/json' })
    response.write('{"rows":[{"id":"a","value":{"rev":"1-a"}},')
    setTimeout(() => response.destroy(), 50)
  })
  let rows = 0
  const readAll = async () => {
    for await (const group of db.allDocs()) rows += group.length
  }
  await t.rejects(readAll(), { message: /unreachable/ })
  t.strictSame([requests, rows], [1, 1])
})

t.test('a loop that goes on where it broke counts every attempt once', async (t) => {
  const row = '{"seq":null,"id":"a","value":{"rev":"1-a"},"changes":[{"rev":"1-a"}]},'
  for (const [name, read] of Object.entries(loops)) {
    let requests = 0
    const { db } = await startAnsweringCouch(t, ({ url }, response) => {
      const breaks = ++requests % 2 === 1
      response.writeHead(breaks ? 200 : 503, { 'content-type': 'application/json' })
      if (!breaks) return response.end('{"error":"unavailable","reason":"later"}')
      response.write(`{"${url?.includes('_changes') ? 'results' : 'rows'}":[${row}`)
      return setTimeout(() => response.destroy(), 50)
    })
    await t.rejects(read(db), { name: 'CouchError' }, name)
    t.equal(requests, ATTEMPTS, name)
  }
})

t.test('a call that follows a signal or a time-out leaves nothing behind', async (t) => {
  const late = () => new Error('late')
  const long = new AbortController()
  const released = new LinkedAbort().follow(long.signal).follow(undefined).after(1, late)
  released.release()
  t.equal(getEventListeners(long.signal, 'abort').length, 0)
  const timed = new LinkedAbort().follow(long.signal).after(1, late)
  await new Promise((resolve) => timed.signal.addEventListener('abort', resolve))
  t.match(timed.signal.reason, { message: 'late' })
  timed.release()
  t.notOk(released.signal.aborted)
  const followed = new LinkedAbort().follow(long.signal)
  long.abort(new Error('over'))
  t.match(followed.signal.reason, { message: 'over' })
  t.match(new LinkedAbort().follow(long.signal).signal.reason, { message: 'over' })
  followed.release()
  t.equal(getEventListeners(long.signal, 'abort').length, 0)
})
