import { createServer } from 'node:http'
import fc from 'fast-check'
import nano from 'nano'
import t, { type Test } from 'tap'
import { tooLargeFailure } from '../lib/backup/unreadable.js'
import type { CouchClient } from '../lib/couch/client.js'
import { CouchDatabase } from '../lib/couch/database.js'
import type { CouchError } from '../lib/couch/errors.js'
import { inParts, RequestSize } from '../lib/couch/request-size.js'
import { resolveOptions } from '../lib/options.js'
import { apiOf, snapshotOf } from './helpers/api.js'
import { startBodyLimitProxy } from './helpers/body-limit-proxy.js'
import { clientOf } from './helpers/couch-client.js'
import { compareDatabases, recreate, setupDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { listen } from './helpers/listen.js'
import { bytesOf, load } from './helpers/seed.js'
import { cases, extent } from './helpers/settings.js'

const KiB = 1024
const RETRY = { attempts: 2, wait: 1, longest: 5 }

t.test('documents below half of the limit are backed up with any limit of 64 KiB and more', async (t) => {
  const direct = await setupDatabases(t)
  const proxy = await startBodyLimitProxy(t, direct.url, { limit: 64 * KiB })
  const on = { ...direct, couch: nano(proxy.url), url: proxy.url }
  const { components } = direct.names
  const shares = fc.array(fc.double({ min: 0.001, max: 0.95, noNaN: true }), { minLength: 1, maxLength: 60 })
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 64 * KiB, max: 600 * KiB }),
      shares,
      fc.boolean(),
      async (limit, parts, told) => {
        proxy.limit = limit
        proxy.refused = []
        await recreate(direct.couch, components)
        const docs = parts.map((share, i) => {
          const bytes = Math.floor(((limit / 2) * share - 200) * 0.75)
          return { _id: `doc_${i}`, text: bytesOf(`${i}`, Math.max(1, bytes)).toString('base64') }
        })
        await load(direct.couch.use(components), docs, 20)
        const before = await direct.fetchAll(components)
        const host = await buildHost(t, { on, retry: RETRY, limits: told ? { requestBytes: limit } : {} })
        const backup = await apiOf(host).get(await apiOf(host).backup())
        compareDatabases(t, before, snapshotOf(backup, 'athena_components'), { rev: true })
        t.strictSame(backup.dbs.athena_components!.unreadable, undefined)
        if (told) t.strictSame(proxy.refused, [], 'a known limit is not tried again')
        await host.app.close()
      }
    ),
    { numRuns: cases(extent(3, 5)) }
  )
})

t.test(
  'a proxy that cuts long bodies off without an answer keeps nothing else from being backed up',
  async (t) => {
    const direct = await setupDatabases(t)
    const limit = 100 * KiB
    const proxy = await startBodyLimitProxy(t, direct.url, { limit, closing: 'without answer' })
    const { components } = direct.names
    const docs = Array.from({ length: 8 }, (_, i) => ({
      _id: `doc_${i}`,
      text: bytesOf(`${i}`, i === 3 ? 200 * KiB : 30 * KiB).toString('base64')
    }))
    await load(direct.couch.use(components), docs)
    const before = await direct.fetchAll(components)
    before.delete('doc_3')
    const on = { ...direct, couch: nano(proxy.url), url: proxy.url }
    const api = apiOf(await buildHost(t, { on, retry: RETRY }))
    const id = await api.backup()
    const backup = await api.get(id)
    compareDatabases(t, before, snapshotOf(backup, 'athena_components'))
    t.match(backup.dbs.athena_components!.unreadable, [
      {
        id: 'doc_3',
        reason: /^too_large: the connection was closed \(\w+\) before \d+ bytes .*client_max_body_size/
      }
    ])
    await recreate(direct.couch, components)
    const upload = { dbs: { athena_components: { docs } } }
    const host = await buildHost(t, { on, retry: RETRY, limits: { requestBytes: 64 * KiB } })
    const uploaded = await apiOf(host).restore(upload)
    t.match(uploaded.failures, [{ id: 'doc_3', reason: /was closed .*client_max_body_size/ }])
    compareDatabases(t, before, await direct.fetchAll(components))
    await recreate(direct.couch, components)
    const { status, failures } = await api.restore(upload)
    t.match({ status, failures }, { failures: [{ id: 'doc_3' }] }, 'batches are divided as well')
    compareDatabases(t, before, await direct.fetchAll(components))
  }
)

