import { randomBytes } from 'node:crypto'
import { mkdtemp, open, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import t, { type Test } from 'tap'
import { indexLargeDocument, type LargeDocument } from '../lib/restore/large-document.js'
import { LargeWriter } from '../lib/restore/large-writer.js'
import { WriteRequests } from '../lib/restore/write-requests.js'
import { faultyDatabase, startAnsweringCouch } from './helpers/couch-client.js'
import type { Fault } from './helpers/fault-proxy.js'

const REV = '1-0123456789abcdef0123456789abcdef'
const bytes = randomBytes(300_000)
const text = 'text '.repeat(10_000)
const attachments = {
  a: { content_type: 'image/png', data: bytes.toString('base64') },
  b: { content_type: 'text/plain', data: Buffer.from(text).toString('base64') }
}

async function largeDocument(t: Test, json: object): Promise<LargeDocument> {
  const directory = await mkdtemp(join(tmpdir(), 'large-'))
  const file = await open(join(directory, 'document'), 'w+')
  t.teardown(async () => {
    await file.close()
    await rm(directory, { recursive: true })
  })
  const text = Buffer.from(JSON.stringify(json))
  await file.write(text)
  return indexLargeDocument({ file, from: 0, to: text.length })
}

async function setup(t: Test) {
  const { on, proxy, db } = await faultyDatabase(t, 'components')
  return {
    proxy,
    writer: new LargeWriter(db, new WriteRequests(db)),
    direct: on.couch.use(on.names.components)
  }
}

for (const fault of ['effect_no_answer', 'reply_lost', 'accepted'] satisfies Fault[]) {
  t.test(`a large document that was stored is not sent again: ${fault}`, async (t) => {
    const { proxy, writer, direct } = await setup(t)
    const write = { method: 'PUT', path: /\/doc/ }
    const sent = () => proxy.seen.filter(({ method }) => method === 'PUT').length
    const kept = await largeDocument(t, { _id: 'doc', _rev: REV, n: 1, _attachments: attachments })
    const edited = await largeDocument(t, { _id: 'doc', _rev: REV, n: 2, _attachments: attachments })

    proxy.add({ ...write, fault })
    const startedAt = performance.now()
    t.match(await writer.write(kept, { kind: 'kept', rev: REV }), { id: 'doc', error: undefined })
    t.equal(sent(), 1, 'its own revision')
    t.match(await direct.get('doc'), { _rev: REV, n: 1 })

    await proxy.clear()
    proxy.add({ ...write, fault })
    const { rev, error } = await writer.write(edited, { kind: 'over', rev: REV })
    t.ok(performance.now() - startedAt < 10_000, 'no time-out is waited for')
    t.equal(error, undefined)
    t.equal(sent(), 1, 'a new revision')
    t.match(await direct.get('doc'), { _rev: rev, n: 2 })
    t.ok(((await direct.attachment.get('doc', 'a')) as Buffer).equals(bytes))
    t.equal(String(await direct.attachment.get('doc', 'b')), text)
  })
}

t.test('a large document that somebody else changed meanwhile is not taken for what was sent', async (t) => {
  const { proxy, writer, direct } = await setup(t)
  const other = { content_type: 'image/png', data: randomBytes(300_000).toString('base64') }
  await direct.insert({ _id: 'doc', n: 1, _attachments: { ...attachments, a: other } } as never)
  const document = await largeDocument(t, { _id: 'doc', n: 1, _attachments: attachments })
  const rule = proxy.add({ method: 'PUT', path: /\/doc/, fault: 'reset' })
  t.match(await writer.write(document, { kind: 'none' }), { error: 'conflict' })
  t.equal(rule.hits, 1)
})

t.test('a large document goes to a cluster inside the JSON', async (t) => {
  for (const [n, inline] of [
    [3, true],
    [1, false],
    [undefined, false]
  ] as const) {
    const requests: { line: string; body: Buffer }[] = []
    const { db } = await startAnsweringCouch(t, async (request, response) => {
      requests.push({ line: `${request.method} ${request.url}`, body: await buffer(request) })
      response.setHeader('content-type', 'application/json')
      if (request.method === 'GET')
        return response.end(JSON.stringify({ doc_count: 0, cluster: { n, q: 2 } }))
      response.statusCode = 201
      response.end(request.method === 'POST' ? '[]' : '{"ok":true}')
    })
    const writer = new LargeWriter(db, new WriteRequests(db))
    const json = { _id: 'doc', _rev: REV, n: 1, _attachments: attachments }
    t.match(await writer.write(await largeDocument(t, json), { kind: 'kept', rev: REV }), {
      error: undefined
    })
    await writer.write(await largeDocument(t, json), { kind: 'kept', rev: REV })
    // on a busy machine a late answer may make the plugin read what was written
    const lines = requests.map(({ line }) => line).filter((line) => !line.includes('_bulk_get'))
    const write = inline ? 'POST /backups/_bulk_docs' : 'PUT /backups/doc?new_edits=false'
    t.strictSame(lines, ['GET /backups', write, write], `${n} replicas; they are asked for once`)
    if (inline) t.strictSame(JSON.parse(String(requests[1]!.body)), { new_edits: false, docs: [json] })
  }
})
