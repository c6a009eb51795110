import { once } from 'node:events'
import { createServer, type IncomingMessage, type RequestListener } from 'node:http'
import { createServer as createHttp2Server, type Http2ServerRequest } from 'node:http2'
import type { AddressInfo } from 'node:net'
import { connect } from 'node:net'
import type { Readable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { Agent, type Dispatcher } from 'undici'
import { joinPiecesOfRequest } from '../lib/bytes/small-pieces.js'
import { slicesOf } from '../lib/bytes/views.js'
import { CouchClient } from '../lib/couch/client.js'
import { poll } from './helpers/poll.js'
import { cases } from './helpers/settings.js'

/** Lengths of chunks: of a byte, around those that are joined, and larger than what they are joined to. */
const lengths = fc.array(
  fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1000, max: 6000 })),
  { minLength: 1, maxLength: 40 }
)

const chunk = (bytes: Buffer): Buffer =>
  Buffer.concat([Buffer.from(`${bytes.length.toString(16)}\r\n`), bytes, Buffer.from('\r\n')])

/** Returns bytes that differ from place to place, in chunks of such lengths. */
function chunksOf(lengths: readonly number[]): { bytes: Buffer; chunks: Buffer[] } {
  const bytes = Buffer.from(Array.from({ length: lengths.reduce((a, b) => a + b, 0) }, (_, i) => i % 251))
  let at = 0
  const chunks = lengths.map((length) => {
    at += length
    return chunk(bytes.subarray(at - length, at))
  })
  return { bytes, chunks }
}

/** Starts a server on HTTP/1.1 that joins pieces. @returns a function that sends a body, as it stands on the wire */
async function joiningServer(t: Test, take: (request: IncomingMessage) => Promise<void>) {
  const server = createServer(((request, response) => {
    joinPiecesOfRequest(request)
    void take(request)
      .catch(() => undefined)
      .finally(() => response.end())
  }) as RequestListener)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return () => {
    const socket = connect((server.address() as AddressInfo).port, '127.0.0.1').on('error', () => undefined)
    t.teardown(() => socket.destroy())
    socket.write('PUT / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n')
    return socket.resume()
  }
}

async function piecesOf(body: Readable, pause?: (piece: number) => unknown): Promise<Buffer[]> {
  const pieces: Buffer[] = []
  for await (const piece of body) {
    pieces.push(piece)
    await pause?.(pieces.length)
  }
  return pieces
}

/** Returns the pieces as they were queued: an iterator would join them. */
async function queueOf(body: Readable): Promise<Buffer[]> {
  const pieces: Buffer[] = []
  body.on('data', (piece) => pieces.push(piece))
  await once(body, 'end')
  return pieces
}

t.test('a body is the same in whatever chunks and segments it comes', async (t) => {
  let received: Promise<Buffer[]> | undefined
  let slow = false
  const open = await joiningServer(t, async (request) => {
    received = piecesOf(request, () => slow && new Promise(setImmediate))
    await received
  })
  await t.resolves(
    fc.assert(
      fc.asyncProperty(
        lengths,
        fc.integer({ min: 1, max: 20_000 }),
        fc.boolean(),
        async (lengths, cut, lazy) => {
          const { bytes, chunks } = chunksOf(lengths)
          received = undefined
          slow = lazy
          const socket = open()
          for (const segment of slicesOf(Buffer.concat(chunks), cut)) {
            socket.write(segment)
            if (cut > 1000) await new Promise(setImmediate)
          }
          socket.write('0\r\n\r\n')
          const pieces = (await poll('the request', async () => received && { received }))?.received
          const whole = Buffer.concat((await pieces) ?? [])
          socket.destroy()
          return whole.equals(bytes)
        }
      ),
      { numRuns: cases(30) }
    )
  )
})

const BYTES = 200_000

t.test('a body in chunks of a byte waits as few pieces, and goes on when it is read', async (t) => {
  let request: IncomingMessage | undefined
  let read = () => {}
  const open = await joiningServer(t, async (incoming) => {
    request = incoming
    await new Promise<void>((resolve) => {
      read = resolve
    })
  })
  const { bytes, chunks } = chunksOf(Array.from({ length: BYTES }, () => 1))
  const socket = open()
  socket.write(Buffer.concat(chunks))
  socket.write('0\r\n\r\n')
  const standing = await poll('the request', async () => request)
  await delay(300)
  t.ok(standing.readableLength >= 4096, 'what has come is there to be read')
  t.ok(standing.readableLength < BYTES, 'the sender is made to wait')
  const pieces = await queueOf(standing)
  t.ok(Buffer.concat(pieces).equals(bytes))
  t.ok(pieces.length < BYTES / 1000, `${pieces.length} pieces`)
  read()
})