t.test('items are divided so that each body fits, and none is lost, whatever is refused', async () => {
  const sizes = fc.array(fc.integer({ min: 1, max: 200_000 }), { maxLength: 80 })
  await fc.assert(
    fc.asyncProperty(sizes, fc.integer({ min: 64 * KiB, max: 4096 * KiB }), async (items, limit) => {
      const size = new RequestSize()
      const refusal = new Error('413')
      const lost: number[] = []
      const call = async function* (part: readonly number[]) {
        const sent = part.reduce((sum, item) => sum + item, 0)
        if (sent > limit) {
          size.refused(sent)
          throw refusal
        }
        yield* part
      }
      const taken: number[] = []
      try {
        for await (const item of inParts(
          items,
          size,
          call,
          (item) => item,
          (error) => error === refusal
        ))
          taken.push(item)
        lost.push(...items.slice(taken.length))
      } catch (error) {
        if (error !== refusal) throw error
        // only an item that is itself too large fails
        if (items[taken.length] <= limit) throw new Error('an item that fits was refused')
      }
      if (lost.length > 0) throw new Error('items were lost')
      if (taken.some((item, i) => item !== items[i])) throw new Error('items came in another order')
    })
  )
})

t.test('reads, comparisons and deletions of many long ids are divided', async (t) => {
  const direct = await setupDatabases(t)
  const proxy = await startBodyLimitProxy(t, direct.url, { limit: 64 * KiB })
  const { components } = direct.names
  const ids = Array.from({ length: 120 }, (_, i) => `${i}_${'x'.repeat(2000)}`)
  await load(
    direct.couch.use(components),
    ids.map((_id) => ({ _id })),
    20
  )
  for (const requestBytes of [64 * KiB, undefined]) {
    const db = new CouchDatabase(clientOf(t, proxy.url, { retry: RETRY, requestBytes }), components)
    proxy.refused = []
    const found = new Map<string, string>()
    for await (const { id, doc } of db.bulkGet(
      ids.map((id) => ({ id })),
      { attachments: false }
    ))
      found.set(id, JSON.parse(Buffer.from(doc as Uint8Array).toString())._rev)
    t.strictSame([...found.keys()].sort(), [...ids].sort())
    const revisions = ids.map((id, i) => ({
      id,
      rev: i % 2 ? (found.get(id) as string) : `1-${'0'.repeat(32)}`
    }))
    t.equal((await db.revsDiff(revisions)).size, 60)
    if (requestBytes) t.strictSame(proxy.refused, [])
    else t.ok(proxy.refused.length > 0 && proxy.refused.length < 6, 'a refusal teaches reads and comparisons')
    if (requestBytes) continue
    const deletions = [...found].map(([_id, _rev]) =>
      Buffer.from(JSON.stringify({ _id, _rev, _deleted: true }))
    )
    const before = proxy.refused.length
    const results = await db.bulkDocs(deletions)
    t.strictSame(
      results.map(({ id }) => id),
      [...found.keys()]
    )
    t.ok(results.every(({ error }) => error === undefined))
    t.equal(proxy.refused.length, before, 'all kinds of requests know a limit that one of them has met')
  }
})

interface Answer {
  status: number
  headers: Record<string, string>
  body: string
}

async function answeringWith(t: Test) {
  const state: { answer: Answer } = { answer: { status: 200, headers: {}, body: '' } }
  const server = createServer((request, response) => {
    request.resume()
    request.on('end', () => {
      response.writeHead(state.answer.status, state.answer.headers)
      response.end(state.answer.body)
    })
  })
  const origin = await listen(t, server)
  return { state, client: clientOf(t, origin, { retry: { ...RETRY, attempts: 1 } }) }
}

