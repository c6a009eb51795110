import { once } from 'node:events'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { MAX_DEPTH } from '../lib/json/scanner.js'
import { apiOf, backupOf } from './helpers/api.js'
import { buildHost, type HostOptions } from './helpers/host.js'
import { spooledIn } from './helpers/spooled.js'

const ID = '03_ibp_db_backup_1592922855871'
/** The routes with a body, each with a body that it accepts. */
const ROUTES = [
  { line: 'POST /api/v1/backups', body: '{}' },
  { line: 'PUT /api/v2/backups', body: JSON.stringify(backupOf([{ _id: 'a' }])) },
  { line: `PUT /ak/api/v3/backups/${ID}`, body: '{"client_webhook_url":"http://127.0.0.1:9/"}' },
  { line: `PUT /ak/api/v1/backups/${ID}/attachments/a`, body: '{"attachment":"0123456789abcdef"}' }
] as const
const IDLE = 400
/** Milliseconds until the server gives up a body that does not arrive, with room for a busy machine. */
const PATIENCE = 10_000

interface Raw {
  socket: Socket
  /** Returns what has arrived so far. */
  received(): string
  /** Returns everything that arrived, once the server has closed the connection. */
  closed(): Promise<string>
}

async function setup(t: Test, options: HostOptions = {}) {
  const spoolDirectory = t.testdir()
  const host = await buildHost(t, {
    spoolDirectory,
    timeouts: { idle: IDLE },
    server: { http: { headersTimeout: 600, connectionsCheckingInterval: 100 } },
    ...options
  })
  await host.app.listen({ port: 0, host: '127.0.0.1' })
  const { port } = host.app.server.address() as AddressInfo
  const sockets = new Set<Socket>()
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
  })
  const open = async (): Promise<Raw> => {
    const socket = connect(port, '127.0.0.1')
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
    let text = ''
    socket.on('data', (piece) => {
      text += piece.toString('latin1')
    })
    // a reset counts as a refusal
    socket.on('error', () => undefined)
    await once(socket, 'connect')
    const closed = async () => {
      const end = Date.now() + PATIENCE
      while (!socket.closed) {
        if (Date.now() > end) throw new Error(`the connection is still open: ${text}`)
        await delay(5)
      }
      return text
    }
    return { socket, received: () => text, closed }
  }
  const send = async (text: string | Buffer) => {
    const raw = await open()
    raw.socket.write(text)
    return raw
  }
  const untouched = async (t: Test) => {
    t.strictSame(await spooledIn(spoolDirectory), [], 'nothing is left on the disk')
    for (const name of Object.values(host.on.names)) t.equal((await host.on.fetchAll(name)).size, 0)
    t.equal((await apiOf(host).call('GET')).statusCode, 200, 'it serves on')
  }
  return { host, open, send, untouched, spoolDirectory }
}

const head = (line: string, ...headers: string[]) =>
  [
    `${line} HTTP/1.1`,
    'host: x',
    'x-role: manager',
    'content-type: application/json',
    ...headers,
    '',
    ''
  ].join('\r\n')
const chunk = (bytes: string | Buffer) =>
  Buffer.concat([
    Buffer.from(`${Buffer.byteLength(bytes).toString(16)}\r\n`),
    Buffer.from(bytes as string),
    Buffer.from('\r\n')
  ])

/** Returns a request with its whole body. The connection closes after the reply. */
const whole = (line: string, body: string | Buffer, ...headers: string[]) =>
  Buffer.concat([
    Buffer.from(head(line, `content-length: ${Buffer.byteLength(body)}`, 'connection: close', ...headers)),
    Buffer.from(body as string)
  ])

t.test('a body that stops arriving is refused with 408', async (t) => {
  const { send, untouched } = await setup(t)
  const replies = ROUTES.flatMap(({ line, body }) => {
    const half = body.slice(0, body.length >> 1)
    const length = `content-length: ${body.length}`
    return [
      [`${line}: nothing of it`, send(head(line, length))],
      [`${line}: half of it`, send(head(line, length) + half)],
      [`${line}: no chunk`, send(head(line, 'transfer-encoding: chunked'))],
      [`${line}: half a chunk`, send(`${head(line, 'transfer-encoding: chunked')}ff\r\n${half}`)]
    ] as const
  })
  for (const [what, raw] of replies) {
    const text = await (await raw).closed()
    t.match(text, /^HTTP\/1\.1 408 [\s\S]*the body stopped arriving/, what)
  }
  await untouched(t)
})

