import { Writable } from 'node:stream'
import { inspect } from 'node:util'
import Fastify from 'fastify'
import nano from 'nano'
import t from 'tap'
import { createCouchWebhookStore, dbBackups } from '../lib/index.js'
import { apiOf } from './helpers/api.js'
import { setupDatabases } from './helpers/database.js'
import { startFaultProxy } from './helpers/fault-proxy.js'
import { buildHost } from './helpers/host.js'
import { SOON, startKeeper } from './helpers/two-servers.js'

const PASSWORD = 'pa55word-of-the-database'
const KEEPER = 'pa55word-of-the-backups'
const KEY = 'secret-of-the-api-key'
const TOKEN = 'token-in-the-query'

t.test('secrets reach no log, reply or stored document', async (t) => {
  const on = await setupDatabases(t)
  const address = new URL(on.url)
  // the embedded database accepts any password; that of a real one counts as a secret as well
  const password = on.real ? decodeURIComponent(address.password) : PASSWORD
  if (!on.real) {
    address.username = 'admin'
    address.password = PASSWORD
  }
  let couch = nano(address.href.replace(/\/$/, ''))
  const seen: string[] = []
  const stream = new Writable({
    write(line, _encoding, done) {
      seen.push(`log: ${line}`)
      done()
    }
  })
  const app = Fastify({ logger: { level: 'trace', stream } })
  t.teardown(() => app.close())
  await app.register(dbBackups, {
    couch: () => couch,
    databases: on.names,
    authorize: () => ({ name: 'manager' }),
    webhooks: createCouchWebhookStore({ couch: () => couch, database: on.names.system }),
    rebuildWhitelist: () => undefined,
    clientWebhook: { attempts: 1, timeout: 500 },
    retry: { attempts: 2, wait: 10, longest: 20 },
    timeouts: { control: 300, idle: 300, close: 1000, lease: 2000 },
    onEvent: (event) => void seen.push(`event: ${inspect(event, { depth: 20, showHidden: true })}`)
  })
  const headers = { authorization: `Basic ${Buffer.from(`key:${KEY}`).toString('base64')}`, 'x-api-key': KEY }
  const call = async (method: 'GET' | 'PUT' | 'POST', path: string, payload?: object) => {
    const reply = await app.inject({ method, url: `/ak/api/v2/backups${path}`, payload, headers })
    seen.push(`${method} ${path}: ${JSON.stringify(reply.headers)} ${reply.body}`)
    return reply
  }

  const { id } = (await call('POST', '')).json()
  while ((await app.dbBackups.summary(id)).in_progress) await new Promise((done) => setTimeout(done, 10))
  await call('PUT', `/${id}/attachments/a`, { attachment: 'x' })
  await call('GET', '')
  await call('GET', `/${id}`)
  // nobody listens there, so that the delivery fails, which the transaction says
  const restored = await call('PUT', `/${id}`, { client_webhook_url: `http://127.0.0.1:9/?token=${TOKEN}` })
  t.equal(restored.statusCode, 202)
  const store = createCouchWebhookStore({ couch: () => couch, database: on.names.system })
  const txId = restored.json().url.split('/').pop()
  const ended = async () => (await store.get(txId))?.client_webhook?.last_error
  while (!(await ended())) await new Promise((done) => setTimeout(done, 10))
  await call('PUT', `/${id}`, { client_webhook_url: `http://user:${KEY}@127.0.0.1:9/` })
  await call('PUT', '', { dbs: { [`x${KEY.length}`]: {} } })

  // every kind of failure reports all that it knows
  const proxy = await startFaultProxy(t, address.href.replace(/\/$/, ''))
  couch = nano(proxy.url)
  for (const fault of ['refuse', 'cut_mid', 'stall', 'status_401', 'html'] as const) {
    proxy.add({ fault, path: /_changes/, times: 100 })
    const started = await call('POST', '')
    while (started.statusCode === 202 && (await app.dbBackups.summary(started.json().id)).in_progress) {
      await new Promise((done) => setTimeout(done, 20))
    }
    await proxy.clear()
    proxy.add({ fault, path: /./, times: 100 })
    await call('GET', `/${id}`)
    await call('PUT', `/${id}`)
    await call('PUT', `/${id}/attachments/b`, { attachment: 'x' })
    await proxy.clear()
  }
  t.ok(
    seen.some((text) => /^event: [\s\S]*backup_failed/.test(text)),
    'backups failed'
  )

  const stored = []
  for (const name of Object.values(on.names)) {
    for (const document of (await on.fetchAll(name)).values()) {
      // the client's webhook has to be kept in order to be called
      const { client_webhook_url, ...rest } = document
      stored.push(JSON.stringify(rest))
    }
  }
  t.ok(stored.length >= 3, `${stored.length} documents to look through`)

  couch = nano(`http://admin:${PASSWORD}@127.0.0.1:9`)
  for (const [method, path] of [
    ['POST', ''],
    ['GET', ''],
    ['GET', `/${id}`],
    ['PUT', `/${id}`]
  ] as const) {
    t.equal((await call(method, path)).statusCode, 503)
  }

  const everything = [...seen, ...stored]
  t.ok(
    everything.some((text) => text.startsWith('log: ')),
    'there are logs to look through'
  )
  const basic = Buffer.from(`admin:${password}`).toString('base64')
  for (const secret of [password, PASSWORD, basic, KEY, headers.authorization.slice(6), TOKEN]) {
    t.notOk(
      everything.find((text) => text.includes(secret)),
      'not found anywhere'
    )
  }
})

