import { once } from 'node:events'
import { connect as connectHttp2, constants } from 'node:http2'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { StalledDownloadError, TooManyDownloadsError } from '../lib/index.js'
import { apiOf } from './helpers/api.js'
import { setupDatabases, type TestDatabases } from './helpers/database.js'
import { buildHost, type HostOptions } from './helpers/host.js'
import { poll } from './helpers/poll.js'
import { sendRaw } from './helpers/raw-socket.js'

const MiB = 1024 * 1024
/** Bytes that exceed what sockets on one machine hold. */
const DOCUMENTS = 16
const IDLE = 1500
const CLOSE = 2000

/** Makes a backup of 16 MiB, and appends an attachment of 16 MiB. */
let prepared: Promise<{ on: TestDatabases; id: string }> | undefined

function backedUp() {
  prepared ??= (async () => {
    const on = await setupDatabases(t)
    const components = on.couch.use(on.names.components)
    const text = 'x'.repeat(MiB)
    for (let i = 0; i < DOCUMENTS; i++) await components.insert({ _id: `d${i}`, text } as object)
    const host = await buildHost(t, { on })
    const id = await apiOf(host).backup()
    await host.app.dbBackups.attach(id, 'notes', Buffer.alloc(16 * MiB, 'y'))
    return { on, id }
  })()
  return prepared
}

async function serve(t: Test, options: HostOptions = {}) {
  const { on, id } = await backedUp()
  const timeouts = { idle: IDLE, close: CLOSE, ...options.timeouts }
  const host = await buildHost(t, { on, ...options, timeouts })
  await host.app.listen({ port: 0, host: '127.0.0.1' })
  const { port } = host.app.server.address() as AddressInfo
  const path = `/api/v3/backups/${id}`
  const get = `GET ${path} HTTP/1.1\r\nhost: x\r\nx-role: manager\r\n\r\n`
  const ask = (text: string) => sendRaw(t, port, text)
  /** Begins a download, reads only its head, and returns the status. */
  const begin = async () => {
    const socket = ask(get)
    await once(socket, 'readable')
    const head = (socket.read() as Buffer).toString('latin1')
    return { socket, head, status: Number(/^HTTP\/1\.1 (\d+)/.exec(head)?.[1]) }
  }
  return { on, host, id, port, path, get, ask, begin, api: apiOf(host) }
}

/** Starts a proxy in front of a port that can stop reading from it. */
async function startPipe(t: Test, to: number) {
  const upstreams: Socket[] = []
  const server = createServer((socket) => {
    const upstream = connect(to, '127.0.0.1')
    upstreams.push(upstream)
    for (const end of [socket, upstream]) end.on('error', () => undefined)
    upstream.on('data', (piece) => socket.write(piece))
    upstream.on('close', () => socket.destroy())
    socket.on('close', () => upstream.destroy())
    socket.pipe(upstream)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.close()
    for (const upstream of upstreams) upstream.destroy()
  })
  const pause = () => {
    for (const upstream of upstreams) upstream.pause()
  }
  return { port: (server.address() as AddressInfo).port, pause }
}

/** Reads to the end, and returns whether the reply has the length of its `Content-Length`. */
async function readOut(socket: Socket, before: string): Promise<number> {
  let bytes = before.length - before.indexOf('\r\n\r\n') - 4
  socket.on('data', (piece) => {
    bytes += piece.length
  })
  socket.resume()
  if (!socket.closed) await once(socket, 'close')
  return bytes
}

const lengthIn = (head: string) => Number(/content-length: (\d+)/i.exec(head)?.[1])