t.test('an unknown route replies without waiting for the body', async (t) => {
  const { send, untouched } = await setup(t)
  for (const line of [
    'DELETE /api/v1/backups',
    'PATCH /ak/api/v2/backups',
    `DELETE /api/v3/backups/${ID}`,
    `POST /api/v1/backups/${ID}`,
    `PUT /api/v1/backups/${ID}/a/b`,
    'OPTIONS /api/v1/backups/a'
  ]) {
    const raw = await send(`${head(line, 'content-length: 1000', 'connection: close')}{`)
    const end = Date.now() + PATIENCE
    while (!raw.received().includes('\r\n\r\n') && Date.now() < end) await delay(5)
    t.match(raw.received(), /^HTTP\/1\.1 404 /, line)
    raw.socket.destroy()
  }
  await untouched(t)
})

t.test('a body that drips is refused with 408', async (t) => {
  const { send, untouched } = await setup(t)
  const dripping = ROUTES.map(async ({ line }) => {
    const raw = await send(head(line, 'content-length: 1000'))
    raw.socket.write('{"')
    const timer = setInterval(() => raw.socket.write('a'), IDLE / 8)
    const text = await raw.closed().finally(() => clearInterval(timer))
    t.match(text, /^HTTP\/1\.1 408 /, line)
  })
  await Promise.all(dripping)
  await untouched(t)
})

t.test('a body that arrives slowly, but arrives, is taken', async (t) => {
  const { host, open } = await setup(t)
  const { body } = ROUTES[1]
  const raw = await open()
  raw.socket.write(head(ROUTES[1].line, 'transfer-encoding: chunked', 'connection: close'))
  for (const piece of [body, ...Array(8).fill(' '.repeat(1024))]) {
    await delay(IDLE / 4)
    raw.socket.write(chunk(piece))
  }
  raw.socket.write('0\r\n\r\n')
  const text = await raw.closed()
  t.match(text, /^HTTP\/1\.1 202 /)
  const { url } = JSON.parse(text.slice(text.indexOf('\r\n\r\n') + 4))
  t.equal((await host.waitForRestore(url)).status, 'success')
})

t.test('headers that stop arriving, or drip, are refused by the host', async (t) => {
  const { send, untouched } = await setup(t)
  const all = ROUTES.map(async ({ line }) => {
    const silent = await send(`${line} HTTP/1.1\r\nhost: x\r\n`)
    const dripping = await send(`${line} HTTP/1.1\r\nhost: x\r\nx-a: `)
    const timer = setInterval(() => dripping.socket.write('a'), 50)
    t.match(await silent.closed(), /^HTTP\/1\.1 408 /, `${line}, silent`)
    t.match(await dripping.closed().finally(() => clearInterval(timer)), /^HTTP\/1\.1 408 /, line)
  })
  await Promise.all(all)
  await untouched(t)
})

t.test('framing that is wrong or ambiguous is refused', async (t) => {
  const { send, untouched } = await setup(t)
  for (const { line, body } of ROUTES) {
    const length = `content-length: ${body.length}`
    const refused: Record<string, string | Buffer> = {
      'a length and chunks': head(line, length, 'transfer-encoding: chunked') + body,
      'two lengths': head(line, length, 'content-length: 1') + body,
      'a negative length': head(line, 'content-length: -1') + body,
      'a length that is no number': head(line, 'content-length: 1e3') + body,
      'a chunk of no size': `${head(line, 'transfer-encoding: chunked')}zz\r\n${body}\r\n0\r\n\r\n`,
      'a chunk longer than it says': `${head(line, 'transfer-encoding: chunked')}1\r\n${body}\r\n0\r\n\r\n`,
      'chunks that are not last': head(line, 'transfer-encoding: chunked, gzip') + body,
      'a line feed in a header': head(line, 'x-a: b\nc: d', length) + body,
      'a zero byte in a header': head(line, 'x-a: b\0c', length) + body,
      'headers of 100 kB': head(line, `x-a: ${'a'.repeat(100_000)}`, length) + body
    }
    for (const [what, text] of Object.entries(refused)) {
      t.match(await (await send(text)).closed(), /^(HTTP\/1\.1 4|$)/, `${line}: ${what}`)
    }
  }
  await untouched(t)
})

t.test('a body that is cut off changes nothing', async (t) => {
  const { open, untouched, spoolDirectory } = await setup(t, { timeouts: { idle: 60_000 } })
  for (const { line, body } of ROUTES) {
    for (const how of ['end', 'resetAndDestroy'] as const) {
      const { socket } = await open()
      socket.write(head(line, `content-length: ${body.length + 1}`) + body, () => socket[how]())
      while (!socket.closed) await delay(5)
    }
  }
  while ((await spooledIn(spoolDirectory)).length > 0) await delay(10)
  await untouched(t)
})

