import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { Agent } from 'undici'
import { CouchClient } from '../lib/couch/client.js'
import { ONCE } from '../lib/couch/retry.js'

const IDLE = 1000
const MiB = 1024 * 1024
const WAIT = `
  import { Silence } from ${JSON.stringify(join(__dirname, '..', 'lib', 'waits', 'silence.js'))}
  new Silence(60_000, () => undefined).wait()`

/** Creates a client of a server that handles requests with `handle`. */
async function setup(
  t: Test,
  handle: (request: IncomingMessage, response: ServerResponse) => void,
  dispatcher?: Agent
) {
  const server = createServer(handle)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const client = new CouchClient({
    connect: () => ({ origin, basePath: '', headers: {}, dispatcher }),
    retry: ONCE,
    control: 4 * IDLE,
    idle: IDLE
  })
  t.teardown(async () => {
    await client.close()
    await dispatcher?.destroy()
    server.closeAllConnections()
    server.close()
  })
  return client
}

const answer = (response: ServerResponse) =>
  response.writeHead(200, { 'content-type': 'application/json', 'content-length': 4 * MiB })

/** Yields a body with a pause after its first byte. */
async function* pausing(ms: number) {
  yield Buffer.alloc(1000)
  await delay(ms)
  yield Buffer.alloc(1000)
}

t.test('a request that gets no connection fails in its time, and says so', async (t) => {
  const paused = 64
  const client = await setup(t, (_request, response) => answer(response).write('{'))
  // a busy machine takes a while to open so many connections
  const patient = client.with({ idle: 30_000 })
  const open = await Promise.all(Array.from({ length: paused }, () => patient.stream({ path: ['a'] })))
  const noConnection = { message: /stalled, no connection to the database was free in time$/ }
  await t.rejects(client.once.stream({ path: ['b'] }), noConnection)
  await t.rejects(client.send({ path: ['c'] }), noConnection)
  await t.rejects(client.once.stream({ method: 'PUT', path: ['d'], body: () => pausing(1) }), noConnection)
  for (const other of [client.for('renewals'), client.for('downloads')])
    (await other.stream({ path: ['e'] })).discard()
  for (const response of open) response.discard()
})

t.test("so it does on a host's own dispatcher", async (t) => {
  const dispatcher = new Agent({ connections: 1 })
  const client = await setup(t, (_request, response) => answer(response).write('{'), dispatcher)
  const open = await client.for('downloads').stream({ path: ['a'] })
  await t.rejects(client.once.stream({ path: ['b'] }), {
    message: /stalled, .* no connection to it was free$/
  })
  open.discard()
})

t.test('a database that takes a request and reads no more of its body is not waited for', async (t) => {
  const client = await setup(t, (request) => request.pause())
  const body = async function* () {
    for (;;) yield Buffer.alloc(64 * 1024)
  }
  await t.rejects(client.once.stream({ method: 'PUT', path: ['a'], body }), {
    message: /stalled, the database stopped reading the request$/
  })
})

t.test('a body that comes slowly is waited for, and the answer after it only in its time', async (t) => {
  const answering = await setup(t, (request, response) => {
    request.resume().on('end', () => answer(response).end(Buffer.alloc(4 * MiB)))
  })
  const slow = { method: 'PUT' as const, path: ['a'], body: () => pausing(3 * IDLE) }
  const response = await answering.once.stream(slow)
  t.equal(response.status, 200)
  response.discard()
  const silent = await setup(t, (request) => void request.resume())
  await t.rejects(silent.once.stream(slow), { message: /stalled, the database did not answer in time$/ })
})

t.test('a reader that pauses is not taken for silence, nor does it hide that of the database', async (t) => {
  const client = await setup(t, (_request, response) => {
    answer(response).write(Buffer.alloc(MiB / 4))
  })
  const { body } = await client.stream({ path: ['a'] })
  let bytes = 0
  const read = async () => {
    for await (const piece of body) {
      if (bytes === 0) await delay(3 * IDLE)
      bytes += piece.length
    }
  }
  await t.rejects(read(), { message: /stalled, the database did not answer in time$/ })
  t.equal(bytes, MiB / 4, 'all that came was read')
})

t.test('a wait keeps no process alive', (t) => {
  const file = join(t.testdir({ 'wait.ts': WAIT }), 'wait.ts')
  const since = performance.now()
  const { status, stderr } = spawnSync(process.execPath, ['--import', 'tsx', file])
  t.equal(status, 0, String(stderr))
  t.ok(performance.now() - since < 30_000)
  t.end()
})
