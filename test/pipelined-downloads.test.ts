import { once } from 'node:events'
import type { AddressInfo, Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { apiOf } from './helpers/api.js'
import { setupDatabases } from './helpers/database.js'
import { buildHost, type HostOptions } from './helpers/host.js'
import { poll } from './helpers/poll.js'
import { sendRaw } from './helpers/raw-socket.js'

const MiB = 1024 * 1024
const IDLE = 1500
/** Bytes read at a time: enough for the kernel to let the server write again. */
const BURST = 8 * MiB
/** Bytes that exceed what sockets on one machine hold. */
const ATTACHED = 16 * MiB

/** Makes a backup of 22 MB, and a small one. */
async function serve(t: Test, options: HostOptions = {}) {
  const on = await setupDatabases(t)
  const maker = await buildHost(t, { on })
  const small = await apiOf(maker).backup()
  const id = await apiOf(maker).backup()
  await maker.app.dbBackups.attach(id, 'notes', Buffer.alloc(ATTACHED, 'y'))
  const host = await buildHost(t, { on, ...options, timeouts: { idle: IDLE, ...options.timeouts } })
  await host.app.listen({ port: 0, host: '127.0.0.1' })
  const { port } = host.app.server.address() as AddressInfo
  const request = (path: string) =>
    `GET /api/v3/backups${path} HTTP/1.1\r\nhost: x\r\nx-role: manager\r\n\r\n`
  const ask = (text: string) => sendRaw(t, port, text)
  const read = async () => once((await host.app.dbBackups.get(id)).body.resume(), 'end')
  return {
    host,
    id,
    get: request(`/${id}`),
    getSmall: request(`/${small}`),
    list: request(''),
    ask,
    read,
    api: apiOf(host)
  }
}

interface Reply {
  status: number
  bytes: number
}

/** Reads replies with a `Content-Length` until the connection is silent, the first slower than the idle time. */
async function readReplies(socket: Socket): Promise<Reply[]> {
  const replies: Reply[] = []
  let rest = Buffer.alloc(0)
  let missing = 0
  let burst = 0
  for (;;) {
    const piece: Buffer | null = socket.read()
    if (!piece) {
      const silent = AbortSignal.timeout(IDLE)
      const came = await once(socket, 'readable', { signal: silent }).catch(() => undefined)
      if (!came || socket.destroyed) return replies
      continue
    }
    rest = Buffer.concat([rest, piece])
    while (rest.length > 0) {
      if (missing === 0) {
        const end = rest.indexOf('\r\n\r\n')
        if (end < 0) break
        const head = rest.subarray(0, end).toString('latin1')
        missing = Number(/content-length: (\d+)/i.exec(head)?.[1])
        replies.push({ status: Number(head.slice(9, 12)), bytes: 0 })
        rest = rest.subarray(end + 4)
      }
      const taken = Math.min(missing, rest.length)
      missing -= taken
      replies[replies.length - 1].bytes += taken
      rest = rest.subarray(taken)
    }
    burst += piece.length
    if (replies.length === 1 && burst > BURST) {
      burst = 0
      await delay(0.8 * IDLE)
    }
  }
}

t.test(
  'pipelined requests are answered whole after a download that takes longer than the idle time',
  async (t) => {
    const { ask, get, list } = await serve(t, { limits: { downloads: 1 } })
    const from = performance.now()
    const socket = ask(get + list + get + list)
    const replies = await readReplies(socket)
    t.ok(performance.now() - from > 2 * IDLE)
    t.strictSame(
      replies.map(({ status }) => status),
      [200, 200, 200, 200]
    )
    t.ok(replies[0].bytes > ATTACHED)
    t.equal(replies[2].bytes, replies[0].bytes)
    t.equal(replies[3].bytes, replies[1].bytes)
  }
)

t.test('64 pipelined downloads that nobody reads take one place, and end by the idle time', async (t) => {
  const { host, ask, get, read, api } = await serve(t, { limits: { downloads: 2 } })
  const socket = ask(get.repeat(64))
  const closed = once(socket, 'close')
  await once(socket, 'readable')
  const from = performance.now()
  t.equal((await api.call('GET')).statusCode, 200)
  await read()
  const { finished } = await host.app.dbBackups.start()
  t.match(await finished, { in_progress: false })
  // a socket that is not read does not report its end
  await delay(Math.max(0, 2 * IDLE - (performance.now() - from)))
  socket.resume()
  await closed
  t.ok(performance.now() - from < 4 * IDLE)
})

t.test('more than 64 downloads that wait on a connection are refused', async (t) => {
  const { ask, get, getSmall } = await serve(t, { limits: { downloads: 1 } })
  const replies = await readReplies(ask(get + getSmall.repeat(80)))
  const count = (asked: number) => replies.filter(({ status }) => status === asked).length
  t.equal(count(200), 65)
  t.equal(count(503), 16)
})

t.test('a client that leaves frees what its pipelined downloads hold', async (t) => {
  const { ask, get, read } = await serve(t, { limits: { downloads: 1 }, timeouts: { idle: 60_000 } })
  for (let i = 0; i < 3; i++) {
    const socket = ask(get.repeat(64))
    await once(socket, 'readable')
    await t.rejects(read(), { code: 'DB_BACKUPS_TOO_MANY_DOWNLOADS' })
    socket.destroy()
    await poll('the place', () =>
      read().then(
        () => true,
        () => undefined
      )
    )
  }
})
