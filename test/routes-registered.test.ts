import { Readable } from 'node:stream'
import Fastify, { type FastifyInstance } from 'fastify'
import nano from 'nano'
import t, { type Test } from 'tap'
import dbBackups, { createMemoryWebhookStore } from '../lib/index.js'
import { resolveOptions } from '../lib/options.js'
import type { DbBackupsOptions } from '../types/index.js'
import { apiOf } from './helpers/api.js'
import { setupDatabases, type TestDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { load } from './helpers/seed.js'

const ID = '03_ibp_db_backup_1592922855871'
/** Each route with an invalid request to which only this route replies so. */
const ROUTES = [
  ['POST', '', { wrong: 1 }, 400, /body\/wrong/],
  ['PUT', `/${ID}/attachments/a`, { attachment: 1 }, 400, /body\/attachment/],
  ['PUT', '', {}, 400, /"dbs" is missing/],
  ['PUT', `/${ID}`, {}, 400, /could not load backup doc/],
  ['GET', `/${ID}`, undefined, 404, undefined],
  ['GET', '', undefined, 200, undefined]
] as const

t.test('six routes answer at both prefixes and three versions, with the scheme of the prefix', async (t) => {
  const host = await buildHost(t)
  for (const [prefix, scheme] of [
    ['/api', 'session'],
    ['/ak/api', 'api-key']
  ]) {
    for (const version of ['v1', 'v2', 'v3']) {
      const api = apiOf(host, `${prefix}/${version}`)
      for (const [method, path, payload, status, message] of ROUTES) {
        host.calls.authorize.length = 0
        const reply = await api.call(method, path, payload)
        t.equal(reply.statusCode, status, `${method} ${prefix}/${version}${path}`)
        if (message) t.match(reply.json().message, message)
        t.strictSame(host.calls.authorize, [{ action: 'blockchain.optools.settings', scheme }])
      }
    }
  }
})

t.test('no other path has a route', async (t) => {
  const host = await buildHost(t)
  for (const base of [
    '/api/v0',
    '/api/v4',
    '/ak/api/v0',
    '/ak/api/v4',
    '/api',
    '/ak/api',
    '/ak/v1',
    '',
    '/API/v1'
  ]) {
    const api = apiOf(host, base)
    for (const [method, path, payload] of ROUTES) {
      t.equal((await api.call(method, path, payload)).statusCode, 404, `${method} ${base}${path}`)
    }
  }
  t.strictSame(host.calls.authorize, [], 'the host is not asked about routes of its own')
})

t.test('other methods and paths are not there', async (t) => {
  const host = await buildHost(t)
  const headers = host.as('manager')
  for (const method of ['HEAD', 'DELETE', 'PATCH', 'OPTIONS'] as const) {
    for (const path of ['', `/${ID}`, `/${ID}/attachments/a`]) {
      const { statusCode } = await host.app.inject({ method, url: `/api/v1/backups${path}`, headers })
      t.equal(statusCode, 404, `${method} ${path}`)
    }
  }
  for (const [method, path] of [
    ['POST', `/${ID}`],
    ['GET', `/${ID}/attachments/a`],
    ['GET', `/${ID}/attachments`],
    ['GET', `/${ID}/x`],
    ['PUT', `/${ID}/attachments/a/b`]
  ] as const) {
    const { statusCode } = await host.app.inject({ method, url: `/api/v1/backups${path}`, headers })
    t.equal(statusCode, 404, `${method} ${path}`)
  }
})

function optionsFor({ couch, names }: TestDatabases): DbBackupsOptions {
  return {
    couch,
    databases: names,
    authorize: () => ({ name: 'somebody' }),
    webhooks: createMemoryWebhookStore(),
    rebuildWhitelist() {}
  }
}

function fastify(t: Test): FastifyInstance {
  const app = Fastify()
  t.teardown(() => app.close())
  return app
}

t.test('registered twice in sibling scopes it is two consoles', async (t) => {
  const [first, second] = [await setupDatabases(t), await setupDatabases(t)]
  const app = fastify(t)
  const scopes: FastifyInstance[] = []
  for (const [prefix, on] of [
    ['/one', first],
    ['/two', second]
  ] as const) {
    await app.register(
      async (scope) => {
        scopes.push(scope)
        await scope.register(dbBackups, optionsFor(on))
      },
      { prefix }
    )
  }
  await load(first.couch.use(first.names.components), [{ _id: 'of the first' }])
  await load(second.couch.use(second.names.components), [{ _id: 'of the second' }])
  await app.ready()
  t.notOk('dbBackups' in app, 'the decorator belongs to the scope')

  for (const [i, prefix] of ['/one', '/two'].entries()) {
    const reply = await app.inject({ method: 'POST', url: `${prefix}/api/v1/backups` })
    t.equal(reply.statusCode, 202)
    const { id, url } = reply.json()
    t.equal(url, `http://localhost:80${prefix}/ak/api/v2/backups/${id}`)
    const { dbBackups: operations } = scopes[i]!
    while ((await operations.summary(id)).in_progress) await new Promise((resolve) => setImmediate(resolve))
    const sent = await app.inject(new URL(url).pathname)
    t.match(sent.json(), {
      dbs: { athena_components: { docs: [{ _id: ['of the first', 'of the second'][i] }] } }
    })
    t.strictSame((await app.inject(`${prefix}/api/v1/backups`)).json(), { ids: [id] })
    const other = await app.inject(`${['/two', '/one'][i]}/api/v1/backups/${id}`)
    t.equal(other.statusCode, 404)
  }
  t.equal((await app.inject('/api/v1/backups')).statusCode, 404)
})

t.test('a prefix given at registration is that of the routes, and of addresses', async (t) => {
  for (const prefix of ['/one', 'one', '/one/']) {
    const on = await setupDatabases(t)
    const app = fastify(t)
    await app.register(dbBackups, { ...optionsFor(on), prefix })
    const started = await app.inject({ method: 'POST', url: '/one/api/v1/backups' })
    t.equal(started.statusCode, 202, prefix)
    const { id, url } = started.json()
    t.equal(url, `http://localhost:80/one/ak/api/v2/backups/${id}`)
    t.equal((await app.inject(new URL(url).pathname)).statusCode, 200, 'where it can be read')
    const long = await app.inject(`/one/api/v1/backups/${'x'.repeat(200)}`)
    t.match(long.json(), { statusCode: 400, message: /backup_id/ })
    const unknown = await app.inject(`/one/api/v1/backups/${'x'.repeat(200)}/y`)
    t.equal(unknown.statusCode, 404)
    t.equal((await app.inject('/api/v1/backups')).statusCode, 404, 'not there without it')
    t.ok(app.dbBackups, 'the decorator is where the plugin is registered')
  }
})

t.test('a restore has the same address whether it is started over HTTP or by the decorator', async (t) => {
  for (const [outer, prefix, publicUrl] of [
    [undefined, '/one', 'https://example.com/console'],
    [undefined, 'one/', 'https://example.com'],
    ['/one', undefined, 'https://example.com'],
    ['/', 'one', 'https://example.com'],
    ['/outer/', '/one', 'https://example.com'],
    [undefined, undefined, 'https://example.com'],
    ['/outer', 'one', undefined]
  ]) {
    const webhooks = createMemoryWebhookStore()
    const options = { ...optionsFor(await setupDatabases(t)), webhooks, publicUrl, prefix }
    const app = fastify(t)
    const scopes: FastifyInstance[] = []
    const paths: string[] = []
    app.addHook('onRoute', ({ url }) => void paths.push(url))
    await app.register(
      async (scope) => {
        scopes.push(scope)
        await scope.register(dbBackups, options)
      },
      { prefix: outer }
    )
    await app.ready()
    const payload = { dbs: {} }
    const body = Readable.from([JSON.stringify(payload)])
    const { tx_id, finished } = await scopes[0]!.dbBackups.restore({ body })
    await finished
    const byDecorator = (await webhooks.get(tx_id))!.url.replace(tx_id, '')

    const uploads = paths.find((path) => path.endsWith('/ak/api/v1/backups'))!
    const reply = await app.inject({ method: 'PUT', url: uploads, payload })
    t.equal(reply.statusCode, 202, uploads)
    const id = reply.json().url.split('/').at(-1)
    const byHttp = (await webhooks.get(id))!.url.replace(id, '')
    const path = uploads.replace('/backups', '/webhooks/txs/')
    t.equal(byHttp, `${publicUrl ?? 'http://localhost:80'}${path}`)
    t.equal(byDecorator, `${publicUrl ?? ''}${path}`)
  }
})

t.test('a log level given at registration is that of the routes', async (t) => {
  const levels: string[] = []
  const on = await setupDatabases(t)
  const app = fastify(t)
  await app.register(dbBackups, {
    ...optionsFor(on),
    logLevel: 'error',
    authorize: (request) => void levels.push(request.routeOptions.logLevel)
  })
  await app.inject('/api/v1/backups')
  t.strictSame(levels, ['error'])
})

t.test('addresses follow the request, or what the host says', async (t) => {
  const on = await setupDatabases(t)
  const proxied = Fastify({ trustProxy: true })
  t.teardown(() => proxied.close())
  await proxied.register(dbBackups, optionsFor(on))
  const headers = { 'x-forwarded-proto': 'https', 'x-forwarded-host': 'console.example.com' }
  const restore = (app: FastifyInstance) =>
    app.inject({ method: 'PUT', url: '/api/v1/backups', headers, payload: { dbs: {} } })
  const urlOf = async (app: FastifyInstance) => {
    for (;;) {
      const reply = await restore(app)
      if (reply.statusCode === 202) return reply.json().url
    }
  }
  t.match(await urlOf(proxied), /^https:\/\/console\.example\.com\/ak\/api\/v1\/webhooks\/txs\/[0-9a-f]+$/)

  const direct = fastify(t)
  await direct.register(dbBackups, optionsFor(on))
  t.match(await urlOf(direct), /^http:\/\/localhost:80\//, 'a header of anybody is not believed')

  const told = fastify(t)
  await told.register(dbBackups, { ...optionsFor(on), publicUrl: 'https://example.com/console/' })
  t.match(await urlOf(told), /^https:\/\/example\.com\/console\/ak\/api\/v1\/webhooks\/txs\//)
})

t.test('the operations are there for the host', async (t) => {
  const { app } = await buildHost(t)
  for (const name of [
    'start',
    'restore',
    'get',
    'summary',
    'diff',
    'list',
    'attach',
    'remove',
    'prune',
    'rekey',
    'verify',
    'copy',
    'cancel',
    'transaction',
    'restores'
  ] as const) {
    t.type(app.dbBackups[name], 'function', name)
  }
  const all: string[] = []
  for (let of: object = app.dbBackups; of !== Object.prototype; of = Object.getPrototypeOf(of))
    all.push(...Object.getOwnPropertyNames(of))
  t.strictSame(
    all.sort(),
    [
      'attach',
      'cancel',
      'copy',
      'databases',
      'diff',
      'get',
      'list',
      'prune',
      'rekey',
      'remove',
      'restore',
      'restores',
      'running',
      'schedule',
      'start',
      'summary',
      'transaction',
      'verify'
    ],
    'and nothing else'
  )
  const { id, finished } = await app.dbBackups.start()
  t.match(await finished, { id, in_progress: false })
  t.strictSame(await app.dbBackups.list(), { ids: [id] })
  const { summary, body } = await app.dbBackups.get(id)
  const text = Buffer.concat(await body.toArray()).toString()
  t.match(JSON.parse(text), { id, doc_count: summary.doc_count })
  await t.rejects(app.dbBackups.get(ID), { code: 'DB_BACKUPS_NOT_FOUND', statusCode: 404 })
  await t.rejects(app.dbBackups.get('x'), { code: 'DB_BACKUPS_INVALID_PARAMETER', statusCode: 400 })
  await t.rejects(app.dbBackups.restore({ id: ID }), { code: 'DB_BACKUPS_NOT_FOUND' })
})

t.test('options that are missing or wrong end the registration, and are named', async (t) => {
  const on = await setupDatabases(t)
  const valid = optionsFor(on)
  const { names } = on
  const wrong: [options: object, option: string][] = [
    [{ authorize: undefined }, 'authorize'],
    [{ authorize: true }, 'authorize'],
    [{ rebuildWhitelist: undefined }, 'rebuildWhitelist'],
    [{ rebuildWhitelist: 'x' }, 'rebuildWhitelist'],
    [{ onEvent: {} }, 'onEvent'],
    [{ webhooks: undefined }, 'webhooks'],
    [{ webhooks: { create() {}, get() {} } }, 'webhooks'],
    [{ couch: undefined }, 'couch'],
    [{ couch: 'http://localhost:5984' }, 'couch'],
    [{ couch: {} }, 'couch'],
    [{ versions: 'x' }, 'versions'],
    [{ versions: null }, 'versions'],
    [{ versions: [] }, 'versions'],
    [{ databases: undefined }, 'databases'],
    [{ databases: { ...names, components: undefined } }, 'databases.components'],
    [{ databases: { ...names, sessions: '' } }, 'databases.sessions'],
    [{ databases: { ...names, system: '_users' } }, 'databases.system'],
    [{ databases: { ...names, system: '../x' } }, 'databases.system'],
    [{ databases: { ...names, backups: 'Upper' } }, 'databases.backups'],
    [{ backups: { couch: nano('http://127.0.0.1:9') } }, 'backups.database'],
    [{ backups: { couch: {}, database: 'kept' } }, 'backups.couch'],
    [{ backups: { couch: nano('http://127.0.0.1:9').use('x'), database: 'kept' } }, 'backups.couch'],
    [{ backups: { database: 'Upper' } }, 'backups.database'],
    [{ backups: { database: 'db_backups_scratch_x' } }, 'backups.database'],
    [{ backups: { database: 'kept', console: 'x' } }, 'backups.console'],
    [{ backups: { couch: nano('http://127.0.0.1:9'), database: 'kept', console: 'a b' } }, 'backups.console'],
    [{ backups: { server: 'x' } }, 'backups.server'],
    [{ backups: { database: 'kept' }, databases: { ...names, backups: 'other' } }, 'backups.database'],
    [{ databases: { ...names, users: 'x' } }, 'databases.users'],
    [{ databases: { ...names, sessions: names.components } }, 'databases'],
    [{ databases: { ...names, components: 'athena_system' } }, 'databases.components'],
    [{ databases: { ...names, sessions: 'components' } }, 'databases.sessions'],
    [{ limits: { uploadBytes: 0 } }, 'limits.uploadBytes'],
    [{ limits: { uploadBytes: '1' } }, 'limits.uploadBytes'],
    [{ limits: { nesting: 512 } }, 'limits.nesting'],
    [{ limits: { unknown: 1 } }, 'limits.unknown'],
    [{ timeouts: { authorize: -1 } }, 'timeouts.authorize'],
    [{ timeouts: { lease: 1 } }, 'timeouts.lease'],
    [{ timeouts: { unknown: 1 } }, 'timeouts.unknown'],
    [{ timeouts: { idle: 2 ** 31 } }, 'timeouts.idle'],
    [{ clientWebhook: { timeout: 2 ** 31 } }, 'clientWebhook.timeout'],
    [{ retry: { longest: 2 ** 31 } }, 'retry.longest'],
    [{ retry: { attempts: 0 } }, 'retry.attempts'],
    [{ retry: { unknown: 1 } }, 'retry.unknown'],
    [{ clientWebhook: { attempts: 1000 } }, 'clientWebhook.attempts'],
    [{ clientWebhook: { allow: 'x' } }, 'clientWebhook.allow'],
    [{ clientWebhook: { unknown: 1 } }, 'clientWebhook.unknown'],
    [{ publicUrl: 'example.com' }, 'publicUrl'],
    [{ publicUrl: 1 }, 'publicUrl'],
    [{ publicUrl: 'http://' }, 'publicUrl'],
    [{ publicUrl: 'https://example.com/?console=1' }, 'publicUrl'],
    [{ publicUrl: 'https://example.com/#console' }, 'publicUrl'],
    [{ publicUrl: 'https://admin:secret@example.com' }, 'publicUrl'],
    [{ publicURL: 'https://example.com' }, 'publicURL'],
    [{ clientWebhooks: { allow: () => false } }, 'clientWebhooks'],
    [{ excludeTypes: 'x' }, 'excludeTypes'],
    [{ excludeTypes: [1] }, 'excludeTypes.0'],
    [{ spoolDirectory: '' }, 'spoolDirectory'],
    [{ securitySchemes: { session: '' } }, 'securitySchemes.session'],
    [{ securitySchemes: { bearer: 'x' } }, 'securitySchemes.bearer']
  ]
  for (const [options, option] of wrong) {
    const app = Fastify()
    app.register(dbBackups, { ...valid, ...options } as DbBackupsOptions)
    const error: Error | undefined = await app.ready().then(
      () => undefined,
      (thrown) => thrown
    )
    t.ok(error?.message.includes(`option "${option}`), `${option}: ${error?.message}`)
    await app.close()
  }
})

t.test('an option that is undefined has its default', async (t) => {
  const on = await setupDatabases(t)
  const { names } = on
  const options = optionsFor(on)
  const standard = resolveOptions(options)
  const blank = (group: object) => Object.fromEntries(Object.keys(group).map((name) => [name, undefined]))
  const resolved = resolveOptions({
    ...options,
    databases: { ...names, backups: undefined },
    excludeTypes: undefined,
    limits: blank(standard.limits),
    timeouts: blank(standard.timeouts),
    retry: blank(standard.retry)
  })
  t.strictSame(resolved.databases, { ...names, backups: names.system })
  t.strictSame(resolved.limits, standard.limits)
  t.strictSame(resolved.timeouts, standard.timeouts)
  t.strictSame(resolved.retry, standard.retry)
})