const HTML = '<html><h1>token=s3cret</h1></html>'
const NGINX = { server: 'nginx/1.25.3', 'content-type': 'text/html' }

t.test('a refusal by something before CouchDB names the status, who answered and what to do', async (t) => {
  const { state, client } = await answeringWith(t)
  const told: Record<number, RegExp> = {
    301: /301 Moved Permanently: let "couch" name the address/,
    302: /302 Found: let "couch"/,
    401: /401 Unauthorized: let the requests/,
    403: /403 Forbidden: let the requests/,
    404: /404 Not Found: check the address and path/,
    407: /407 Proxy Authentication Required: let the dispatcher/,
    408: /408 Request Timeout: raise its time-outs/,
    413: /413 Payload Too Large to 100002 bytes: raise its limit of bodies \(nginx: client_max_body_size\)/,
    414: /414 URI Too Long: raise/,
    429: /429 Too Many Requests: raise the rate/,
    431: /431 Request Header Fields Too Large: raise/,
    500: /500 Internal Server Error: check/,
    502: /502 Bad Gateway: check that it reaches CouchDB/,
    503: /503 Service Unavailable: check/,
    504: /504 Gateway Timeout: raise its time-outs \(nginx: proxy_read_timeout\)/,
    418: /418 I'm a Teapot$/,
    599: /answered 599$/
  }
  for (const [status, expected] of Object.entries(told)) {
    for (const [headers, body, who] of [
      [NGINX, HTML, /a proxy or gateway before CouchDB \(nginx\) answered/],
      [{ ...NGINX, server: '<b>s3cret</b>' }, HTML, /a proxy or gateway before CouchDB answered/],
      [{ 'content-type': 'application/json' }, '{"message":"s3cret"}', /gateway before CouchDB answered/],
      [
        { 'content-type': 'application/json' },
        '{"error":"Too Large: s3cret"}',
        /gateway before CouchDB answered/
      ],
      [{ 'content-type': 'application/json' }, '{"error":', /gateway before CouchDB answered/],
      [{ location: 'http://user:s3cret@elsewhere/' }, '', /gateway before CouchDB answered/]
    ] as const) {
      state.answer = { status: Number(status), headers, body }
      const error = await client
        .send({ method: 'POST', path: ['db', '_bulk_docs'], json: 'x'.repeat(100_000) })
        .catch((error: unknown) => error as Error & { reason: string; gateway: boolean })
      const { reason, gateway, message } = error as Error & { reason: string; gateway: boolean }
      t.match(reason, expected, status)
      t.match(reason, who, status)
      t.equal(gateway, true)
      t.notMatch(message, /s3cret|<html|no reason given/i)
    }
  }
})

t.test('CouchDB is known by its JSON, its name, or the head that only it sends', async (t) => {
  const { state, client } = await answeringWith(t)
  const json = { 'content-type': 'application/json' }
  for (const [headers, body, reason] of [
    [{ ...json, server: 'nginx' }, '{"error":"document_too_large","reason":"doc"}', 'doc'],
    [
      { ...json, server: 'CouchDB/3.5.0' },
      '{}',
      'CouchDB answered 413 Payload Too Large and told nothing more'
    ],
    [
      { ...NGINX, 'x-couch-request-id': 'a' },
      '',
      'CouchDB answered 413 Payload Too Large and told nothing more'
    ],
    [{ ...json, server: 'CouchDB/3.5.0' }, '{"error":"attachment_too_large","reason":"a"}', 'a']
  ] as const) {
    state.answer = { status: 413, headers, body }
    await t.rejects(client.send({ method: 'POST', path: ['a'], json: 'x'.repeat(900_000) }), {
      status: 413,
      reason,
      gateway: false
    } as never)
  }
  t.equal(client.size.bytes, 1024 * KiB, 'its own limits are of documents: they teach nothing')
})