t.test('some of many downloads that nobody reads begin, and no other request waits for them', async (t) => {
  const { host, begin, api } = await serve(t, { limits: { downloads: 3 } })
  const begun = await Promise.all(Array.from({ length: 3 }, begin))
  t.same(
    begun.map(({ status }) => status),
    [200, 200, 200]
  )
  for (let i = 0; i < 3; i++) {
    const { head } = await begin()
    t.match(head, /^HTTP\/1\.1 503 /)
    t.match(head, /retry-after: 5\r\n/i)
    t.match(head, /content-type: application\/json/i)
    t.match(head, /"code":"DB_BACKUPS_TOO_MANY_DOWNLOADS"/)
    t.notMatch(head, /etag|accept-ranges/i)
  }
  t.equal((await api.call('GET')).statusCode, 200)
  const { finished } = await host.app.dbBackups.start()
  t.match(await finished, { in_progress: false, doc_count: DOCUMENTS })
})

t.test(
  'a download that nobody reads for the idle time is cut off, and its place is free again',
  async (t) => {
    const { begin } = await serve(t, { limits: { downloads: 2 } })
    const [first, second] = [await begin(), await begin()]
    t.equal((await begin()).status, 503)
    await delay(2 * IDLE)
    const again = await begin()
    t.equal(again.status, 200)
    for (const { socket, head } of [first, second]) {
      const bytes = await readOut(socket, head)
      t.ok(bytes < lengthIn(head), `${bytes} of ${lengthIn(head)} bytes`)
    }
  }
)

t.test('a download that is left by its client frees its place', async (t) => {
  const { begin } = await serve(t, { limits: { downloads: 1 }, timeouts: { idle: 60_000 } })
  for (let i = 0; i < 3; i++) {
    const { socket } = await poll('a place', async () => {
      const download = await begin()
      return download.status === 200 ? download : undefined
    })
    socket.destroy()
  }
  t.pass('each after the other')
})

/** Reads for longer than the idle time, each time enough for the kernel to let the server write again. */
async function readSlowly(socket: Socket, before: string): Promise<number> {
  let bytes = before.length - before.indexOf('\r\n\r\n') - 4
  while (!socket.closed) {
    for (const until = bytes + 8 * MiB; bytes < until && !socket.closed; ) {
      const piece = socket.read() as Buffer | null
      if (piece) bytes += piece.length
      else if (bytes === lengthIn(before)) return bytes
      else await delay(1)
    }
    await delay(IDLE / 2)
  }
  return bytes
}

t.test('a download that is read slowly goes on', async (t) => {
  const { begin } = await serve(t)
  const { socket, head } = await begin()
  const startedAt = performance.now()
  t.equal(await readSlowly(socket, head), lengthIn(head))
  t.ok(performance.now() - startedAt > 2 * IDLE, 'longer than the idle time in all')
})

t.test('the server keeps nothing of an HTTP/2 stream that its client does not read', async (t) => {
  const server = { http2: true } as unknown as HostOptions['server']
  const { port, path, api } = await serve(t, { server, limits: { downloads: 1 } })
  const session = connectHttp2(`http://127.0.0.1:${port}`, { settings: { initialWindowSize: 10 } })
  t.teardown(() => session.destroy())
  session.on('error', () => undefined)
  for (const asked of [path, '/api/v3/backups']) {
    const stream = session.request({ ':path': asked, 'x-role': 'manager' })
    stream.on('error', () => undefined)
    const [reply] = await once(stream, 'response')
    t.equal(reply[':status'], 200)
    const from = performance.now()
    await new Promise((resolve) => stream.once('close', resolve))
    t.equal(stream.rstCode, constants.NGHTTP2_INTERNAL_ERROR, `${asked} is reset`)
    t.ok(performance.now() - from < 4 * IDLE)
  }
  t.equal((await api.call('GET')).statusCode, 200)
})

