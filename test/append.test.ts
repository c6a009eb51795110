import { createServer, type IncomingMessage, type ServerResponse, request as send } from 'node:http'
import type { Socket } from 'node:net'
import { pipeline } from 'node:stream/promises'
import { setTimeout as delay } from 'node:timers/promises'
import nano from 'nano'
import t, { type Test } from 'tap'
import { apiOf } from './helpers/api.js'
import { startBodyLimitProxy } from './helpers/body-limit-proxy.js'
import { setupDatabases } from './helpers/database.js'
import { startGate } from './helpers/gate.js'
import { buildHost, type HostOptions } from './helpers/host.js'
import { listenInFrontOf } from './helpers/listen.js'
import { load, seedDocuments } from './helpers/seed.js'

async function withBackup(t: Test, options: HostOptions = {}) {
  const on = options.on ?? (await setupDatabases(t))
  await load(on.couch.use(on.names.components), seedDocuments({ count: 5 }))
  const host = await buildHost(t, { on, ...options })
  const api = apiOf(host, '/ak/api/v3')
  const id = await api.backup()
  const append = (name: string, payload: object | string) =>
    api.call('PUT', `/${id}/attachments/${name}`, payload)
  return { on, host, api, id, append }
}

t.test('data are stored as they are and come back in base64', async (t) => {
  const { on, api, id, append } = await withBackup(t)
  const values = [
    'data',
    '',
    'bub\n',
    '\u0000\u001f"\\/',
    'é 漢字 😀',
    'eyJ0ZXN0IjoidGVzdCJ9',
    'x'.repeat(1_000_000)
  ]
  for (const [i, attachment] of values.entries()) {
    const reply = await append(`a${i}`, { attachment })
    t.equal(reply.statusCode, 200)
    t.strictSame(reply.json(), { message: 'ok', att_name: `a${i}` })
  }
  const { _attachments, ...backup } = await api.get(id)
  t.strictSame(
    Object.entries(_attachments!)
      .map(([name, data]) => [name, Buffer.from(data, 'base64').toString()])
      .sort(),
    values.map((value, i) => [`a${i}`, value])
  )
  for (const [i, value] of values.entries())
    t.equal(_attachments![`a${i}`], Buffer.from(value).toString('base64'))
  t.match(backup, { in_progress: false, doc_count: 5, dbs: { athena_components: { doc_count: 5 } } })
  const stored = (await on.couch.use(on.names.system).get(id)) as {
    _attachments?: Record<string, { content_type: string }>
  }
  t.equal(stored._attachments?.a0?.content_type, 'application/octet-stream')
})

t.test('a name may hold what a URL can', async (t) => {
  const { api, id, append } = await withBackup(t)
  const names = [
    'a/b/c',
    'with space',
    'ü漢😀',
    'a+b',
    'a%2Fb',
    '"quoted"',
    'a?b=c#d',
    'a&b',
    '0',
    'x'.repeat(100)
  ]
  for (const name of names) {
    const reply = await append(encodeURIComponent(name), { attachment: name })
    t.equal(reply.statusCode, 200, name)
    t.strictSame(reply.json(), { message: 'ok', att_name: name })
  }
  const { _attachments } = await api.get(id)
  const expected = Object.fromEntries(names.map((name) => [name, Buffer.from(name).toString('base64')]))
  t.strictSame(Object.keys(_attachments!).sort(), names.sort())
  t.same(_attachments, expected)
})

t.test('the same name replaces, and another is kept', async (t) => {
  const { host, api, id, append } = await withBackup(t)
  await append('a', { attachment: 'first' })
  await append('b', { attachment: 'other' })
  await append('a', { attachment: 'second' })
  const base64 = (text: string) => Buffer.from(text).toString('base64')
  t.same((await api.get(id))._attachments, { a: base64('second'), b: base64('other') })
  t.same((await host.app.dbBackups.summary(id)).attachments.sort(), ['a', 'b'])
})

