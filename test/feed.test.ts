import type { IncomingMessage, ServerResponse } from 'node:http'
import t from 'tap'
import { type FeedPosition, readFeed } from '../lib/couch/feed.js'
import { startAnsweringCouch } from './helpers/couch-client.js'

const PAGE = 10_000

const row = (seq: number) =>
  `{"seq":"${seq}-x","id":"${seq}","changes":[{"rev":"1-a"}],"doc":{"_id":"${seq}"}}`

/** Returns the end of a feed after its rows. */
const end = (seq: number, pending: number) => `],"last_seq":"${seq}-x","pending":${pending}}`

function asked(request: IncomingMessage) {
  const { searchParams } = new URL(request.url ?? '', 'http://localhost')
  const limit = searchParams.get('limit')
  return {
    limit: limit === null ? undefined : Number(limit),
    since: Number.parseInt(searchParams.get('since')!, 10)
  }
}

function send(response: ServerResponse, from: number, count: number): void {
  response.setHeader('content-type', 'application/json')
  response.write(`{"results":[${Array.from({ length: count }, (_, i) => row(from + i + 1)).join(',\n')}`)
}

t.test('a feed that grows faster than its pages are read is read to its end in one request', async (t) => {
  const limits: (number | undefined)[] = []
  const { db } = await startAnsweringCouch(t, (request, response) => {
    const { limit, since } = asked(request)
    limits.push(limit)
    const rows = limits.length === 8 ? 1 : (limit ?? PAGE + 1)
    send(response, since, rows)
    const isLast = limit === undefined || limits.length === 8
    response.end(end(since + rows, isLast ? 0 : 1))
  })
  const position: FeedPosition = { since: '0' }
  let rows = 0
  for await (const changes of readFeed(db, position, { includeDocs: true })) rows += changes.length
  t.strictSame(limits, [PAGE, PAGE, PAGE, PAGE, undefined], 'one page more than was pending, and three')
  t.equal(rows, 5 * PAGE + 1)
  t.equal(position.since, `${rows}-x`)
})

t.test('a page that breaks again and again is read on, as long as each attempt brings rows', async (t) => {
  const sinces: number[] = []
  const { db } = await startAnsweringCouch(t, (request, response) => {
    const { since } = asked(request)
    sinces.push(since)
    send(response, since, 1000)
    if (since < 8000) response.write(',', () => setTimeout(() => response.destroy(), 20))
    else response.end(end(since + 1000, 0))
  })
  const position: FeedPosition = { since: '0' }
  const ids = new Set<string>()
  for await (const changes of readFeed(db, position, { includeDocs: true }))
    for (const { id } of changes) ids.add(id)
  t.ok(sinces.length >= 9, `${sinces.length} attempts, of which three in a row may bring nothing`)
  t.equal(position.since, `${Math.max(...sinces) + 1000}-x`)
  t.equal(ids.size, Math.max(...sinces) + 1000)
})

t.test('after a page without documents the next one is tried as often as any other', async (t) => {
  const withDocuments: boolean[] = []
  const { db } = await startAnsweringCouch(t, (request, response) => {
    const { since } = asked(request)
    const whole = /include_docs=true/.test(request.url ?? '')
    withDocuments.push(whole)
    // the first page for good, and the next one once
    const fails = whole && withDocuments.filter(Boolean).length <= 4
    if (fails) return response.writeHead(500).end('{"error":"internal_server_error"}')
    send(response, since, 1000)
    response.end(end(since + 1000, since === 0 ? 1 : 0))
  })
  for await (const changes of readFeed(db, { since: '0' }, { includeDocs: true })) t.ok(changes.length > 0)
  // three attempts, the page without documents, and a fault that passes
  t.strictSame(withDocuments, [true, true, true, false, true, true])
})

t.test('a feed whose rows tell no sequence is read on from the end of each page', async (t) => {
  const sinces: number[] = []
  const { db } = await startAnsweringCouch(t, (request, response) => {
    const { since } = asked(request)
    sinces.push(since)
    const rows = since === 0 ? PAGE : 1
    const told = Array.from({ length: rows }, (_, i) => row(since + i).replace(/"seq":"[^"]+"/, '"seq":null'))
    response.setHeader('content-type', 'application/json')
    // a test must not ask for ever
    response.end(`{"results":[${sinces.length > 3 ? '' : told.join(',\n')}${end(since + rows, 0)}`)
  })
  const position: FeedPosition = { since: '0' }
  let rows = 0
  for await (const changes of readFeed(db, position, { includeDocs: true })) rows += changes.length
  t.strictSame(sinces, [0, PAGE])
  t.equal(rows, PAGE + 1)
  t.equal(position.since, `${PAGE + 1}-x`)
})
