import { once } from 'node:events'
import { connect } from 'node:net'
import t from 'tap'
import { apiOf, backupOf } from './helpers/api.js'
import { buildHost } from './helpers/host.js'
import { poll } from './helpers/poll.js'

const IDLE = 6000

t.test(
  'uploads that stand take all places for no longer than the idle time-out, and nothing else',
  async (t) => {
    const host = await buildHost(t, { limits: { uploads: 2 }, timeouts: { idle: IDLE } })
    const origin = new URL(await host.app.listen({ port: 0, host: '127.0.0.1' }))
    const headers = Object.entries({
      ...host.as('manager'),
      'content-type': 'application/json',
      'content-length': '1000000'
    })
    const head = headers.map(([name, value]) => `${name}: ${value}\r\n`).join('')
    const stand = async () => {
      const socket = connect(Number(origin.port), '127.0.0.1')
      t.teardown(() => socket.destroy())
      await once(socket, 'connect')
      let reply = ''
      socket.on('data', (piece) => {
        reply += piece
      })
      socket.write(`PUT /api/v1/backups HTTP/1.1\r\nhost: x\r\n${head}\r\n{"dbs":`)
      return () => reply.slice(9, 12)
    }
    const standing = [await stand(), await stand(), await stand()]
    await poll('the third is refused', async () => standing.some((status) => status() === '503') || undefined)
    t.equal(standing.filter((status) => status() !== '').length, 1, 'two stand')

    const api = apiOf(host)
    const refused = await api.call('PUT', '', backupOf([{ _id: 'a' }]))
    t.equal(refused.statusCode, 503)
    t.equal(refused.headers['retry-after'], '5')
    t.match(refused.json(), { code: 'DB_BACKUPS_TOO_MANY_UPLOADS' })
    const id = await api.backup()
    t.equal((await api.call('GET', `/${id}`)).statusCode, 200)

    await poll(
      'those that stand are ended',
      async () => standing.every((status) => status() !== '') || undefined
    )
    t.strictSame(standing.map((status) => status()).sort(), ['408', '408', '503'])
    t.match(await api.restore(backupOf([{ _id: 'a' }])), { status: 'success' })
  }
)
