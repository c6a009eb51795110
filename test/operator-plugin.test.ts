import { once } from 'node:events'
import { request as send } from 'node:http'
import type { AddressInfo } from 'node:net'
import Fastify, { type LightMyRequestResponse } from 'fastify'
import t, { type Test } from 'tap'
import operator, { type OperatorOptions } from '../lib/operator/index.js'
import { setupDatabases } from './helpers/database.js'
import { type Gate, startGate } from './helpers/gate.js'
import { buildHost, type TestHost } from './helpers/host.js'
import { poll } from './helpers/poll.js'

const SAME_SITE = { 'sec-fetch-site': 'same-origin' }

interface OperatorHost extends TestHost {
  gate: Gate
  /** Sends a request of a manager, from the page unless `headers` say other. */
  call(
    method: 'GET' | 'POST' | 'PUT' | 'DELETE',
    path: string,
    payload?: object,
    headers?: Record<string, string>
  ): Promise<LightMyRequestResponse>
  backUp(): Promise<string>
}

async function operatorHost(t: Test, options: Partial<OperatorOptions> = {}): Promise<OperatorHost> {
  const on = await setupDatabases(t)
  const gate = await startGate(t, on)
  const authorize: OperatorOptions['authorize'] = (request) => {
    if (request.headers['x-role'] !== 'manager')
      throw Object.assign(new Error('forbidden'), { statusCode: 403 })
    return { name: 'ann' }
  }
  const host = await buildHost(t, {
    on,
    couch: gate.couch,
    keep: { last: 1 },
    extendAfter: (app) => void app.register(operator, { prefix: '/op', authorize, ...options })
  })
  return {
    ...host,
    gate,
    call: (method, path, payload, headers = SAME_SITE) =>
      host.app.inject({
        method,
        url: `/op/api${path}`,
        payload,
        headers: { ...host.as('manager'), ...headers }
      }),
    async backUp() {
      const { id, finished } = await host.app.dbBackups.start()
      await finished
      return id
    }
  }
}

// biome-ignore lint/suspicious/noExplicitAny: lines of any shape
const linesOf = ({ body }: { body: string }): any[] =>
  body
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))

t.test('a registration that cannot work is refused, and names the option', async (t) => {
  const authorize = () => {}
  for (const [options, message] of [
    [{}, /"authorize"/],
    [{ authorize, authorise: authorize }, /"authorise" is not known/],
    [{ authorize, backupsPath: 'https://other.example/backups' }, /"backupsPath"/],
    [{ authorize, backupsPath: '//other.example' }, /"backupsPath"/],
    [{ authorize, signIn: { url: 'javascript:alert(1)' } }, /"signIn.url"/],
    [{ authorize, csrf: {} }, /"csrf.check"/],
    [{ authorize, timeout: 0 }, /"timeout"/],
    [{ authorize }, /register fastify-couchdb-backups before/]
  ] as const) {
    const app = Fastify()
    app.register(operator, options as never)
    await t.rejects(Promise.resolve(app.ready()), message)
    await app.close()
  }
})

t.test('the page is at the prefix with a slash, and is not sent again while it is the same', async (t) => {
  const { app } = await operatorHost(t, { title: 'Ours', signIn: { url: '/login' } })
  const without = await app.inject('/op')
  t.match([without.statusCode, without.headers.location], [308, 'op/'])
  const page = await app.inject('/op/')
  t.match(page, { statusCode: 200, headers: { 'content-type': /html/, 'cache-control': 'no-cache' } })
  const again = await app.inject({ url: '/op/', headers: { 'if-none-match': String(page.headers.etag) } })
  t.match(again, { statusCode: 304, body: '' })
  t.strictSame((await app.inject('/op/config.json')).json(), {
    backupsPath: '/api/v3/backups',
    title: 'Ours',
    signIn: { url: '/login' }
  })
  for (const path of ['/op/../index.ts', '/op/%2e%2e/index.ts', '/op/unknown'])
    t.equal((await app.inject(path)).statusCode, 404, path)
})

