import { once } from 'node:events'
import { createReadStream } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { connect as connectHttp2 } from 'node:http2'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { PassThrough, pipeline, Readable } from 'node:stream'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import type { RestoreOptions } from '../types/index.js'
import { backupOf } from './helpers/api.js'
import { buildHost, type HostOptions } from './helpers/host.js'
import { poll } from './helpers/poll.js'

/** Bytes that exceed the buffers of both ends. */
const SIZE = 12_000_000
/** Milliseconds: longer than a close takes, and less than the 72 seconds for which Fastify keeps idle connections. */
const PROMPT = 20_000

const INVALID: Record<string, string> = {
  'no JSON': 'not json',
  'an unknown key': '{"dbs":{},"y":1,"z":"',
  'a document without an id': '{"dbs":{"components":{"docs":[{"a":1},{"b":"'
}

/** Adds a route of the host that restores its body, like that of the operator page. */
function ownRoute(app: FastifyInstance, bodyOf: (body: Readable) => Readable, options: RestoreOptions): void {
  app.register(async (scope) => {
    scope.removeAllContentTypeParsers()
    scope.addContentTypeParser('application/json', (_request, payload, done) => done(null, payload))
    scope.put('/own', async (request, reply) => {
      const body = bodyOf(request.body as Readable)
      const { tx_id } = await scope.dbBackups.restore({ body }, options)
      return reply.code(202).send({ tx_id })
    })
  })
}

interface OwnOptions extends HostOptions {
  bodyOf?: (body: Readable) => Readable
  restore?: RestoreOptions
}

async function setup(t: Test, { bodyOf = (body) => body, restore = {}, ...options }: OwnOptions = {}) {
  const host = await buildHost(t, { ...options, extend: (app) => ownRoute(app, bodyOf, restore) })
  await host.app.listen({ port: 0, host: '127.0.0.1' })
  const { port } = host.app.server.address() as AddressInfo
  return { host, port }
}

/** Returns the bytes of a request whose body begins with `begin` and has `size` bytes. */
function* requestOf(begin: string, size: number, chunked: boolean): Generator<Buffer> {
  const framing = chunked ? 'transfer-encoding: chunked' : `content-length: ${size}`
  yield Buffer.from(`PUT /own HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n${framing}\r\n\r\n`)
  for (const piece of bodyPieces(begin, size)) {
    yield chunked
      ? Buffer.concat([Buffer.from(`${piece.length.toString(16)}\r\n`), piece, Buffer.from('\r\n')])
      : piece
  }
  if (chunked) yield Buffer.from('0\r\n\r\n')
}

function* bodyPieces(begin: string, size: number): Generator<Buffer> {
  const piece = 65_536
  for (let at = 0; at < size; at += piece) {
    const bytes = Buffer.alloc(Math.min(piece, size - at), 'a')
    if (at === 0) bytes.write(begin)
    yield bytes
  }
}

/** Sends the whole request before it reads anything, as simple clients do. */
async function sendAll(socket: Socket, pieces: Iterable<Buffer>): Promise<void> {
  for (const piece of pieces) {
    if (!socket.write(piece))
      await new Promise<void>((resolve) => {
        const over = () => resolve(void socket.off('drain', over).off('close', over))
        socket.on('drain', over).on('close', over)
      })
    if (socket.destroyed) return
  }
}

/** Returns the status of the next reply, which must have a `Content-Length`. */
async function statusOf(socket: Socket): Promise<number> {
  let text = ''
  for await (const piece of socket.iterator({ destroyOnReturn: false })) {
    text += piece
    const [, status, length] =
      /^HTTP\/1.1 (\d+) [\s\S]*?content-length: (\d+)[\s\S]*?\r\n\r\n/i.exec(text) ?? []
    if (status && text.length - text.indexOf('\r\n\r\n') - 4 >= Number(length)) return Number(status)
  }
  throw new Error(`no reply: ${text}`)
}

t.setTimeout(120_000)

t.test(
  'a client that sends all of a wrong file before it reads sees the reply of the host at once',
  async (t) => {
    const { port } = await setup(t)
    for (const [name, begin] of Object.entries(INVALID)) {
      for (const chunked of [false, true]) {
        const socket = connect(port, '127.0.0.1')
        const from = performance.now()
        await sendAll(socket, requestOf(begin, SIZE, chunked))
        t.equal(await statusOf(socket), 400, `${name}, ${chunked ? 'chunked' : 'with its length'}`)
        t.ok(performance.now() - from < PROMPT)
        socket.write('GET /api/v1/backups HTTP/1.1\r\nhost: x\r\nx-role: manager\r\n\r\n')
        t.equal(await statusOf(socket), 200, 'the connection is used again')
        socket.destroy()
      }
    }
  }
)

t.test('a body of which nothing was read is read as well', async (t) => {
  const refusals: Record<string, OwnOptions> = {
    'a webhook that must not be called': { restore: { clientWebhookUrl: 'ftp://example.com' } },
    'no room to spool': { limits: { spoolBytes: 1 } }
  }
  for (const [name, options] of Object.entries(refusals)) {
    const { port } = await setup(t, options)
    const socket = connect(port, '127.0.0.1')
    const from = performance.now()
    await sendAll(socket, requestOf('{"dbs":{"components":{"docs":[{"_id":"a"}, {"_id":"', SIZE, false))
    t.ok([400, 507].includes(await statusOf(socket)), name)
    t.ok(performance.now() - from < PROMPT)
    socket.destroy()
  }
})