t.test('several at the same time are all kept', async (t) => {
  const { api, id, append } = await withBackup(t)
  const names = Array.from({ length: 8 }, (_, i) => `a${i}`)
  const replies = await Promise.all(names.map((name) => append(name, { attachment: name })))
  for (const reply of replies) t.equal(reply.statusCode, 200)
  t.strictSame(Object.keys((await api.get(id))._attachments!).sort(), names)
})

t.test('a name that cannot be stored is refused', async (t) => {
  const { api, id, append } = await withBackup(t)
  const names = [
    '',
    '_a',
    '_',
    '%5Fa',
    'x'.repeat(513),
    encodeURIComponent('漢'.repeat(171)),
    'a%00b',
    'a%0Ab',
    '%7F'
  ]
  for (const name of names) {
    const reply = await append(name, { attachment: 'x' })
    t.equal(reply.statusCode, 400, name.slice(0, 20))
    t.match(reply.json(), { statusCode: 400, error: 'Bad Request', message: /att_name/ })
  }
  t.notOk('_attachments' in (await api.get(id)))
})

t.test('a body that is not as described is refused, and the message names the field', async (t) => {
  const { api, id, append } = await withBackup(t)
  const bodies: [body: object | string, message: RegExp][] = [
    [{}, /body\/attachment/],
    [{ attachment: 1 }, /body\/attachment/],
    [{ attachment: null }, /body\/attachment/],
    [{ attachment: ['x'] }, /body\/attachment/],
    [{ attachment: { x: 1 } }, /body\/attachment/],
    [{ attachment: true }, /body\/attachment/],
    [{ attachment: 'x', content_type: 'text/plain' }, /body\/content_type/],
    ['[]', /body/],
    ['"x"', /body/],
    ['null', /body/],
    ['{"attachment":"x"', /JSON/],
    ['{"attachment":"x","__proto__":{}}', /JSON/]
  ]
  for (const [body, message] of bodies) {
    const reply = await append('a', body)
    t.equal(reply.statusCode, 400, JSON.stringify(body))
    t.match(reply.json(), { statusCode: 400, error: 'Bad Request', message })
  }
  const none = await api.call('PUT', `/${id}/attachments/a`)
  t.equal(none.statusCode, 400)
  t.match(none.json().message, /body/)
  const query = await api.call('PUT', `/${id}/attachments/a?rev=1-x`, { attachment: 'x' })
  t.equal(query.statusCode, 400)
  t.match(query.json().message, /rev/)
  t.notOk('_attachments' in (await api.get(id)))
})

t.test('what is too large is refused', async (t) => {
  const attachmentBytes = 10_000
  const { api, id, append } = await withBackup(t, { limits: { attachmentBytes } })
  for (const attachment of [
    'x'.repeat(attachmentBytes + 1),
    'é'.repeat(attachmentBytes / 2 + 1),
    'x'.repeat(500_000)
  ]) {
    const reply = await append('a', { attachment })
    t.equal(reply.statusCode, 413, `${attachment.length}`)
    t.match(reply.json(), { statusCode: 413, error: 'Payload Too Large' })
  }
  t.equal(
    (await append('b', { attachment: 'x'.repeat(attachmentBytes) })).statusCode,
    200,
    'the limit is allowed'
  )
  t.strictSame(Object.keys((await api.get(id))._attachments!), ['b'])
})

t.test('to what is no backup is refused', async (t) => {
  const { on, api } = await withBackup(t)
  await load(on.couch.use(on.names.system), [{ _id: '03_ibp_db_backup_5', type: 'other' }])
  for (const id of ['03_ibp_db_backup_1592922855871', '03_ibp_db_backup_5']) {
    const reply = await api.call('PUT', `/${id}/attachments/a`, { attachment: 'x' })
    t.equal(reply.statusCode, 404)
    t.match(reply.json(), { statusCode: 404, error: 'Not Found', message: `there is no backup "${id}"` })
  }
  const wrong = await api.call('PUT', '/00_settings_athena/attachments/a', { attachment: 'x' })
  t.equal(wrong.statusCode, 400)
  t.match(wrong.json().message, /backup_id/)
})