/** Bodies in encodings that are not plain UTF-8. */
function* encoded(body: string): Generator<[what: string, bytes: Buffer, ...headers: string[]]> {
  const gzipped = gzipSync(body)
  yield ['gzip, cut', gzipped.subarray(0, -1), 'content-encoding: gzip']
  yield ['gzip, and more', Buffer.concat([gzipped, Buffer.from('more')]), 'content-encoding: gzip']
  yield ['gzip, and zeros', Buffer.concat([gzipped, Buffer.alloc(10)]), 'content-encoding: gzip']
  yield ['gzip, said where it is none', Buffer.from(body), 'content-encoding: gzip']
  yield ['gzip, not said', gzipped]
  yield ['deflate', deflateSync(body), 'content-encoding: deflate']
  yield ['brotli', brotliCompressSync(body), 'content-encoding: br']
  yield ['gzip twice', gzipSync(gzipped), 'content-encoding: gzip, gzip']
  yield ['an unknown encoding', Buffer.from(body), 'content-encoding: x']
  yield ['UTF-16LE', Buffer.from(body, 'utf16le')]
  yield ['UTF-16LE with a mark', Buffer.from(`\ufeff${body}`, 'utf16le')]
  yield ['UTF-16BE', Buffer.from(body, 'utf16le').swap16()]
  yield ['UTF-16BE with a mark', Buffer.from(`\ufeff${body}`, 'utf16le').swap16()]
  yield ['UTF-32', Buffer.from([...body].flatMap((c) => [c.charCodeAt(0), 0, 0, 0]))]
}

t.test('bodies in other encodings are refused', async (t) => {
  const { send, untouched } = await setup(t)
  for (const { line, body } of ROUTES) {
    for (const [what, bytes, ...headers] of encoded(body)) {
      t.match(
        await (await send(whole(line, bytes, ...headers))).closed(),
        /^HTTP\/1\.1 4/,
        `${line}: ${what}`
      )
    }
  }
  await untouched(t)
})

const deep = (open: string, close: string) => open.repeat(200_000) + close.repeat(200_000)

/** JSON that has broken parsers, or code that uses their results. */
const JSON_CORPUS: Record<string, string> = {
  'deep objects': `${'{"a":'.repeat(200_000)}1${'}'.repeat(200_000)}`,
  'deep arrays': deep('[', ']'),
  'deep in dbs': `{"dbs":{"components":{"docs":[{"_id":"a","x":${'['.repeat(MAX_DEPTH)}`,
  'a huge key': `{"${'k'.repeat(500_000)}":1}`,
  'a huge key of a database': `{"dbs":{"${'k'.repeat(500_000)}":{}}}`,
  'many keys': `{${Array.from({ length: 50_000 }, (_, i) => `"k${i}":1`).join(',')}}`,
  'keys twice': '{"dbs":{},"dbs":{}}',
  'a database twice': '{"dbs":{"components":{"docs":[]},"athena_components":{"docs":[]}}}',
  __proto__: '{"__proto__":{"admin":true}}',
  '__proto__, escaped': '{"__pr\\u006fto__":{"admin":true}}',
  '__proto__ in dbs': '{"dbs":{"__proto__":{"docs":[]}}}',
  constructor: '{"constructor":{"prototype":{"admin":true}}}',
  'half a surrogate in a key': '{"\\ud800":1}',
  'bytes that are no UTF-8': '{"\xff\xfe":1}',
  'a number of 100,000 digits': `{"n":${'9'.repeat(100_000)}}`,
  'a string without an end': `{"a":"${'x'.repeat(100_000)}`
}

t.test('hostile JSON is refused, and nothing grows', async (t) => {
  const { host, send, untouched } = await setup(t)
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const heap = () => {
    collect()
    return process.memoryUsage().heapUsed
  }
  const round = async (judge?: (text: string, what: string) => void) => {
    for (const { line } of ROUTES) {
      for (const [what, body] of Object.entries(JSON_CORPUS)) {
        const text = await (await send(whole(line, Buffer.from(body, 'latin1')))).closed()
        judge?.(text, `${line}: ${what}`)
      }
    }
  }
  await round((text, what) => t.match(text, /^HTTP\/1\.1 4/, what))
  await round()
  const before = heap()
  for (let i = 0; i < 3; i++) await round()
  const growth = heap() - before
  t.ok(growth < 2 * 1024 * 1024, `the heap grew by ${Math.round(growth / 1024)} KiB in ${3 * 64} requests`)
  const connections = await new Promise<number>((resolve, reject) =>
    host.app.server.getConnections((error, count) => (error ? reject(error) : resolve(count)))
  )
  t.equal(connections, 0, 'no connection is left')
  t.equal(({} as { admin?: boolean }).admin, undefined, 'no prototype was changed')
  await untouched(t)
})

t.test('many connections that say nothing do not keep the host from serving', async (t) => {
  const { host, open, untouched } = await setup(t, { limits: { uploads: 200 } })
  const idle = await Promise.all(Array.from({ length: 200 }, open))
  for (const { socket } of idle) socket.write(head(ROUTES[1].line, 'content-length: 1000'))
  t.equal((await apiOf(host).call('GET')).statusCode, 200)
  for (const { closed } of idle) t.match(await closed(), /^HTTP\/1\.1 408 /)
  await untouched(t)
})