t.test('a byte that comes alone does not wait for others', async (t) => {
  const pieces: Buffer[] = []
  const open = await joiningServer(t, async (request) => {
    for await (const piece of request) pieces.push(piece)
  })
  const socket = open()
  for (let n = 1; n <= 5; n++) {
    socket.write('1\r\nx\r\n')
    await poll('the byte', async () => pieces.length === n || undefined)
  }
  t.equal(Buffer.concat(pieces).toString(), 'xxxxx')
})

t.test('the end of a body does not wait, and what breaks off fails', async (t) => {
  const found: string[] = []
  const open = await joiningServer(t, async (request) => {
    const outcome = await piecesOf(request).then(
      (pieces) => Buffer.concat(pieces).toString(),
      ({ code }) => code
    )
    found.push(outcome)
  })
  open().write('1\r\na\r\n1\r\nb\r\n0\r\n\r\n')
  await poll('the end', async () => found.length === 1 || undefined)
  open().end('1\r\na\r\n1\r\nb\r\n')
  await poll('the failure', async () => found.length === 2 || undefined)
  t.strictSame(found, ['ab', 'ECONNRESET'])
})

const frame = (type: number, flags: number, stream: number, payload: Buffer): Buffer =>
  Buffer.concat([Buffer.from([0, 0, payload.length, type, flags, 0, 0, 0, stream]), payload])

t.test('frames of HTTP/2 of a byte each wait as few pieces', async (t) => {
  let request: Http2ServerRequest | undefined
  const server = createHttp2Server((incoming) => {
    joinPiecesOfRequest(incoming)
    request = incoming
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1').on('error', () => undefined)
  t.teardown(() => {
    socket.destroy()
    server.close()
  })
  // What a stream may send before it is read.
  const bytes = Buffer.from(Array.from({ length: 60_000 }, (_, i) => i % 251))
  socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
  socket.write(frame(4, 0, 0, Buffer.alloc(0)))
  // PUT / of http://x, as HPACK has it.
  socket.write(frame(1, 4, 1, Buffer.from('\x02\x03PUT\x86\x84\x01\x01x', 'latin1')))
  socket.write(Buffer.concat([...slicesOf(bytes, 1)].map((byte) => frame(0, 0, 1, byte))))
  socket.write(frame(0, 1, 1, Buffer.alloc(0)))
  socket.resume()
  const standing = await poll('the request', () => request)
  await delay(500)
  const pieces = await queueOf(standing)
  t.ok(Buffer.concat(pieces).equals(bytes))
  t.ok(pieces.length < 1000, `${pieces.length} pieces`)
})

/** Keeps the body of the last answer. */
class WatchedAgent extends Agent {
  body: Readable | undefined

  override async request(options: Dispatcher.RequestOptions): Promise<never> {
    const answer = await super.request(options)
    this.body = answer.body
    return answer as never
  }
}

t.test('an answer of the database in chunks of a byte waits as few pieces', async (t) => {
  const head = 'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n'
  const wire = Buffer.from(`${head}${'1\r\ny\r\n'.repeat(BYTES)}0\r\n\r\n`)
  const server = createServer(({ socket }) => void socket.write(wire)).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const dispatcher = new WatchedAgent()
  const connect = () => ({ origin, basePath: '', headers: {}, dispatcher })
  const client = new CouchClient({
    connect,
    retry: { attempts: 1, wait: 1, longest: 1 },
    control: 5000,
    idle: 5000
  })
  t.teardown(async () => {
    await client.close()
    await dispatcher.destroy()
    server.close()
  })
  await client.stream({ path: ['a'] })
  await delay(300)
  const pieces = await queueOf(dispatcher.body as Readable)
  t.equal(Buffer.concat(pieces).toString(), 'y'.repeat(BYTES))
  // What came with the head was queued before there was an answer.
  t.ok(pieces.length < BYTES / 10, `${pieces.length} pieces`)
})