t.test('an attachment appended while the backup runs is there when it is complete', async (t) => {
  const on = await setupDatabases(t)
  const gate = await startGate(t, on)
  const { host, api } = await withBackup(t, { on, couch: gate.couch })
  const release = gate.hold(/_changes/)
  const { id } = (await api.call('POST')).json()
  await gate.held(/_changes/)
  const reply = await api.call('PUT', `/${id}/attachments/early`, { attachment: 'x' })
  t.equal(reply.statusCode, 200)
  t.match(await api.get(id), { in_progress: true, _attachments: { early: 'eA==' } })
  release()
  const summary = await host.waitForBackup(id)
  t.match(summary, { in_progress: false, attachments: ['early'] })
  t.notOk(summary.error)
  t.match(await api.get(id), { doc_count: 5, _attachments: { early: 'eA==' } })
})

t.test('through the decorator, a content type and bytes may be given', async (t) => {
  const { on, host, api, id } = await withBackup(t)
  const bytes = Buffer.from([0, 255, 128, 10])
  await host.app.dbBackups.attach(id, 'bytes', bytes, { contentType: 'application/x-apollo' })
  t.equal((await api.get(id))._attachments?.bytes, bytes.toString('base64'))
  const { _attachments } = (await on.couch.use(on.names.system).get(id)) as never
  t.equal(
    (_attachments as Record<string, { content_type: string }>).bytes?.content_type,
    'application/x-apollo'
  )
  for (const name of ['..', '.', '../x', '...']) {
    // an HTTP client would change the first two
    await host.app.dbBackups.attach(id, name, 'x')
    t.equal((await api.get(id))._attachments?.[name], 'eA==', name)
  }
  await t.rejects(host.app.dbBackups.attach(id, '_x', 'x'), { message: /att_name/ })
})

t.test('an append that a proxy or CouchDB refuses for its length is 413, and says what to do', async (t) => {
  const on = await setupDatabases(t)
  const proxy = await startBodyLimitProxy(t, on.url, { limit: 1024 * 1024 })
  const { host, api, id, append } = await withBackup(t, { on, couch: nano(proxy.url) })
  const answered =
    /^body\/attachment of 2000000 bytes is too large .*: a proxy or gateway .* answered 413; raise .*nginx/
  const cut =
    /^body\/attachment of 2000000 bytes is too large .*: .* (answered 413|closed without an answer); raise .*nginx/
  for (const [closing, message] of [
    ['lingers', answered],
    ['at once', cut],
    ['without answer', cut]
  ] as const) {
    proxy.closing = closing
    const reply = await append('a', { attachment: 'x'.repeat(2_000_000) })
    t.equal(reply.statusCode, 413, closing)
    t.equal(reply.headers['retry-after'], undefined, 'trying again does not help')
    t.match(reply.json(), { code: 'DB_BACKUPS_TOO_LARGE', error: 'Payload Too Large', message })
    t.match(reply.json().message, /limits\.requestBytes does not divide/)
    const attached = host.app.dbBackups.attach(id, 'a', 'x'.repeat(2_000_000))
    await t.rejects(attached, { statusCode: 413, message })
  }
  t.equal((await append('a', { attachment: 'x'.repeat(1_000_000) })).statusCode, 200)
  t.strictSame(Object.keys((await api.get(id))._attachments!), ['a'])
})