t.test('a body that goes on and on is cut off soon', async (t) => {
  const { port, host } = await setup(t)
  const socket = connect(port, '127.0.0.1').on('error', () => {})
  const from = performance.now()
  await sendAll(socket, requestOf('not json', 2 ** 40, false))
  t.ok(performance.now() - from < PROMPT)
  t.equal((await host.app.dbBackups.list()).ids.length, 0, 'the server goes on')
})

t.test('a sender that falls silent is cut off soon', async (t) => {
  const { port } = await setup(t)
  const socket = connect(port, '127.0.0.1').on('error', () => {})
  const from = performance.now()
  const [head, first] = requestOf('not json', SIZE, false)
  socket.write(Buffer.concat([head!, first!]))
  t.equal(await statusOf(socket), 400, 'with its reply')
  socket.resume()
  await once(socket, 'close')
  t.ok(performance.now() - from < PROMPT)
})

t.test('a client that goes away while its body is read on does no harm', async (t) => {
  const { port, host } = await setup(t)
  const socket = connect(port, '127.0.0.1').on('error', () => {})
  for (const piece of requestOf('not json', 200_000, false)) socket.write(piece.subarray(0, 40_000))
  t.equal(await statusOf(socket), 400)
  socket.resetAndDestroy()
  await poll(
    'no connection',
    () =>
      new Promise<true | undefined>((resolve) =>
        host.app.server.getConnections((_error, count) => resolve(count === 0 ? true : undefined))
      )
  )
  t.strictSame(await host.app.dbBackups.list(), { ids: [] })
})

t.test('a client of HTTP/2 sees the reply, and has its other requests served', async (t) => {
  const { port } = await setup(t, { server: { http2: true } as object })
  const session = connectHttp2(`http://127.0.0.1:${port}`)
  const paths = ['/own', '/api/v1/backups']
  for (const [path, size] of paths.flatMap((path) =>
    [SIZE, 100_000_000].map((size) => [path, size] as const)
  )) {
    const request = session.request({
      ':method': 'PUT',
      ':path': path,
      'content-type': 'application/json',
      'x-role': 'manager'
    })
    request.on('error', () => {}).resume()
    const from = performance.now()
    const replied = once(request, 'response')
    Readable.from(bodyPieces('not json', size), { objectMode: false })
      .on('error', () => {})
      .pipe(request)
    const [headers] = await replied
    t.equal(headers[':status'], 400, `${path}, ${size} bytes`)
    await poll('the end of the stream', () => request.closed || request.destroyed || undefined)
    t.ok(performance.now() - from < PROMPT)
    const other = session.request({ ':path': '/api/v1/backups', 'x-role': 'manager' })
    other.resume()
    t.equal((await once(other, 'response'))[0][':status'], 200)
  }
  session.destroy()
})

t.test('a body that is no request is closed', async (t) => {
  const { host } = await setup(t)
  const file = join(t.testdir(), 'wrong.json')
  await writeFile(file, 'not json'.padEnd(80_000_000))
  const bodies: Record<string, Readable> = {
    'a file': createReadStream(file),
    'a stream that others feed': createReadStream(file).pipe(new PassThrough()),
    'a source that goes on and on': Readable.from(bodyPieces('not json', 400_000_000), { objectMode: false })
  }
  for (const [name, body] of Object.entries(bodies)) {
    await t.rejects(host.app.dbBackups.restore({ body }), { code: 'DB_BACKUPS_INVALID' }, name)
    await poll(`the end of ${name}`, () => body.closed || undefined, PROMPT)
  }
})

t.test('a request that goes through a stream of the host is read on as well', async (t) => {
  const bodyOf = (body: Readable) => pipeline(body, new PassThrough(), () => {})
  const { port } = await setup(t, { bodyOf })
  const socket = connect(port, '127.0.0.1')
  const from = performance.now()
  await sendAll(socket, requestOf('not json', SIZE, false))
  t.equal(await statusOf(socket), 400)
  t.ok(performance.now() - from < PROMPT)
  socket.destroy()
})

t.test('the body of a restore is read as before', async (t) => {
  const { host, port } = await setup(t)
  const text = JSON.stringify(backupOf([{ _id: 'first' }]))
  const socket = connect(port, '127.0.0.1')
  for (const chunked of [false, true]) {
    const [head] = requestOf('', text.length, chunked)
    const size = text.length.toString(16)
    socket.write(Buffer.concat([head!, Buffer.from(chunked ? `${size}\r\n${text}\r\n0\r\n\r\n` : text)]))
    t.equal(await statusOf(socket), 202)
    await poll('the end', async () => {
      const document = await host.on.couch
        .use(host.on.names.components)
        .get('first')
        .catch(() => undefined)
      return document && (await idle(host)) ? true : undefined
    })
  }
  socket.destroy()
  const file = join(t.testdir(), 'right.json')
  await writeFile(file, text)
  const body = createReadStream(file)
  t.match(await (await host.app.dbBackups.restore({ body })).finished, {
    databases: { components: { total: 1, unchanged: 1 } }
  })
  await poll('the end of the file', () => body.closed || undefined)
})

/** Tells whether nothing runs, by whether a dry run is accepted. */
const idle = async ({ app }: Awaited<ReturnType<typeof buildHost>>): Promise<boolean> => {
  try {
    const { finished } = await app.dbBackups.restore(
      { body: Readable.from(['{"dbs":{}}']) },
      { dryRun: true }
    )
    await finished
    return true
  } catch (error) {
    if ((error as { code?: string }).code === 'DB_BACKUPS_IN_PROGRESS') return false
    throw error
  }
}
