import { connect } from 'node:net'
import t from 'tap'
import { setupDatabases } from '../helpers/database.js'
import { poll } from '../helpers/poll.js'
import { startServer } from '../helpers/server-process.js'

const MiB = 1024 * 1024
const REQUESTS = 2000
const IDLE = 15_000
/** The largest body of a restore by id, without its end. */
const BODY = ' '.repeat(8 * 1024 - 4)

t.test(`${REQUESTS} bodies of restores by id that stand take 64 MiB at most, and end`, async (t) => {
  const { url, names } = await setupDatabases(t)
  const server = await startServer(t, { url, databases: names, timeouts: { idle: IDLE } })
  await server.get('')
  const { rss: idle } = await server.measure()
  const { hostname, port } = new URL(server.origin)
  const head =
    'PUT /api/v3/backups/03_ibp_db_backup_1 HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n' +
    `content-length: ${BODY.length + 1}\r\n\r\n`
  let connected = 0
  const statuses: string[] = []
  for (let i = 0; i < REQUESTS; i++) {
    const socket = connect(Number(port), hostname)
    t.teardown(() => socket.destroy())
    socket.on('error', () => undefined)
    socket.on('data', (reply) => statuses.push(String(reply).slice(9, 12)))
    socket.write(head + BODY, () => connected++)
    // so many do not fit in the queue of new connections
    if (i % 100 === 99) await poll('connections', async () => connected > i || undefined)
  }
  t.equal((await server.get('')).status, 200, 'the list is served')
  const taken = (await server.measure()).rss - idle
  t.equal(statuses.length, 0, 'all stand')
  t.comment(`${Math.round(taken / MiB)} MiB above the idle ${Math.round(idle / MiB)} MiB`)
  t.ok(taken <= 64 * MiB, `${taken} bytes`)
  await poll('replies', async () => statuses.length === REQUESTS || undefined, 2 * IDLE)
  t.strictSame([...new Set(statuses)], ['408'])
})