/** Starts a proxy in front of the database that can delay or refuse appends. */
async function proxied(t: Test, url: string, onAppend: (socket: Socket) => Promise<object | undefined>) {
  const target = new URL(url)
  const slow = { bytesPerMs: Number.POSITIVE_INFINITY }
  const server = createServer((request, response) => {
    void pass(request, response).catch(() => response.destroy())
  })
  async function pass(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (request.method === 'PUT' && request.url?.includes('/slow')) {
      const refusal = await onAppend(request.socket)
      if (refusal) {
        request.resume()
        response.writeHead(413, { 'content-type': 'application/json' }).end(JSON.stringify(refusal))
        return
      }
    }
    const { method, url: path, headers } = request
    const onward = send({ host: target.hostname, port: target.port, method, path, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers)
      answer.pipe(response)
    })
    onward.on('error', () => response.destroy())
    const bytesPerMs = path?.includes('/slow') ? slow.bytesPerMs : Number.POSITIVE_INFINITY
    await pipeline(
      request,
      async function* (pieces: AsyncIterable<Buffer>) {
        for await (const piece of pieces) {
          await delay(piece.length / bytesPerMs, undefined, { ref: false })
          yield piece
        }
      },
      onward
    )
  }
  return { server, slow, couch: nano(await listenInFrontOf(t, server, url)) }
}

t.test('the setting of CouchDB that bounds an append is named', async (t) => {
  const on = await setupDatabases(t)
  let refusal = {}
  const { couch } = await proxied(t, on.url, async () => refusal)
  const { append } = await withBackup(t, { on, couch })
  for (const [error, message] of [
    ['too_large', /CouchDB answered 413; raise chttpd\/max_http_request_size, or append less/],
    ['attachment_too_large', /CouchDB answered 413; raise couchdb\/max_attachment_size, or append less/],
    ['document_too_large', /CouchDB answered 413; raise couchdb\/max_document_size, or append less/],
    ['other', /a proxy or gateway before CouchDB answered 413; raise the limit of bodies of the proxy/]
  ] as const) {
    refusal = { error, reason: 'of a test' }
    const reply = await append('slow', { attachment: 'x' })
    t.equal(reply.statusCode, 413)
    t.match(reply.json(), { code: 'DB_BACKUPS_TOO_LARGE', message })
  }
})

t.test('a database that goes away while it is appended to is 503, and worth another try', async (t) => {
  const on = await setupDatabases(t)
  const away = new Set<Socket>()
  const { server, couch } = await proxied(t, on.url, async (socket) => {
    away.add(socket)
    socket.resetAndDestroy()
    return {}
  })
  const { append } = await withBackup(t, { on, couch })
  server.on('request', (request, response) => {
    if (away.size >= 3 && request.method === 'GET') response.destroy()
  })
  const reply = await append('slow', { attachment: 'x'.repeat(500_000) })
  t.equal(reply.statusCode, 503)
  t.equal(reply.headers['retry-after'], '5')
})

t.test('an append may take longer than a small call, as long as the database reads on', async (t) => {
  const on = await setupDatabases(t)
  const { couch, slow } = await proxied(t, on.url, async () => undefined)
  const timeouts = { control: 1500 }
  const { api, id, append } = await withBackup(t, { on, couch, timeouts })
  slow.bytesPerMs = 12_000
  const attachment = 'x'.repeat(30_000_000)
  const startedAt = performance.now()
  const reply = await append('slow', { attachment })
  t.equal(reply.statusCode, 200, reply.body)
  t.ok(performance.now() - startedAt > 2000, 'it took longer')
  t.equal((await api.get(id))._attachments?.slow?.length, 40_000_000)
  slow.bytesPerMs = 1
  const host = await buildHost(t, { on, couch, timeouts: { ...timeouts, idle: 400 } })
  const silent = await apiOf(host).call('PUT', `/${id}/attachments/slow`, { attachment })
  t.equal(silent.statusCode, 503)
  t.match(silent.json().message, /stopped reading the request/)
})

t.test('an answer to an append that does not come is waited for as long as for a small call', async (t) => {
  const on = await setupDatabases(t)
  const { couch, slow } = await proxied(t, on.url, async () => undefined)
  const { append } = await withBackup(t, { on, couch, timeouts: { control: 300 } })
  slow.bytesPerMs = 1
  const startedAt = performance.now()
  const reply = await append('slow', { attachment: 'x'.repeat(20_000) })
  t.equal(reply.statusCode, 503)
  t.match(reply.json().message, /did not answer in time/)
  t.ok(performance.now() - startedAt < 10_000)
})
