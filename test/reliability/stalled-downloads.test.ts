import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { apiOf } from '../helpers/api.js'
import { setupDatabases } from '../helpers/database.js'
import { buildHost } from '../helpers/host.js'
import { bytesOf } from '../helpers/seed.js'
import { type ServerProcess, startServer } from '../helpers/server-process.js'

const MiB = 1024 * 1024
const ASKED = 100
const DEFAULT_DOWNLOADS = 4
/**
 * What one download that nobody reads holds: two chunks of 2 MiB, the one being sent and the next; while the second
 * arrives, its stored bytes as well.
 */
const EACH = 6 * MiB
/** Bytes in addition: those of connections, and of buffers that are not collected yet. */
const OWN = 64 * MiB - DEFAULT_DOWNLOADS * EACH

const SHAPES: Record<string, (i: number) => object> = {
  'that does not compress': (i) => ({ text: bytesOf(`${i}`, 0.7 * MiB).toString('base64') }),
  'that compresses well': () => ({ text: 'x'.repeat(MiB) }),
  'of large documents': (i) => ({
    _attachments: {
      file: { content_type: 'image/png', data: bytesOf(`${i}`, 5 * MiB).toString('base64') }
    }
  })
}

const residentOf = ({ child: { pid } }: ServerProcess) =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024

for (const [shape, contentOf] of Object.entries(SHAPES)) {
  t.test(`${ASKED} downloads of a backup ${shape}, which nobody reads, take 64 MiB at most`, async (t) => {
    const on = await setupDatabases(t)
    const components = on.couch.use(on.names.components)
    for (let i = 0; i < 12; i++) await components.insert({ _id: `d${i}`, ...contentOf(i) } as object)
    const id = await apiOf(await buildHost(t, { on })).backup()
    const server = await startServer(t, { url: on.url, databases: on.names })
    await server.get('')
    const idle = residentOf(server)
    let peak = idle
    const sampler = setInterval(() => {
      peak = Math.max(peak, residentOf(server))
    }, 20)
    t.teardown(() => clearInterval(sampler))
    const { hostname, port } = new URL(server.origin)
    const sockets: Socket[] = Array.from({ length: ASKED }, () => connect(Number(port), hostname))
    t.teardown(() => sockets.forEach((socket) => void socket.destroy()))
    const statuses = await Promise.all(
      sockets.map(async (socket) => {
        socket.on('error', () => undefined)
        socket.write(`GET /api/v3/backups/${id} HTTP/1.1\r\nhost: x\r\n\r\n`)
        await once(socket, 'readable')
        return String(socket.read()).slice(9, 12)
      })
    )
    t.equal(statuses.filter((status) => status === '200').length, DEFAULT_DOWNLOADS)
    t.equal(statuses.filter((status) => status === '503').length, ASKED - DEFAULT_DOWNLOADS)
    await delay(2000)
    t.equal((await server.get('')).status, 200, 'the list is served')
    t.comment(`${Math.round((peak - idle) / MiB)} MiB above the idle ${Math.round(idle / MiB)} MiB`)
    t.ok(peak - idle <= DEFAULT_DOWNLOADS * EACH + OWN)
  })
}
