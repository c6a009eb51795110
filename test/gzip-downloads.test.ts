import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { PassThrough, type Readable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { createGzip, gunzipSync } from 'node:zlib'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { type Api, apiOf } from './helpers/api.js'
import { setupDatabases } from './helpers/database.js'
import { buildHost, type HostOptions } from './helpers/host.js'
import { poll } from './helpers/poll.js'
import { sendRaw } from './helpers/raw-socket.js'
import { bytesOf, load, seedDocuments } from './helpers/seed.js'

let prepared: ReturnType<typeof prepare> | undefined

async function prepare() {
  const on = await setupDatabases(t)
  await load(on.couch.use(on.names.components), seedDocuments({ count: 50, size: 4000 }))
  const api = apiOf(await buildHost(t, { on }))
  const id = await api.backup()
  return { on, id, whole: (await api.call('GET', `/${id}`)).rawPayload }
}

async function setup(t: Test, options: HostOptions = {}) {
  prepared ??= prepare()
  const { on, id, whole } = await prepared
  const host = await buildHost(t, { on, ...options })
  return { host, api: apiOf(host), id, whole }
}

const get = (api: Api, id: string, headers: Record<string, string> = {}) =>
  api.call('GET', `/${id}`, undefined, headers)

t.test('clients that prefer gzip get gzip', async (t) => {
  const { api, id, whole } = await setup(t)
  const gzip = [
    'gzip',
    'GZip',
    'x-gzip',
    'gzip, deflate, br',
    'br;q=1.0, gzip;q=0.8, *;q=0.1',
    'gzip;q=0.001',
    'gzip ; q=1.000 , identity ; q=0.5',
    'identity;q=0',
    'identity;q=0, *',
    'identity;q=0.5, *;q=0.6',
    'gzip, bad;;;, ='
  ]
  for (const header of gzip) {
    const { statusCode, headers, rawPayload } = await get(api, id, { 'accept-encoding': header })
    t.equal(statusCode, 200)
    t.match(headers, { 'content-encoding': 'gzip', vary: 'Accept-Encoding', etag: /^W\/"/ }, header)
    for (const name of ['content-length', 'accept-ranges']) t.notOk(name in headers, name)
    t.match(headers, { 'content-type': /json/, 'cache-control': 'no-store, no-transform' })
    t.ok(rawPayload.length < whole.length && gunzipSync(rawPayload).equals(whole))
  }
  const identity = [
    '',
    '*',
    'identity',
    'br',
    'gzip;q=0',
    'gzip;q=0, *',
    '*;q=0',
    'identity, gzip',
    'identity;q=0, gzip;q=0',
    'gzip;q=0.5, identity;q=0.6',
    'gzip;q=2',
    'gzip;q=-1',
    'gzip;q=x',
    'gzip;level=9',
    'notgzip'
  ]
  for (const header of identity) {
    const { headers, rawPayload } = await get(api, id, { 'accept-encoding': header })
    t.match(headers, { vary: 'Accept-Encoding', etag: /^"/, 'accept-ranges': 'bytes' }, header)
    t.equal(headers['content-length'], String(whole.length))
    t.notOk('content-encoding' in headers)
    t.ok(rawPayload.equals(whole))
  }
})

const GZIP = { 'accept-encoding': 'gzip' }

t.test('a part is never gzip, and goes on where a download broke, coded or not', async (t) => {
  const { api, id, whole } = await setup(t)
  const coded = await get(api, id, GZIP)
  const etag = String(coded.headers.etag).slice(2)
  t.equal((await get(api, id)).headers.etag, etag, 'the tag of the body as it is, with W/ before it')
  const conditions: Record<string, string>[] = [{}, { 'if-range': etag }]
  for (const condition of conditions) {
    const rest = await get(api, id, { ...GZIP, range: 'bytes=5000-', ...condition })
    t.equal(rest.statusCode, 206)
    t.match(rest.headers, { etag, vary: 'Accept-Encoding', 'content-length': String(whole.length - 5000) })
    t.notOk('content-encoding' in rest.headers)
    t.ok(rest.rawPayload.equals(whole.subarray(5000)))
  }
  for (const tag of [`W/${etag}`, '"another"']) {
    const reply = await get(api, id, { ...GZIP, range: 'bytes=5000-', 'if-range': tag })
    t.match(reply, { statusCode: 200, headers: { 'content-encoding': 'gzip' } }, tag)
    t.ok(gunzipSync(reply.rawPayload).equals(whole))
  }
})

t.test('both tags prove that the client has the backup', async (t) => {
  const { api, id } = await setup(t)
  const etag = String((await get(api, id)).headers.etag)
  for (const tag of [etag, `W/${etag}`]) {
    for (const [accept, told] of [
      ['gzip', `W/${etag}`],
      ['identity', etag]
    ]) {
      const reply = await get(api, id, { 'accept-encoding': accept, 'if-none-match': tag })
      t.match(reply, { statusCode: 304, body: '', headers: { etag: told, vary: 'Accept-Encoding' } })
      t.notOk('content-encoding' in reply.headers)
    }
  }
})

t.test('errors are not gzip', async (t) => {
  const { host, api, id, whole } = await setup(t, { limits: { downloads: 1 } })
  const { body } = await host.app.dbBackups.get(id)
  body.on('error', () => undefined).read()
  await once(body, 'readable')
  const full = await get(api, id, GZIP)
  body.destroy()
  const unknown = await get(api, '03_ibp_db_backup_1', GZIP)
  const after = await get(api, id, { ...GZIP, range: `bytes=${whole.length}-` })
  for (const [status, reply] of Object.entries({ 503: full, 404: unknown, 416: after })) {
    t.equal(reply.statusCode, Number(status))
    t.notOk('content-encoding' in reply.headers, status)
    t.equal(typeof reply.json().statusCode, 'number')
  }
})

t.test('a running backup is told as gzip as well', async (t) => {
  const { host, api } = await setup(t)
  const { id, finished } = await host.app.dbBackups.start()
  const reply = await get(api, id, GZIP)
  t.match(reply.headers, { 'content-encoding': 'gzip', etag: /^W\// })
  t.equal(JSON.parse(gunzipSync(reply.rawPayload).toString()).id, id)
  await finished
})

t.test("the host's Vary stays", async (t) => {
  for (const [vary, told] of [
    ['Origin', 'Origin, Accept-Encoding'],
    [['Origin', 'Cookie'], 'Origin, Cookie, Accept-Encoding'],
    ['origin, accept-encoding', 'origin, accept-encoding'],
    ['*', '*']
  ] as const) {
    const { api, id } = await setup(t, {
      extend: (app) => app.addHook('onRequest', async (_request, reply) => void reply.header('vary', vary))
    })
    t.equal((await get(api, id, GZIP)).headers.vary, told)
  }
})

/** Compresses every stream, whatever the request accepts and whatever the reply is already. */
const always = async (
  _request: unknown,
  reply: { header(name: string, value: string): unknown },
  body: unknown
) => {
  if (typeof (body as Readable)?.pipe !== 'function') return body
  reply.header('content-encoding', 'gzip')
  return (body as Readable).pipe(createGzip())
}

t.test('a body that a hook of the host codes is not coded twice', async (t) => {
  const { api, id, whole } = await setup(t, { extend: (app) => app.addHook('onSend', always) })
  for (const headers of [GZIP, {}]) {
    const reply = await get(api, id, headers)
    t.match(reply.headers, { 'content-encoding': 'gzip', etag: /^W\/"/, vary: 'Accept-Encoding' })
    t.ok(gunzipSync(reply.rawPayload).equals(whole))
  }
})

t.test('nor by a hook after it that looks at what the request accepts', async (t) => {
  const late = (app: FastifyInstance) =>
    app.addHook('onRoute', (route) => {
      const compress: typeof always = async (request, reply, body) => {
        const { headers } = request as { headers: Record<string, string> }
        return /gzip/.test(headers['accept-encoding'] ?? '') ? always(request, reply, body) : body
      }
      route.onSend = [route.onSend ?? [], compress].flat() as typeof route.onSend
    })
  const { api, id, whole } = await setup(t, { extend: (app) => void late(app) })
  t.ok(gunzipSync((await get(api, id, GZIP)).rawPayload).equals(whole))
})

t.test('a body that a hook of the host only passes through is coded', async (t) => {
  const { api, id, whole } = await setup(t, {
    extend: (app) =>
      app.addHook('onSend', async (_request, _reply, body) =>
        typeof (body as Readable)?.pipe === 'function' ? (body as Readable).pipe(new PassThrough()) : body
      )
  })
  const reply = await get(api, id, GZIP)
  t.equal(reply.headers['content-encoding'], 'gzip')
  t.ok(gunzipSync(reply.rawPayload).equals(whole))
})

const IDLE = 1500

t.test('a client that does not read, or leaves, ends the download', async (t) => {
  const on = await setupDatabases(t)
  const components = on.couch.use(on.names.components)
  for (let i = 0; i < 24; i++)
    await components.insert({ _id: `d${i}`, text: bytesOf(`${i}`, 900_000).toString('base64') } as object)
  const id = await apiOf(await buildHost(t, { on })).backup()
  const bodies: Readable[] = []
  const host = await buildHost(t, {
    on,
    limits: { downloads: 1 },
    timeouts: { idle: IDLE },
    extend: (app) =>
      app.addHook('onSend', async (_request, _reply, body) => {
        if (typeof (body as Readable)?.pipe === 'function') bodies.push(body as Readable)
        return body
      })
  })
  await host.app.listen({ port: 0, host: '127.0.0.1' })
  const { port } = host.app.server.address() as AddressInfo
  const begin = async () => {
    const socket = sendRaw(
      t,
      port,
      `GET /api/v1/backups/${id} HTTP/1.1\r\nhost: x\r\nx-role: manager\r\naccept-encoding: gzip\r\n\r\n`
    )
    await once(socket, 'readable')
    const head = (socket.read() as Buffer).toString('latin1')
    return { socket, head }
  }
  const stalled = await begin()
  t.match(stalled.head, /^HTTP\/1\.1 200 [\s\S]*content-encoding: gzip/i)
  t.match((await begin()).head, /^HTTP\/1\.1 503 /)
  await delay(2 * IDLE)
  t.ok(bodies[0]!.destroyed && !bodies[0]!.readableEnded, 'cut off before its end')
  let text = ''
  stalled.socket.on('data', (piece) => {
    text += piece.toString('latin1')
  })
  if (!stalled.socket.closed) await once(stalled.socket, 'close')
  t.notMatch(text.slice(-5), /0\r\n\r\n/, 'without the last chunk of HTTP')

  const left = await begin()
  t.match(left.head, /^HTTP\/1\.1 200 /)
  left.socket.destroy()
  await poll('the body is given up', async () => bodies.at(-1)!.destroyed || undefined)
  t.match((await begin()).head, /^HTTP\/1\.1 200 /, 'its place is free')
})

t.test('a reply that is cut off is listened to once', async (t) => {
  const warnings: string[] = []
  const warn = ({ message }: Error) => warnings.push(message)
  process.on('warning', warn)
  t.teardown(() => process.off('warning', warn))
  const on = await setupDatabases(t)
  const components = on.couch.use(on.names.components)
  for (let i = 0; i < 4; i++)
    await components.insert({ _id: `d${i}`, text: bytesOf(`${i}`, 900_000).toString('base64') } as object)
  const host = await buildHost(t, { on, timeouts: { idle: IDLE / 3 } })
  const id = await apiOf(host).backup()
  const reply = await host.app.inject({
    url: `/api/v1/backups/${id}`,
    headers: { ...host.as('manager'), 'accept-encoding': 'gzip' },
    payloadAsStream: true
  })
  await once(reply.stream(), 'error')
  t.strictSame(warnings, [], 'Node.js warns of more than ten listeners')
})
