import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { gzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { setupDatabases } from '../helpers/database.js'
import { poll } from '../helpers/poll.js'
import { type ServerProcess, startServer } from '../helpers/server-process.js'

const MiB = 1024 * 1024
/** What every operation may take above an idle server. */
const BAR = 64 * MiB
/**
 * Milliseconds. Node.js parses all of a read in one turn: 11,000 chunks of a byte, which take 9 ms or more. The first
 * reads of all connections may come in one turn.
 */
const LONGEST_TURN = 60
/** Requests at a time: as many uploads as are read by default. */
const COUNT = 4
const BYTES = 1_000_000

/** Returns bytes in chunks of one each. */
function chunksOfOne(bytes: Uint8Array): Buffer {
  const chunks = Buffer.from('1\r\nx\r\n'.repeat(bytes.length))
  for (const [i, byte] of bytes.entries()) chunks[6 * i + 3] = byte
  return chunks
}

/** Sends a request whose body is in chunks of one byte. @returns the status of the reply */
async function send(
  t: Test,
  server: ServerProcess,
  path: string,
  body: Uint8Array,
  more = ''
): Promise<number> {
  const { hostname, port } = new URL(server.origin)
  const socket: Socket = connect(Number(port), hostname).on('error', () => undefined)
  t.teardown(() => socket.destroy())
  const replied = once(socket, 'data')
  socket.write(
    `PUT /api/v3/backups${path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n${more}transfer-encoding: chunked\r\n\r\n`
  )
  socket.write(chunksOfOne(body))
  socket.write('0\r\n\r\n')
  const [reply] = await replied
  socket.destroy()
  return Number(String(reply).slice(9, 12))
}

async function started(t: Test) {
  const { url, names } = await setupDatabases(t)
  const server = await startServer(t, { url, databases: names })
  const { id } = (await server.post('')).json
  const ended = async () => (await server.get(`/${id}`)).json.in_progress === false || undefined
  await poll('the backup', ended)
  // What is only loaded once is no part of what is measured.
  await send(t, server, `/${id}/attachments/warm`, Buffer.from('{"attachment":"x"}'))
  await send(t, server, '', Buffer.from('{"dbs":'))
  await server.measure()
  return { server, id }
}

/** Runs requests at a time, and checks what they take. */
async function measured(t: Test, server: ServerProcess, request: (n: number) => Promise<number>) {
  const { rss: idle } = await server.measure()
  const statuses = await Promise.all(Array.from({ length: COUNT }, (_, n) => request(n)))
  const { rss, turn } = await server.measure()
  t.comment(`${Math.round((rss - idle) / MiB)} MiB above idle, longest turn ${Math.round(turn)} ms`)
  t.ok(rss - idle <= BAR, `${rss - idle} bytes above idle`)
  t.ok(turn <= LONGEST_TURN, `the longest turn took ${turn} ms`)
  return statuses
}

t.test('appends in chunks of a byte take 64 MiB at most', { timeout: 120_000 }, async (t) => {
  const { server, id } = await started(t)
  const body = Buffer.from(JSON.stringify({ attachment: 'y'.repeat(BYTES) }))
  const statuses = await measured(t, server, (n) => send(t, server, `/${id}/attachments/a${n}`, body))
  t.strictSame(new Set(statuses), new Set([200]))
})

// Each is refused at its end, once all of it has been read.
for (const [what, begin] of [
  ['a document', '{"dbs":{"components":{"docs":[{"_id":"a","x":"'],
  ['names of members', '{"dbs":{"components":{"docs":[{"_id":"a","x":1,"']
]) {
  t.test(`uploads of ${what} in chunks of a byte take 64 MiB at most`, { timeout: 120_000 }, async (t) => {
    const { server } = await started(t)
    const body = Buffer.from(begin + 'y'.repeat(BYTES))
    const statuses = await measured(t, server, () => send(t, server, '', body))
    t.strictSame(new Set(statuses), new Set([400]))
  })
}

t.test('uploads that inflate, in chunks of a byte, take 64 MiB at most', { timeout: 120_000 }, async (t) => {
  const { server } = await started(t)
  const random = Buffer.from(Array.from({ length: BYTES / 2 }, () => 97 + Math.floor(Math.random() * 26)))
  const body = gzipSync(
    Buffer.concat([Buffer.from('{"dbs":{"components":{"docs":[{"_id":"a","x":"'), random])
  )
  const statuses = await measured(t, server, () => send(t, server, '', body, 'content-encoding: gzip\r\n'))
  t.strictSame(new Set(statuses), new Set([400]))
})
