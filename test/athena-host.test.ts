import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { deflateSync } from 'node:zlib'
import nano from 'nano'
import t, { type Test } from 'tap'
import { build_app } from '../examples/athena-host/app.js'
import createCouchLib from '../examples/athena-host/libs/couchdb.js'
import settings from '../examples/athena-host/libs/settings.js'
import toPromise from '../examples/athena-host/libs/to_promise.js'
import { create_databases } from '../examples/athena-host/scripts/create_databases.js'
import type { Environment, Tools } from '../examples/athena-host/types.js'
import { setupDatabases, type TestDatabases } from './helpers/database.js'
import { poll } from './helpers/poll.js'

const ROOT = join(__dirname, '..')
const SETTINGS_ID = '00_settings_athena'

interface CallOptions {
  headers?: Record<string, string>
  body?: string
}

interface Host {
  url: string
  ev: Environment
  on: TestDatabases
  app: Awaited<ReturnType<typeof build_app>>
  tools: Tools
  /** Messages that browsers have received. */
  told: Record<string, unknown>[]
  /** Headers of a manager, of a reader: with an API key, or with a session. */
  key: (role: Role) => Record<string, string>
  login: (role: Role) => Promise<Record<string, string>>
  call(method: string, path: string, options?: CallOptions): Promise<Response>
}

type Role = 'manager' | 'reader'

async function startHost(t: Test): Promise<Host> {
  const on = await setupDatabases(t)
  const ev: Environment = {
    DB_CONNECTION_STRING: on.url,
    DB_COMPONENTS: on.names.components,
    DB_SESSIONS: on.names.sessions,
    DB_SYSTEM: on.names.system,
    HOST_URL: 'http://console.example.com',
    SESSION_SECRET: randomBytes(16).toString('hex'),
    SETTINGS_DOC_ID: SETTINGS_ID,
    HTTP_TIMEOUT: 60_000,
    LOG_LEVEL: 'silent',
    ACCESS_LIST: {},
    URL_SAFE_LIST: []
  }
  const [manager, reader] = (await create_databases(ev)) ?? []
  const credentials = { manager, reader }
  const couchLib = createCouchLib(on.url)
  await toPromise((cb) => settings.update(ev, couchLib, cb))
  const told: Host['told'] = []
  const app = await build_app(ev, couchLib, (message) => told.push({ ...message }))
  t.teardown(async () => {
    if (app.server.listening) await app.close()
  })
  app.server.listen(0, '127.0.0.1')
  await once(app.server, 'listening')
  const url = `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`
  const call: Host['call'] = (method, path, { headers, body } = {}) =>
    fetch(url + path, {
      method,
      body,
      headers: { ...headers, ...(body === undefined ? {} : { 'content-type': 'application/json' }) }
    })
  return {
    url,
    ev,
    on,
    app,
    tools: app.tools,
    told,
    call,
    key: (role) => ({ authorization: `Basic ${Buffer.from(credentials[role]!.key).toString('base64')}` }),
    async login(role) {
      const [email, pass] = credentials[role]!.login.split(':')
      const reply = await call('POST', '/api/v3/auth/login', { body: JSON.stringify({ email, pass }) })
      // the session is stored before the body ends
      await reply.text()
      return { cookie: reply.headers.get('set-cookie')!.split(';')[0]! }
    }
  }
}

// biome-ignore lint/suspicious/noExplicitAny: replies of any shape
type Reply = any

async function json(status: number, reply: Promise<Response>): Promise<Reply> {
  const response = await reply
  const text = await response.text()
  if (response.status !== status) throw new Error(`${response.status} ${text}`)
  return JSON.parse(text)
}

/** Waits for the end of a restore, and returns the transaction as the host's own route shows it. */
async function followed(host: Host, started: { url: string }): Promise<Reply> {
  const path = new URL(started.url, host.url).pathname
  return poll(path, async () => {
    const tx = await json(200, host.call('GET', path, { headers: host.key('reader') }))
    return tx.status === 'pending' ? undefined : tx
  })
}

async function backedUp(host: Host, base = '/ak/api/v3', headers = host.key('manager')): Promise<Reply> {
  const { id, url } = await json(202, host.call('POST', `${base}/backups`, { headers }))
  if (url !== `${host.ev.HOST_URL}/ak/api/v2/backups/${id}`) throw new Error(url)
  return poll(id, async () => {
    const backup = await json(200, host.call('GET', `${base}/backups/${id}`, { headers }))
    return backup.in_progress ? undefined : backup
  })
}

