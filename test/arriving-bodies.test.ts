import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { gzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { apiOf } from './helpers/api.js'
import { buildHost, type HostOptions } from './helpers/host.js'

async function listening(t: Test, options: HostOptions) {
  const host = await buildHost(t, options)
  const { hostname, port } = new URL(await host.app.listen({ host: '127.0.0.1', port: 0 }))
  const as = Object.entries(host.as('manager')).map(([name, value]) => `${name}: ${value}\r\n`)
  /** Sends the head of a request and the first bytes of its body. */
  const begin = (line: string, length: number, first: string | Buffer, more = ''): Socket => {
    const socket = connect(Number(port), hostname).on('error', () => undefined)
    t.teardown(() => socket.destroy())
    socket.write(
      `${line} HTTP/1.1\r\nhost: x\r\n${as.join('')}content-type: application/json\r\n${more}content-length: ${length}\r\n\r\n`
    )
    socket.write(first)
    return socket
  }
  return { host, api: apiOf(host), begin }
}

const replyOf = async (socket: Socket): Promise<string> =>
  String((await once(socket, 'data', { signal: AbortSignal.timeout(20_000) }))[0])

for (const kind of ['silent', 'dripping']) {
  t.test(`a server closes in its time while bodies arrive that are ${kind}`, async (t) => {
    const { host, api, begin } = await listening(t, { timeouts: { close: 1500 } })
    const id = await api.backup()
    const sockets = [
      begin(`PUT /api/v3/backups/${id}/attachments/a`, 900_000, '{"attachment":"'),
      begin('PUT /api/v3/backups', 900_000, '{"dbs":'),
      begin('POST /api/v3/backups', 900, ' '),
      begin(`PUT /api/v3/backups/${id}`, 900, ' ')
    ]
    const drip = setInterval(() => {
      if (kind === 'dripping') for (const socket of sockets) socket.write(' ')
    }, 200)
    t.teardown(() => clearInterval(drip))
    await delay(500)
    const since = performance.now()
    await host.app.close()
    t.ok(performance.now() - since < 6000, `closed after ${Math.round(performance.now() - since)} ms`)
  })
}

t.test('a restore by id takes no more of a body than the longest URL', async (t) => {
  const { api } = await listening(t, {})
  const longest = `http://x/${'\u8a9e'.repeat(2048 - 'http://x/'.length)}`
  const path = '/03_ibp_db_backup_1'
  t.equal((await api.call('PUT', path, { client_webhook_url: longest })).statusCode, 400)
  t.equal((await api.call('PUT', path, Buffer.alloc(8 * 1024, ' '))).statusCode, 400)
  t.equal((await api.call('PUT', path, Buffer.alloc(8 * 1024 + 1, ' '))).statusCode, 413)
})

t.test('a start takes no more of a body than it can use', async (t) => {
  const { begin } = await listening(t, {})
  const long = begin('POST /api/v3/backups', 5000, ' ')
  t.match(await replyOf(long), /^HTTP\/1.1 413 /)
  const inflated = gzipSync(Buffer.alloc(100_000, ' '))
  t.match(
    await replyOf(begin('POST /api/v3/backups', inflated.length, inflated, 'content-encoding: gzip\r\n')),
    /^HTTP\/1.1 413 /
  )
})

t.test(
  'appends that stand keep others waiting, in their time only, and no more of them in memory',
  async (t) => {
    const { api, begin } = await listening(t, {
      limits: { appends: 2 },
      timeouts: { control: 1000, idle: 4000 }
    })
    const id = await api.backup()
    const path = `/${id}/attachments`
    const standing = [1, 2].map((n) => begin(`PUT /api/v3/backups${path}/s${n}`, 900, '{"attachment":"'))
    await delay(300)
    const refused = await api.call('PUT', `${path}/late`, { attachment: 'x' })
    t.match(refused.json(), { statusCode: 503, code: 'DB_BACKUPS_APPEND_BUSY' })
    t.equal(refused.headers['retry-after'], '5')
    const waits = api.call('PUT', `${path}/waits`, { attachment: 'x' })
    await delay(100)
    standing[0]!.destroy()
    t.equal((await waits).statusCode, 200, 'the place of one that left is given on')
    t.match(await replyOf(standing[1]!), /^HTTP\/1.1 408 /)
    const many = await Promise.all(
      Array.from({ length: 4 }, (_, n) => api.call('PUT', `${path}/m${n}`, { attachment: 'x' }))
    )
    t.strictSame([...new Set(many.map(({ statusCode }) => statusCode))], [200], 'all places are free again')
  }
)

t.test('uploads that drip give their places up', async (t) => {
  const { api, begin } = await listening(t, { limits: { uploads: 1 }, timeouts: { idle: 1500 } })
  const slow = begin('PUT /api/v3/backups', 900_000, '{"dbs":')
  const drip = setInterval(() => slow.write(' '.repeat(200)), 200)
  t.teardown(() => clearInterval(drip))
  await delay(200)
  t.match((await api.call('PUT', '', { dbs: {} })).json(), { code: 'DB_BACKUPS_TOO_MANY_UPLOADS' })
  t.match(await replyOf(slow), /^HTTP\/1.1 408 /)
})

t.test('many requests for a backup of many attachments keep no list waiting', async (t) => {
  const { host, api } = await listening(t, {})
  const id = await api.backup()
  for (let n = 0; n < 40; n++) await host.app.dbBackups.attach(id, `${'n'.repeat(490)}${n}`, 'x')
  const warnings: Error[] = []
  const warn = (warning: Error) => warnings.push(warning)
  process.on('warning', warn)
  t.teardown(() => process.off('warning', warn))
  const gets = Array.from({ length: 300 }, () => api.call('GET', `/${id}`))
  const since = performance.now()
  t.equal((await api.call('GET')).statusCode, 200)
  t.ok(performance.now() - since < 5000, 'before all of them are answered')
  const statuses = (await Promise.all(gets)).map(({ statusCode }) => statusCode)
  t.strictSame([...new Set(statuses)].sort(), [200, 503])
  t.equal((await api.call('GET', `/${id}`)).statusCode, 200, 'places are free again')
  await delay(50)
  t.strictSame(warnings, [], 'a refusal warns of nothing')
})