t.test('a 413 with words of its own is of something before CouchDB, and teaches', async (t) => {
  for (const [error, reason] of [
    ['request_too_large', 'Request body exceeds the limit'],
    ['Payload Too Large', 'Payload Too Large']
  ]) {
    const { state, client } = await answeringWith(t)
    const headers = { 'content-type': 'application/json', server: 'gw/1' }
    state.answer = { status: 413, headers, body: JSON.stringify({ error, reason }) }
    await t.rejects(client.send({ method: 'POST', path: ['a'], body: Buffer.alloc(900_000) }), {
      status: 413,
      gateway: true,
      reason: /gateway before CouchDB \(gw\) answered 413 Payload Too Large to 900000 bytes: raise/
    } as never)
    t.equal(client.size.bytes, 450_000)
  }
})

t.test('a 413 of the limit of requests that CouchDB has names it, and teaches', async (t) => {
  const told =
    'CouchDB answered 413 Payload Too Large to 900000 bytes: raise chttpd/max_http_request_size, or set limits.requestBytes, which divides what holds several documents'
  for (const [server, reason, expected] of [
    ['CouchDB/3.5.0', 'the request entity is too large', `the request entity is too large; ${told}`],
    ['nginx', 'the request entity is too large', `the request entity is too large; ${told}`],
    ['CouchDB/3.5.0', undefined, told]
  ] as const) {
    const { state, client } = await answeringWith(t)
    const headers = { 'content-type': 'application/json', server }
    state.answer = { status: 413, headers, body: JSON.stringify({ error: 'too_large', reason }) }
    const refusal = await client
      .send({ method: 'POST', path: ['a'], body: Buffer.alloc(900_000) })
      .catch((error: unknown) => error as CouchError)
    t.match(refusal, { status: 413, error: 'too_large', reason: expected, gateway: false })
    t.equal(client.size.bytes, 450_000)
    t.equal(tooLargeFailure('a', refusal as CouchError).reason, expected, 'of a document as well')
  }
})

t.test('an answer that is none of CouchDB says what it is', async (t) => {
  const { state, client } = await answeringWith(t)
  state.answer = { status: 200, headers: NGINX, body: HTML }
  await t.rejects(client.send({ path: ['db'] }), {
    reason:
      /the answer is not JSON: a proxy or gateway before CouchDB \(nginx\) answered 200 with text\/html; let "couch"/
  } as never)
})

t.test('a 413 teaches, down to what every proxy has to take', async (t) => {
  const { state, client } = await answeringWith(t)
  state.answer = { status: 413, headers: NGINX, body: HTML }
  const learned: number[] = []
  const post = (on: CouchClient, bytes: number) =>
    on.send({ method: 'POST', path: ['a'], body: Buffer.alloc(bytes) }).catch(() => undefined)
  for (const bytes of [800 * KiB, 1024 * KiB, 300 * KiB, 10 * KiB]) {
    await post(client, bytes)
    learned.push(client.size.bytes / KiB)
  }
  t.strictSame(learned, [400, 400, 150, 64])
  await post(client.with({ control: 1000 }), 100)
  t.equal(client.for('renewals').size, client.size, 'all clients on the same connections share it')
})

t.test('limits.requestBytes is checked when the plugin is registered', async (t) => {
  const options = (requestBytes: unknown) =>
    ({
      couch: nano('http://127.0.0.1:5984'),
      databases: { components: 'a', sessions: 'b', system: 'c' },
      authorize() {},
      rebuildWhitelist() {},
      webhooks: { create() {}, update() {}, get() {} },
      limits: { requestBytes }
    }) as never
  t.equal(resolveOptions(options(undefined)).limits.requestBytes, 1024 * KiB)
  t.equal(resolveOptions(options(64 * KiB)).limits.requestBytes, 64 * KiB)
  for (const wrong of [64 * KiB - 1, 0, -1, 1.5, '1m', Number.POSITIVE_INFINITY, 2 ** 60])
    t.throws(() => resolveOptions(options(wrong)), /limits\.requestBytes/, String(wrong))
})
