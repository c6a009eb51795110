import type { AddressInfo } from 'node:net'
import t from 'tap'
import type { Authorize } from '../types/options.js'
import { apiOf } from './helpers/api.js'
import { setupDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { poll } from './helpers/poll.js'
import { sendRaw } from './helpers/raw-socket.js'

const CONNECTIONS = 4
const PIPELINED = 1000
/** A request whose reply can be sent, and those that wait for it. */
const BEGUN = 65

for (const method of ['GET', 'POST'] as const)
  t.test(
    `thousands of pipelined ${method} requests keep nobody waiting, and are not all begun`,
    async (t) => {
      const on = await setupDatabases(t)
      let asked = 0
      const authorize: Authorize = async () => {
        asked++
        return { name: 'an operator', uuid: 'u' }
      }
      const host = await buildHost(t, { on, authorize })
      const { finished } = await host.app.dbBackups.start()
      const { id } = await finished
      await host.app.listen({ port: 0, host: '127.0.0.1' })
      const { port } = host.app.server.address() as AddressInfo
      const request = `${method} /api/v3/backups HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n`
      let refused = 0
      for (let i = 0; i < CONNECTIONS; i++) {
        sendRaw(t, port, request.repeat(PIPELINED)).on('data', (text) => {
          refused += text.toString('latin1').split('DB_BACKUPS_TOO_MANY_REQUESTS').length - 1
        })
      }
      const from = performance.now()
      const { statusCode } = await apiOf(host).call('GET', `/${id}`)
      t.equal(statusCode, 200)
      t.ok(
        performance.now() - from < 10_000,
        `a backup is sent in ${Math.round(performance.now() - from)} ms`
      )
      await poll(
        'the refusals',
        async () => refused >= CONNECTIONS * (PIPELINED - BEGUN) - CONNECTIONS || undefined
      )
      t.ok(asked <= CONNECTIONS * BEGUN + 1, `${asked} requests were begun`)
    }
  )

t.test('lists that are asked for while one is read share the next', async (t) => {
  const on = await setupDatabases(t)
  const host = await buildHost(t, { on })
  const lists = Array.from({ length: 100 }, () => host.app.dbBackups.list())
  await Promise.all(lists)
  const { id, finished } = await host.app.dbBackups.start()
  const [one, other] = await Promise.all([host.app.dbBackups.list(), host.app.dbBackups.list()])
  t.strictSame(one.ids, [id], 'what was stored before it was asked for')
  t.not(one.ids, other.ids, 'each has a list of its own')
  await finished
})