t.test('requests of other sites change nothing, and clients that are no browsers say so', async (t) => {
  const { call, app } = await operatorHost(t)
  for (const headers of [
    { 'sec-fetch-site': 'cross-site', 'x-requested-with': 'x' },
    { 'sec-fetch-site': 'same-site' },
    {}
  ]) {
    const refused = await call('POST', '/backups', {}, headers as Record<string, string>)
    t.match(refused.json(), { statusCode: 403, code: 'DB_BACKUPS_CROSS_SITE' }, JSON.stringify(headers))
  }
  t.strictSame(await app.dbBackups.list(), { ids: [] })
  t.equal((await call('GET', '/overview', undefined, { 'sec-fetch-site': 'cross-site' })).statusCode, 200)
  const cli = await call('POST', '/backups', {}, { 'x-requested-with': 'fastify-couchdb-backups' })
  t.equal(cli.statusCode, 202)
})

t.test('the host refuses by its own check, whatever form its refusal has, and gives a token', async (t) => {
  const forms: Record<string, (reply: { code(status: number): { send(body: object): void } }) => unknown> = {
    throws: () => {
      throw Object.assign(new Error('forged'), { statusCode: 403 })
    },
    false: () => false,
    replies: (reply) => reply.code(403).send({ statusCode: 403 }),
    hangs: () => new Promise(() => {})
  }
  let form = 'throws'
  const { call, app } = await operatorHost(t, {
    timeout: 100,
    csrf: {
      check: (request, reply) =>
        request.headers['x-csrf-token'] === 'token' ? undefined : forms[form]?.(reply),
      token: () => 'token'
    }
  })
  for (form of Object.keys(forms))
    t.equal((await call('POST', '/backups', {})).statusCode, form === 'hangs' ? 500 : 403, form)
  t.strictSame(await app.dbBackups.list(), { ids: [] })
  const { csrf_token: token } = (await call('GET', '/overview')).json()
  t.equal((await call('POST', '/backups', {}, { 'x-csrf-token': token })).statusCode, 202)
})

t.test('a body that is wrong is refused before anything is done, and the field named', async (t) => {
  const { call, app, backUp } = await operatorHost(t)
  const id = await backUp()
  for (const [method, path, payload, field] of [
    ['POST', '/backups', { nope: 1 }, 'nope'],
    ['POST', '/prune', { dryRun: 'yes' }, 'dryRun'],
    ['POST', '/cancel', {}, 'id'],
    ['POST', `/backups/${id}/verify`, { depth: 'deep' }, 'depth'],
    ['POST', `/backups/${id}/restore`, { skip: { other: [] } }, 'skip/other'],
    ['POST', `/backups/${id}/preview`, { only: { system: { selector: { $nope: 1 } } } }, 'only'],
    ['GET', `/backups/${id}/diff?against=then`, undefined, 'against'],
    ['GET', '/overview?limit=1001', undefined, 'limit']
  ] as const) {
    const reply = await call(method, path, payload)
    t.equal(reply.statusCode, 400, path)
    t.match(reply.json().message, field, path)
  }
  t.equal((await app.dbBackups.list()).ids.length, 1)
})

t.test('a diff and a verification are told in lines, a failure before the first by its status', async (t) => {
  const { call, on, backUp } = await operatorHost(t)
  const components = on.couch.use(on.names.components)
  await components.insert({ _id: 'a', size: 1 } as object)
  const id = await backUp()
  await components.insert({ ...(await components.get('a')), size: 2 } as object)
  const [change, end, ...more] = linesOf(await call('GET', `/backups/${id}/diff?against=now&values=true`))
  t.match(change, {
    database: 'components',
    id: 'a',
    change: 'changed',
    fields: ['size'],
    values: [{ field: 'size', before: '1', after: '2' }]
  })
  t.strictSame([end, more], [{ end: true, changes: 1 }, []])
  const verified = linesOf(await call('POST', `/backups/${id}/verify`, { depth: 'data' }))
  t.match(verified.pop(), { report: { id, depth: 'data', good: true } })
  for (const line of verified) t.match(line, { running: true, id: /^verify_/ })
  t.equal((await call('POST', '/backups/03_ibp_db_backup_1/verify', {})).statusCode, 404)
  t.equal((await call('GET', '/backups/03_ibp_db_backup_1/diff?against=now')).statusCode, 404)
  t.match((await call('GET', '/overview')).json(), { backups: [{ verified: { good: true } }] })
})