async function insert(host: Host, database: 'components' | 'system', ...docs: object[]): Promise<void> {
  const results = await host.on.couch.use(host.on.names[database]).bulk({ docs })
  for (const { error } of results) if (error) throw new Error(error)
}

const document = (host: Host, database: 'components' | 'system', id: string): Promise<Reply> =>
  host.on.couch.use(host.on.names[database]).get(id)

t.test('the six routes answer at both prefixes', async (t) => {
  const host = await startHost(t)
  const session = await host.login('manager')
  await insert(host, 'components', { _id: 'peer1', api_url: 'grpcs://peer.example.com:7051' })
  for (const base of ['/api/v2', '/ak/api/v3']) {
    await t.test(base, async (t) => {
      const headers = base.startsWith('/ak') ? host.key('manager') : session
      const { id } = await backedUp(host, base, headers)
      t.strictSame((await json(200, host.call('GET', `${base}/backups`, { headers }))).ids.at(-1), id)
      const path = `${base}/backups/${id}`
      const appended = await host.call('PUT', `${path}/attachments/apollo`, {
        headers,
        body: '{"attachment":"abc"}'
      })
      t.strictSame(await appended.json(), { message: 'ok', att_name: 'apollo' })
      const backup = await json(200, host.call('GET', path, { headers }))
      t.equal(backup.error, undefined)
      t.strictSame(backup._attachments, { apollo: Buffer.from('abc').toString('base64') })

      const components = host.on.couch.use(host.on.names.components)
      await components.destroy('peer1', (await components.get('peer1'))._rev)
      const byId = await followed(host, await json(202, host.call('PUT', path, { headers })))
      t.match(byId, { status: 'success', databases: { components: { created: 1 } } })

      await components.destroy('peer1', (await components.get('peer1'))._rev)
      const upload = host.call('PUT', `${base}/backups`, { headers, body: JSON.stringify(backup) })
      const byUpload = await followed(host, await json(202, upload))
      t.match(byUpload, { status: 'success', databases: { components: { created: 1 } } })
      t.match(await document(host, 'components', 'peer1'), { api_url: 'grpcs://peer.example.com:7051' })
    })
  }
  for (const base of ['/api/v1', '/api/v2', '/api/v3', '/API/V3', '/ak/api/v1', '/ak/api/v2', '/ak/api/v3']) {
    const headers = base.startsWith('/ak') ? host.key('manager') : session
    for (const path of [`${base}/backups`, `${base}/backups/`]) {
      // two, and one before each of four restores
      t.equal((await json(200, host.call('GET', path, { headers }))).ids.length, 6, path)
    }
  }
})

t.test('sessions of the host are in no backup, and outlive a restore', async (t) => {
  const host = await startHost(t)
  const session = await host.login('manager')
  const backup = await backedUp(host, '/api/v3', session)
  t.strictSame(backup.dbs.athena_sessions.docs, [])
  t.equal((await host.on.couch.use(host.on.names.sessions).list()).rows.length, 1, 'though there is one')
  await followed(
    host,
    await json(202, host.call('PUT', `/api/v3/backups/${backup.id}`, { headers: session }))
  )
  t.equal((await host.call('GET', '/api/v3/backups', { headers: session })).status, 200)
})

t.test(
  'an upload larger than the body parsers take streams through; they hold for other routes',
  async (t) => {
    const host = await startHost(t)
    const headers = host.key('manager')
    const big = { _id: 'big', text: 'x'.repeat(2_000_000) }
    const refused = await host.call('POST', '/ak/api/v3/components', {
      headers,
      body: JSON.stringify({ id: 'big', text: big.text })
    })
    t.equal(refused.status, 413, 'the parser refuses it')

    const upload = host.call('PUT', '/ak/api/v3/backups', {
      headers,
      body: JSON.stringify({ dbs: { DB_COMPONENTS: { docs: [big] } } })
    })
    t.match(await followed(host, await json(202, upload)), { status: 'success' })
    t.match(await document(host, 'components', 'big'), big)

    const imported = await host.call('POST', '/ak/api/v3/components', {
      headers,
      body: '{"id":"ca1","api_url":"https://ca.example.com:7054"}'
    })
    t.strictSame(await imported.json(), { message: 'ok', id: 'ca1' }, 'a JSON route works')
    t.match(await document(host, 'components', 'ca1'), { api_url: 'https://ca.example.com:7054' })
    const malformed = await host.call('POST', '/ak/api/v3/components', { headers, body: '{' })
    t.equal(malformed.status, 400)
    const unknown = await host.call('GET', '/ak/api/v4/backups', { headers })
    t.strictSame(await unknown.json(), { statusCode: 404, msg: 'route not found' }, 'not handed over')
  }
)

