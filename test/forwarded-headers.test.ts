import { once } from 'node:events'
import { connect } from 'node:net'
import t from 'tap'
import { backupOf } from './helpers/api.js'
import { buildHost } from './helpers/host.js'

const trusting = { server: { trustProxy: true } }

/** Headers that do not name a server, with the header that the refusal names. */
const WRONG: [headers: Record<string, string>, header: string][] = [
  [{ 'x-forwarded-proto': 'javascript' }, 'x-forwarded-proto'],
  [{ 'x-forwarded-proto': 'HTTPSS' }, 'x-forwarded-proto'],
  [{ 'x-forwarded-proto': 'https, file' }, 'x-forwarded-proto'],
  ...[
    'a b',
    'a/b',
    'user@a',
    'user:password@a',
    'a,',
    'a\tb',
    'a?b',
    'a#b',
    'a\\b',
    'a:',
    'a:port',
    'a:65536',
    'a:1:2',
    '[::1',
    '[1.2.3.4]',
    '::1',
    '1.2.3.4.5',
    '%61',
    'a..b/',
    'a..b',
    '.a',
    'a..',
    '.',
    '-a',
    'a-.com',
    'a.-b.com',
    `${'x'.repeat(64)}.com`,
    'a:0',
    'a:000',
    '[::1]:0',
    `${`${'x'.repeat(49)}.`.repeat(5)}abcd`,
    'é',
    `${'x'.repeat(250)}.example.com`
  ].map((host): [Record<string, string>, string] => [{ 'x-forwarded-host': host }, 'x-forwarded-host']),
  [{ host: 'a b' }, 'host'],
  [{ host: 'user@a' }, 'host']
]

t.test('a forwarded host or protocol that is none is refused before anything is done', async (t) => {
  const { app, as, on, webhooks } = await buildHost(t, trusting)
  const created = webhooks.create
  let transactions = 0
  webhooks.create = async (transaction) => {
    transactions++
    return created.call(webhooks, transaction)
  }
  const backup = await app.dbBackups.start()
  await backup.finished
  const before = (await app.dbBackups.list()).ids
  for (const [headers, header] of WRONG) {
    for (const [method, path, body] of [
      ['POST', '', undefined],
      ['PUT', '', backupOf([{ _id: 'a' }])],
      ['PUT', `/${backup.id}`, {}]
    ] as const) {
      const reply = await app.inject({
        method,
        url: `/api/v3/backups${path}`,
        headers: { ...as('manager'), ...headers },
        payload: body
      })
      t.equal(reply.statusCode, 400, `${method} ${path} ${JSON.stringify(headers)} ${reply.body}`)
      t.match(reply.json(), { code: 'DB_BACKUPS_INVALID_PARAMETER' })
      t.ok(reply.json().message.startsWith(`headers/${header} must be `), reply.body)
      t.notMatch(reply.body, /password|javascript/, 'what it holds is not sent back')
    }
  }
  t.strictSame((await app.dbBackups.list()).ids, before, 'no backup began')
  t.equal(transactions, 0, 'no restore began')
  t.equal((await on.fetchAll(on.names.components)).size, 0)
})

const RIGHT: [headers: Record<string, string>, origin: string][] = [
  [{ 'x-forwarded-proto': 'https' }, 'https://localhost:80'],
  [{ 'x-forwarded-proto': 'HTTPS' }, 'https://localhost:80'],
  [{ 'x-forwarded-proto': 'https, Http' }, 'http://localhost:80'],
  [{ 'x-forwarded-host': 'outer.example.com, inner:3000' }, 'http://inner:3000'],
  [{ 'x-forwarded-proto': 'https, http' }, 'http://localhost:80'],
  [{ 'x-forwarded-proto': 'http,https' }, 'https://localhost:80'],
  ...[
    'console.example.com',
    'console.example.com.',
    'console_1:8443',
    'a',
    '10.0.0.1:3000',
    '[::1]:3000',
    '[2001:db8::1]',
    'A-b.C',
    '_a.b_:1',
    `${'x'.repeat(63)}.com`,
    `${`${'x'.repeat(49)}.`.repeat(5)}abc.`,
    'a--b:65535'
  ].map((host): [Record<string, string>, string] => [{ 'x-forwarded-host': host }, `http://${host}`]),
  [{ host: 'console.example.com:3000' }, 'http://console.example.com:3000'],
  [{ host: '[::1]:3000' }, 'http://[::1]:3000']
]

t.test('a forwarded host and protocol make the URL', async (t) => {
  const { app, as, waitForBackup } = await buildHost(t, trusting)
  for (const [headers, origin] of RIGHT) {
    const headersOf = { ...as('manager'), ...headers }
    const reply = await app.inject({ method: 'POST', url: '/api/v3/backups', headers: headersOf })
    t.equal(reply.statusCode, 202, JSON.stringify(headers))
    t.equal(reply.json().url, `${origin}/ak/api/v2/backups/${reply.json().id}`)
    await waitForBackup(reply.json().id)
  }
})

t.test('a header that a proxy is not trusted to set does not matter', async (t) => {
  for (const options of [{}, { ...trusting, publicUrl: 'https://console.example.com' }]) {
    const { app, as, waitForBackup } = await buildHost(t, options)
    const headers = { ...as('manager'), 'x-forwarded-proto': 'javascript', 'x-forwarded-host': 'a@b' }
    const reply = await app.inject({ method: 'POST', url: '/api/v3/backups', headers })
    t.equal(reply.statusCode, 202, reply.body)
    t.match(reply.json().url, /^(http:\/\/localhost:80|https:\/\/console\.example\.com)\//)
    await waitForBackup(reply.json().id)
  }
})

t.test('replies that tell no URL do not ask for a host', async (t) => {
  const { app, as } = await buildHost(t, trusting)
  const headers = { ...as('manager'), 'x-forwarded-host': 'a@b' }
  t.equal((await app.inject({ url: '/api/v3/backups', headers })).statusCode, 200)
})

t.test('a request without a host gets the one that is always right on the machine itself', async (t) => {
  const { app, waitForBackup } = await buildHost(t, trusting)
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as { port: number }
  const socket = connect(port, '127.0.0.1')
  await once(socket, 'connect')
  socket.write('POST /api/v3/backups HTTP/1.0\r\nx-role: manager\r\ncontent-length: 0\r\n\r\n')
  let text = ''
  for await (const piece of socket) text += piece
  t.match(text, /^HTTP\/1\.[01] 202 /)
  const { id, url } = JSON.parse(text.slice(text.indexOf('\r\n\r\n')))
  t.equal(url, `http://localhost/ak/api/v2/backups/${id}`)
  await waitForBackup(id)
})
