import { json } from 'node:stream/consumers'
import t from 'tap'
import { BulkBody } from '../lib/couch/bulk-body.js'
import { startAnsweringCouch } from './helpers/couch-client.js'

/** Answers each request with the JSON that `answer` returns for its body. */
const answering =
  (answer: (body: never) => unknown): Parameters<typeof startAnsweringCouch>[1] =>
  async (request, response) => {
    const body = request.method === 'POST' ? await json(request) : undefined
    response.setHeader('content-type', 'application/json')
    response.end(JSON.stringify(answer(body as never)))
  }

t.test('a page of the feed that does not tell its last sequence is not taken for its end', async (t) => {
  const rows = [{ seq: '1', id: 'a', changes: [{ rev: '1-a' }] }]
  const { db } = await startAnsweringCouch(
    t,
    answering(() => ({ results: rows, pending: 0 }))
  )
  const page = db.changes({ since: '0', includeDocs: true })
  const read = async () => {
    for await (const _ of page);
  }
  await t.rejects(read(), { error: 'bad_answer', message: /last_seq/ })
  t.throws(() => page.lastSeq, { message: /not been read to its end/ })
})

t.test('documents that a _bulk_get leaves out are asked for again, and missed in the end', async (t) => {
  const asked: string[][] = []
  const { db } = await startAnsweringCouch(
    t,
    answering(({ docs }: { docs: { id: string }[] }) => {
      asked.push(docs.map(({ id }) => id))
      const found = docs.filter(({ id }) => id === 'a' || (id === 'b' && asked.length > 1))
      return { results: found.map(({ id }) => ({ id, docs: [{ ok: { _id: id, _rev: '1-a' } }] })) }
    })
  )
  const found: string[] = []
  const read = async () => {
    const wanted = ['a', 'b', 'never'].map((id) => ({ id }))
    for await (const { id } of db.bulkGet(wanted, { attachments: false })) found.push(id)
  }
  await t.rejects(read(), { error: 'bad_answer', message: /result for every document/ })
  t.strictSame(found, ['a', 'b'])
  t.strictSame(asked, [['a', 'b', 'never'], ['b', 'never'], ['never']])
})

t.test('a _bulk_docs that does not tell of every document is no success', async (t) => {
  const { db } = await startAnsweringCouch(
    t,
    answering(() => [{ ok: true, id: 'a', rev: '1-a' }])
  )
  const docs = ['a', 'b'].map((_id) => Buffer.from(JSON.stringify({ _id })))
  await t.rejects(db.bulkDocs(docs), { message: /a result for each document/ })
  const listed = await db.once.writeBulk(BulkBody.of(false, docs))
  t.equal(listed.results.length, 1, 'without new edits only failures are listed')
})

t.test('a refusal that breaks off is asked for again, since its end tells whose it is', async (t) => {
  const text = JSON.stringify({ error: 'not_found', reason: 'missing' })
  let whole = 2
  const { db } = await startAnsweringCouch(t, (_request, response) => {
    response.writeHead(404, { 'content-type': 'application/json', 'content-length': text.length })
    if (whole-- === 0) return response.end(text)
    response.write(text.slice(0, 9), () => response.destroy())
  })
  t.equal(await db.get('a'), null)
  whole = 3
  await t.rejects(db.get('a'), { status: 0, gateway: false, retryable: true, message: /404 broke off/ })
})

t.test('a conflict that breaks off is one: its status says all', async (t) => {
  let asked = 0
  const { db } = await startAnsweringCouch(t, (_request, response) => {
    asked++
    response.writeHead(409, { 'content-type': 'application/json', 'content-length': 50 })
    response.write('{"error"', () => response.destroy())
  })
  await t.rejects(db.put({ _id: 'a' }), { status: 409, message: /409/ })
  t.equal(asked, 1)
})