t.test('a download gets the headers of the host, and is not coded by its compression', async (t) => {
  const host = await startHost(t)
  const docs = Array.from({ length: 50 }, (_, index) => ({ _id: `peer${index}`, text: 'x'.repeat(5000) }))
  await insert(host, 'components', ...docs)
  const { id } = await backedUp(host)
  for (const [accepted, coding] of [
    ['identity', null],
    ['gzip', 'gzip'],
    // The host's compression knows it.
    ['br, deflate', null]
  ]) {
    const headers = { ...host.key('manager'), 'accept-encoding': accepted! }
    const reply = await host.call('GET', `/ak/api/v3/backups/${id}`, { headers })
    t.equal(reply.headers.get('content-encoding'), coding, accepted!)
    t.equal(reply.headers.get('x-content-type-options'), 'nosniff', 'with the headers that the host sets')
    const { dbs } = (await reply.json()) as Reply
    const received = dbs.athena_components.docs.map(({ _rev, ...document }: { _rev: string }) => document)
    t.strictSame(new Set(received), new Set(docs))
  }
})

t.test('the middleware of the host decides who may, and replies itself', async (t) => {
  const host = await startHost(t)
  const get = (path: string, headers = {}) => host.call('GET', path, { headers })
  const nobody = await get('/api/v3/backups')
  t.equal(nobody.status, 401)
  t.strictSame(await nobody.json(), { error: 'log in first' })
  const reader = await get('/api/v3/backups', await host.login('reader'))
  t.equal(reader.status, 403, 'a session without the action')
  t.match(await reader.json(), { attempted_actions: ['blockchain.optools.settings'] })
  t.equal((await get('/api/v3/backups', host.key('manager'))).status, 401, 'an API key is no session')

  const noKey = await get('/ak/api/v3/backups')
  t.equal(noKey.status, 401)
  t.equal(noKey.headers.get('www-authenticate'), 'Basic')
  t.equal((await get('/ak/api/v3/backups', host.key('reader'))).status, 401, 'an API key without the action')
  t.equal((await get('/ak/api/v3/backups', await host.login('manager'))).status, 401, 'a session is no key')
  t.equal((await host.call('POST', '/ak/api/v3/backups', { headers: host.key('reader') })).status, 401)
  t.strictSame(await json(200, get('/ak/api/v3/backups', host.key('manager'))), { ids: [] })

  const direct = await host.app.backups.inject({ url: '/ak/api/v3/backups', headers: host.key('manager') })
  t.equal(direct.statusCode, 401, 'a request that did not pass the middleware')
})

t.test('a backup that athena made is listed, read and restored', async (t) => {
  const host = await startHost(t)
  const headers = host.key('manager')
  const id = '03_ibp_db_backup_1592922855871'
  const about = {
    start_timestamp: 1_592_922_855_874,
    finish_timestamp: 1_592_922_856_926,
    last_sequence: '7-g1'
  }
  const peer = { _id: 'peer1', _rev: `1-${'a'.repeat(32)}`, api_url: 'grpcs://peer.example.com:7051' }
  await insert(host, 'system', {
    _id: id,
    type: 'athena_backup',
    backup_version: '1.0.0',
    ibp_versions: { tag: '2.5.0-26' },
    doc_count: 1,
    in_progress: false,
    start_timestamp: 1_592_922_838_408,
    end_timestamp: 1_592_922_862_177,
    elapsed: '23.8 secs',
    dbs: { DB_COMPONENTS: { ...about, docs: [peer] }, DB_SYSTEM: { ...about, docs: [] } },
    _attachments: { apollo: { content_type: 'application/octet-stream', data: 'YnVi' } }
  })
  t.strictSame(await json(200, host.call('GET', '/ak/api/v3/backups', { headers })), { ids: [id] })
  const backup = await json(200, host.call('GET', `/ak/api/v3/backups/${id}`, { headers }))
  t.match(backup, { id, elapsed: '23.8 secs', _attachments: { apollo: 'YnVi' } })
  t.strictSame(backup.dbs.athena_components, { ...about, docs: [peer] })
  const restored = await followed(
    host,
    await json(202, host.call('PUT', `/ak/api/v3/backups/${id}`, { headers }))
  )
  t.match(restored, { status: 'success', databases: { components: { created: 1 } } })
  t.match(await document(host, 'components', 'peer1'), peer)

  const peer2 = { _id: 'peer2', api_url: 'grpcs://peer2.example.com:7051' }
  const compressed = deflateSync(JSON.stringify([peer2])).toString('base64')
  const file = {
    _id: id,
    in_progress: false,
    dbs: { DB_COMPONENTS: { ...about, compressed_docs: compressed } }
  }
  const upload = host.call('PUT', '/ak/api/v3/backups', { headers, body: JSON.stringify(file, null, '\t') })
  t.match(
    await followed(host, await json(202, upload)),
    { status: 'success' },
    'the newer form, as in its files'
  )
  t.match(await document(host, 'components', 'peer2'), peer2)
})