t.test('nor do those of a server for the backups', async (t) => {
  const keeper = await startKeeper(t)
  const given = new URL(keeper.url)
  given.username ||= 'keeper'
  given.password ||= KEEPER
  const url = (address: URL) => address.href.replace(/\/$/, '')
  const seen: string[] = []
  const stream = new Writable({
    write(line, _encoding, done) {
      seen.push(`log: ${line}`)
      done()
    }
  })
  let address = url(given)
  const on = await setupDatabases(t)
  const host = await buildHost(t, {
    ...SOON,
    on,
    server: { logger: { level: 'trace', stream } } as never,
    backups: { couch: () => nano(address), database: keeper.database },
    onEvent: (event) => void seen.push(`event: ${inspect(event, { depth: 20, showHidden: true })}`)
  })
  const api = apiOf(host)
  const id = await api.backup()
  const proxy = await startFaultProxy(t, url(given))
  address = proxy.url
  for (const fault of ['refuse', 'cut_mid', 'stall', 'status_401', 'html'] as const) {
    proxy.add({ fault, path: /./, times: 100 })
    for (const [method, path] of [
      ['POST', ''],
      ['GET', `/${id}`],
      ['PUT', `/${id}`]
    ] as const) {
      const reply = await api.call(method, path)
      seen.push(`${method} ${path}: ${JSON.stringify(reply.headers)} ${reply.body}`)
      t.ok(reply.statusCode >= 500, `${fault} ${reply.statusCode}`)
    }
    await proxy.clear()
  }
  address = url(given).replace(given.host, '127.0.0.1:9')
  t.match(await api.call('POST'), { statusCode: 503 })
  address = `http://keeper:${KEEPER}@bad host`
  const reply = await api.call('POST')
  t.match(reply, { statusCode: 500 })
  t.match(reply.json().message, /backups\.couch/)
  seen.push(reply.body)
  address = url(given)

  const { rows } = await keeper.documents.list({ include_docs: true })
  for (const name of Object.values(on.names))
    for (const document of (await on.fetchAll(name)).values()) seen.push(JSON.stringify(document))
  seen.push(...rows.map(({ doc }) => JSON.stringify(doc)))
  const basic = Buffer.from(`${given.username}:${given.password}`).toString('base64')
  for (const secret of [decodeURIComponent(given.password), KEEPER, basic])
    t.notOk(
      seen.find((text) => text.includes(secret)),
      'not found anywhere'
    )
})

t.test('a database URL that is none is not told, its password least of all', async (t) => {
  const seen: string[] = []
  const stream = new Writable({
    write(line, _encoding, done) {
      seen.push(`${line}`)
      done()
    }
  })
  for (const address of ['bad host:5984', '[x', '127.0.0.1:99999']) {
    const couch = () => nano(`http://admin:${PASSWORD}@${address}`)
    const app = Fastify({ logger: { level: 'trace', stream } })
    t.teardown(() => app.close())
    await app.register(dbBackups, {
      couch,
      databases: { components: 'a', sessions: 'b', system: 'c' },
      authorize: () => ({ name: 'manager' }),
      webhooks: createCouchWebhookStore({ couch, database: 'c' }),
      rebuildWhitelist: () => undefined,
      onEvent: (event) => void seen.push(inspect(event, { depth: 20, showHidden: true }))
    })
    const { statusCode, body } = await app.inject({ method: 'POST', url: '/api/v2/backups' })
    t.equal(statusCode, 500)
    t.equal(JSON.parse(body).code, 'DB_BACKUPS_HOST_VALUE')
    seen.push(body)
  }
  t.ok(
    seen.some((text) => /the database's URL is not a URL/.test(text)),
    'the log says what is wrong'
  )
  t.notOk(seen.find((text) => text.includes(PASSWORD)))
})