t.test('a preview names the members that differ', async (t) => {
  const { call, on, backUp } = await operatorHost(t)
  const components = on.couch.use(on.names.components)
  await components.insert({ _id: 'a', size: 1, same: 1 } as object)
  const id = await backUp()
  await components.insert({ ...(await components.get('a')), size: 2, more: 1 } as object)
  const lines = linesOf(await call('POST', `/backups/${id}/preview`, {}))
  t.match(lines[0], { running: true })
  t.strictSame(
    { ...lines[1], fields: lines[1].fields.toSorted() },
    {
      database: 'components',
      id: 'a',
      change: 'changed',
      fields: ['more', 'size']
    }
  )
  t.strictSame(lines[2].outcome.changes, [{ database: 'components', id: 'a', change: 'changed' }])
})

t.test('a restore is started, followed, and told among the latest', async (t) => {
  const { call, on, backUp } = await operatorHost(t)
  const components = on.couch.use(on.names.components)
  await components.insert({ _id: 'a' })
  const id = await backUp()
  await components.destroy('a', (await components.get('a'))._rev)
  const { tx_id } = (await call('POST', `/backups/${id}/restore`, { safety: false })).json()
  const transaction = await poll('the restore', async () => {
    const told = (await call('GET', `/restores/${tx_id}`)).json()
    return told.status === 'pending' ? undefined : told
  })
  t.match(transaction, {
    status: 'success',
    by: 'ann',
    backup_id: id,
    databases: { components: { created: 1 } }
  })
  t.match((await call('GET', '/overview')).json().restores, [{ tx_id, status: 'success' }])
  t.equal((await call('GET', '/restores/unknown')).statusCode, 404)
})

t.test('backups are removed and pruned', async (t) => {
  const { call, app, backUp } = await operatorHost(t)
  const ids = [await backUp(), await backUp(), await backUp()]
  t.match((await call('DELETE', `/backups/${ids[2]}`)).json(), {
    statusCode: 409,
    code: 'DB_BACKUPS_PROTECTED'
  })
  t.match((await call('DELETE', `/backups/${ids[0]}`)).json(), { removed: [{ id: ids[0] }] })
  t.match((await call('POST', '/prune', { dryRun: true })).json(), {
    dryRun: true,
    removed: [{ id: ids[1] }]
  })
  t.match((await call('POST', '/prune', {})).json(), { dryRun: false, removed: [{ id: ids[1] }] })
  t.strictSame(await app.dbBackups.list(), { ids: [ids[2]] })
})

t.test('what runs is told, and cancelled by whom', async (t) => {
  const { call, app, gate, on } = await operatorHost(t)
  const pattern = new RegExp(`${on.names.sessions}/_changes`)
  const letGo = gate.hold(pattern)
  const { id } = (await call('POST', '/backups', {})).json()
  await gate.held(pattern)
  t.match((await call('GET', '/overview')).json(), {
    running: [{ operation: 'backup', id }],
    newest_good: null
  })
  const cancelled = await call('POST', '/cancel', { id })
  t.match([cancelled.statusCode, cancelled.json()], [202, { message: 'cancelling', id }])
  letGo()
  const summary = await poll('the end', async () => {
    const found = await app.dbBackups.summary(id)
    return found.in_progress ? undefined : found
  })
  t.equal(summary.error, 'cancelled by ann')
  await poll('nothing runs', () => (app.dbBackups.running.length === 0 ? true : undefined))
  t.match((await call('POST', '/cancel', { id })).json(), { statusCode: 404, code: 'DB_BACKUPS_NOT_RUNNING' })
})

t.test('a preview ends when its client breaks off', async (t) => {
  const { app, gate, on, backUp, as } = await operatorHost(t)
  const id = await backUp()
  await app.listen({ port: 0, host: '127.0.0.1' })
  const { port } = app.server.address() as AddressInfo
  const pattern = new RegExp(on.names.sessions)
  gate.hold(pattern)
  const request = send({
    port,
    method: 'POST',
    path: `/op/api/backups/${id}/preview`,
    headers: { ...as('manager'), ...SAME_SITE, 'content-type': 'application/json', 'content-length': 2 }
  })
  request.end('{}')
  const [response] = await once(request, 'response')
  const [line] = await once(response, 'data')
  t.match(JSON.parse(String(line)), { running: true, id: String })
  t.match(app.dbBackups.running, [{ operation: 'restore', dry_run: true }])
  request.destroy()
  await poll('nothing runs', () => (app.dbBackups.running.length === 0 ? true : undefined))
})