t.test('a host whose connections take nothing can close', async (t) => {
  await t.test('HTTP/1.1', async (t) => {
    const { host, begin } = await serve(t, { timeouts: { idle: 60_000 } })
    const downloads = [await begin(), await begin()]
    const from = performance.now()
    await host.app.close()
    t.ok(performance.now() - from < 2 * CLOSE)
    for (const { socket, head } of downloads) t.ok((await readOut(socket, head)) < lengthIn(head), 'cut off')
  })
  await t.test('HTTP/2', async (t) => {
    const server = { http2: true } as unknown as HostOptions['server']
    const { host, port, path } = await serve(t, { server, timeouts: { idle: 60_000 } })
    const pipe = await startPipe(t, port)
    const settings = { initialWindowSize: 64 * MiB }
    const session = connectHttp2(`http://127.0.0.1:${pipe.port}`, { settings })
    await once(session, 'connect')
    session.setLocalWindowSize(64 * MiB)
    session.on('error', () => undefined)
    t.teardown(() => session.destroy())
    const stream = session.request({ ':path': path, 'x-role': 'manager' })
    stream.on('error', () => undefined)
    await once(stream, 'response')
    // the connection accepts nothing more, not even the reset of the stream
    pipe.pause()
    const from = performance.now()
    await host.app.close()
    t.ok(performance.now() - from < 2 * CLOSE)
  })
  await t.test("a host's own reader", async (t) => {
    const { host, id } = await serve(t, { timeouts: { idle: 60_000 } })
    const { body } = await host.app.dbBackups.get(id)
    const failed = once(body, 'error')
    body.read()
    await once(body, 'readable')
    await host.app.close()
    t.match((await failed)[0], { code: 'DB_BACKUPS_CLOSING' })
  })
})

t.test('a body of the decorator takes a place while it is read', async (t) => {
  const { host, id } = await serve(t, { limits: { downloads: 1 } })
  const get = async () => (await host.app.dbBackups.get(id)).body
  const unread = [await get(), await get(), await get()]
  const whole = await get()
  let bytes = 0
  for await (const piece of whole) bytes += piece.length
  t.ok(bytes > 16 * MiB, 'those that were not read take none')

  const stalled = unread[0]
  const failed = once(stalled, 'error')
  stalled.read()
  await once(stalled, 'readable')
  await t.rejects(once(unread[1].resume(), 'end'), new TooManyDownloadsError(1))
  t.match((await failed)[0], new StalledDownloadError(IDLE), 'a stream that is not read on fails')
  t.ok(stalled.destroyed)

  const left = await get()
  left.read()
  await once(left, 'readable')
  left.destroy()
  t.ok((await once((await get()).resume(), 'end')) !== undefined, 'one that is destroyed frees its place')
})

t.test('64 stalled uploads and 64 stalled appends keep nothing else waiting, and end', async (t) => {
  const { ask, path, api, host } = await serve(t, { limits: { uploads: 64 } })
  const head = (line: string) =>
    `${line} HTTP/1.1\r\nhost: x\r\nx-role: manager\r\ncontent-type: application/json\r\ncontent-length: 9999\r\n\r\n{`
  const sockets = Array.from({ length: 64 }, () => [
    ask(head('PUT /api/v3/backups')),
    ask(head(`PUT ${path}/attachments/a`))
  ]).flat()
  const replies = sockets.map(async (socket) => String((await once(socket, 'data'))[0]))
  t.equal((await api.call('GET')).statusCode, 200)
  const { finished } = await host.app.dbBackups.start()
  t.match(await finished, { in_progress: false }, 'they do not hold the lease')
  // an upload may be so late that the backup runs already, which refuses it
  const ended = /^HTTP\/1\.1 408 |"backup_in_progress"/
  for (const reply of await Promise.all(replies)) if (!ended.test(reply)) t.fail(reply)
})

t.test('a running backup is followed while as many downloads as may be stand', async (t) => {
  const { host, id } = await serve(t, { limits: { downloads: 1 }, timeouts: { idle: 60_000 } })
  const { body, etag } = await host.app.dbBackups.get(id)
  body.on('error', () => undefined).read()
  const call = (path: string, headers = {}) =>
    host.app.inject({ url: `/api/v1/backups/${path}`, headers: { ...host.as('manager'), ...headers } })
  t.equal((await call(id)).statusCode, 503)
  t.equal((await call(id, { 'if-none-match': etag })).statusCode, 304)

  const { id: running, finished } = await host.app.dbBackups.start()
  const reply = await call(running)
  t.equal(reply.statusCode, 200)
  t.equal(reply.json().in_progress, true)
  await finished
  body.destroy()
})