t.test("the transaction is one of the host's webhook documents, and browsers are told", async (t) => {
  const host = await startHost(t)
  const headers = await host.login('manager')
  const started = await json(
    202,
    host.call('PUT', '/api/v3/backups', {
      headers,
      body: JSON.stringify({ client_webhook_url: `${host.url}/secret`, dbs: { components: { docs: [] } } })
    })
  )
  const shown = await followed(host, started)
  const stored = await document(host, 'system', shown.tx_id)
  t.match(stored, {
    type: 'webhook_tx',
    sub_type: 'backup_restore',
    status: 'success',
    by: 'a****@example.com',
    uuid: Object.values(host.ev.ACCESS_LIST)[0]!.uuid,
    client_webhook_url: `${host.url}/secret`
  })
  t.equal(shown.message, 'the restore is done')
  t.notOk('client_webhook_url' in shown, 'the route shows what the host shows')
  const messages = host.told.filter(({ id }) => id === shown.tx_id)
  t.equal(messages[0]!.status, 'pending')
  t.ok(messages.some(({ status }) => status === 'success'))

  const byKey = await json(
    202,
    host.call('PUT', '/ak/api/v3/backups', { headers: host.key('manager'), body: '{"dbs":{}}' })
  )
  t.match(await followed(host, byKey), { by: /^k\w{16}$/, uuid: '-' })
  const missing = await host.call('GET', `/ak/api/v3/webhooks/txs/${SETTINGS_ID}`, {
    headers: host.key('reader')
  })
  t.equal(missing.status, 404, 'other documents are no transactions')
})

t.test('the white list is rebuilt after a restore; when it cannot be, the transaction says so', async (t) => {
  const host = await startHost(t)
  const restore = async () => {
    const docs = [
      { _id: 'peer1', api_url: 'https://peer.example.com:7051', grpcwp_url: 'https://p.example.com' }
    ]
    const body = JSON.stringify({ dbs: { athena_components: { docs } } })
    return followed(
      host,
      await json(202, host.call('PUT', '/ak/api/v3/backups', { headers: host.key('manager'), body }))
    )
  }
  t.match(await restore(), { status: 'success' })
  const hosts = ['p.example.com', 'peer.example.com:7051']
  const stored = await document(host, 'system', SETTINGS_ID)
  t.strictSame(stored.url_safe_list, hosts)
  t.strictSame(host.ev.URL_SAFE_LIST, hosts)

  await host.on.couch.use(host.on.names.system).destroy(SETTINGS_ID, stored._rev)
  const failed = await restore()
  t.equal(failed.status, 'error')
  t.match(
    failed.message,
    /^the data was restored, but the component white list could not be rebuilt: not_found: (missing|deleted)$/
  )
})

t.test('closing while a backup runs ends it and the server', async (t) => {
  const host = await startHost(t)
  const headers = host.key('manager')
  const { id } = await json(202, host.call('POST', '/ak/api/v3/backups', { headers }))
  await host.app.close()
  t.notOk(host.app.server.listening)
  await t.rejects(fetch(host.url))
  const header = await document(host, 'system', id)
  t.equal(header.in_progress, false)
})

t.test('started as a process, it ends by itself on SIGTERM', async (t) => {
  const prefix = `t${randomBytes(6).toString('hex')}`
  const child: ChildProcess = spawn(process.execPath, ['--import=tsx', 'examples/athena-host/main.js'], {
    cwd: ROOT,
    env: { ...process.env, PORT: '0', DB_PREFIX: prefix },
    stdio: ['ignore', 'pipe', 'pipe']
  })
  let errors = ''
  child.stderr!.on('data', (text: Buffer) => {
    errors += text
  })
  const exited = once(child, 'exit')
  t.teardown(async () => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL')
    if (!process.env.COUCHDB_URL) return
    const { db } = nano(process.env.COUCHDB_URL)
    for (const database of ['components', 'sessions', 'system']) await db.destroy(`${prefix}_${database}`)
  })
  const [text] = await Promise.race([once(child.stdout!, 'data'), exited.then(() => [errors])])
  t.match(String(text), /\/ak\/api\/v3\/backups\n/)
  child.kill('SIGTERM')
  // timed from the signal, since the start of the process depends on the load of the machine
  const late = setTimeout(() => child.kill('SIGKILL'), 60_000)
  t.strictSame(await exited, [0, null], errors || 'without an error')
  clearTimeout(late)
})

