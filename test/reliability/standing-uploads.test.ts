import { once } from 'node:events'
import { connect } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { LARGE_DOCUMENT } from '../../lib/json/document.js'
import { setupDatabases } from '../helpers/database.js'
import { startServer } from '../helpers/server-process.js'

const MiB = 1024 * 1024
const DEFAULT_UPLOADS = 4
/** Memory of {@link LARGE_DOCUMENT}, and half of it while it grows. */
const EACH = 1.5 * LARGE_DOCUMENT
/** Buffers that V8 has not collected yet: twice its semi-space. */
const GARBAGE = 32 * MiB

t.test(
  'the largest number of uploads, each stalled in a document of 4 MiB, takes 64 MiB at most',
  async (t) => {
    const { url, names } = await setupDatabases(t)
    const server = await startServer(t, { url, databases: names })
    await server.get('')
    const { rss: idle } = await server.measure()
    const { hostname, port } = new URL(server.origin)
    const begin = '{"dbs":{"DB_COMPONENTS":{"docs":[{"_id":"a","text":"'
    const head = `PUT /api/v3/backups HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${8 * MiB}\r\n\r\n`
    for (let i = 0; i < DEFAULT_UPLOADS; i++) {
      const socket = connect(Number(port), hostname)
      t.teardown(() => socket.destroy())
      socket.on('error', () => undefined)
      socket.write(`${head}${begin}${'x'.repeat(LARGE_DOCUMENT - 64 * 1024)}`)
      if (socket.writableLength > 0) await once(socket, 'drain')
    }
    await delay(1000)
    const refused = await server.put('', {})
    t.equal(refused.status, 503, 'all places are taken')
    const taken = (await server.measure()).rss - idle
    t.comment(`${Math.round(taken / MiB)} MiB above the idle ${Math.round(idle / MiB)} MiB`)
    t.ok(taken <= DEFAULT_UPLOADS * EACH + GARBAGE, `${taken} bytes`)
  }
)