t.test('the lines that docs/migrating-from-athena.md adds are those of the example', async (t) => {
  const page = await readFile(join(ROOT, 'docs/migrating-from-athena.md'), 'utf8')
  const source = await readFile(join(ROOT, 'examples/athena-host/athena/app.js'), 'utf8')
  const diff = /```diff\n(.*?)```/s.exec(page)?.[1] ?? ''
  const lines = (sign: string) =>
    diff
      .split('\n')
      .filter((line) => line.startsWith(sign) && !line.startsWith(sign.repeat(3)))
      .map((line) => line.slice(1).trim())
      .filter((line) => line !== '')
  const [removed, added] = [lines('-'), lines('+')]
  // moved lines are athena's own
  const fresh = added.filter((line) => !removed.includes(line))
  const gone = removed.filter((line) => !added.includes(line))
  // without the end of the line, since the example passes a further argument
  for (const line of fresh) t.ok(source.includes(line.replace(/\)?;$/, '')), line)
  for (const line of source.match(/^.*tools\.(backups|dbs)\b.*$/gm) ?? []) {
    const call = /tools\.(backups|dbs)[\w. =]*/.exec(line)![0].trim()
    t.ok(fresh.join('\n').includes(call), `the page has ${call}`)
  }
  t.ok(fresh.length > 0)
  t.ok(fresh.length + gone.length <= 12, `${fresh.length + gone.length} lines`)
})

t.test('errors of the host keep all that they say', async (t) => {
  const rejects = (error: unknown, message: string) =>
    t.rejects(
      toPromise((cb) => cb(error as never, undefined)),
      { message }
    )
  await rejects({ statusCode: 500, error: 'not_found', reason: 'missing' }, 'not_found: missing')
  await rejects({ msg: 'could not', reason: 'conflict' }, 'could not: conflict')
  await rejects({ msg: { why: ['nested'] } }, "{ why: [ 'nested' ] }")
  await rejects({ odd: 1 }, '{ odd: 1 }')
  await rejects('a string', 'a string')
  await rejects(500, '500')
  const error = new Error('an error')
  await t.rejects(
    toPromise((cb) => cb(error as never, undefined)),
    error
  )
  const call = toPromise((cb) => cb({ statusCode: 222, error: 'e' }, undefined))
  t.match(await call.catch((one: object) => one), { statusCode: 222 })
  for (const none of [undefined, null]) {
    t.equal(await toPromise((cb) => cb(none as never, 'a result' as never)), 'a result')
  }
})

t.test(
  'a console without components is restored: that there is nothing to rebuild is no failure',
  async (t) => {
    const host = await startHost(t)
    host.tools.component_lib.rebuildWhiteList = (_req, cb) =>
      cb({ statusCode: 222, msg: 'no components exist', reason: 'missing' } as never, undefined)
    const upload = host.call('PUT', '/ak/api/v3/backups', {
      headers: host.key('manager'),
      body: '{"dbs":{}}'
    })
    t.match(await followed(host, await json(202, upload)), { status: 'success' })
  }
)

t.test('the operator page is served, and its routes behind the middleware of the host', async (t) => {
  const host = await startHost(t)
  const page = await host.call('GET', '/backups/')
  t.match([page.status, page.headers.get('content-security-policy')], [200, /^default-src 'none'/])
  await page.text()
  t.equal((await fetch(`${host.url}/backups`, { redirect: 'manual' })).status, 308)
  const overview = '/backups/api/overview'
  t.equal((await host.call('GET', overview)).status, 401)
  t.equal((await host.call('GET', overview, { headers: await host.login('reader') })).status, 403)
  t.equal((await host.call('GET', overview, { headers: host.key('reader') })).status, 401)
  const manager = await host.login('manager')
  t.match(await json(200, host.call('GET', overview, { headers: manager })), { total: 0, newest_good: null })
  const start = { body: '{"note":"by key"}', headers: host.key('manager') }
  t.equal(
    (await host.call('POST', '/backups/api/backups', start)).status,
    403,
    'not a browser, and does not say so'
  )
  const said = { ...start, headers: { ...start.headers, 'x-requested-with': 'fastify-couchdb-backups' } }
  const { id } = await json(202, host.call('POST', '/backups/api/backups', said))
  await poll(id, async () => {
    const { backups } = await json(200, host.call('GET', overview, { headers: manager }))
    return backups[0].in_progress ? undefined : backups[0].note === 'by key'
  })
})
