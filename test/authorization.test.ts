import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import dbBackups, { createMemoryWebhookStore } from '../lib/index.js'
import type { Authorize } from '../types/index.js'
import { apiOf } from './helpers/api.js'
import { setupDatabases } from './helpers/database.js'
import { buildHost, type TestHost } from './helpers/host.js'
import { spooledIn } from './helpers/spooled.js'

const ID = '03_ibp_db_backup_1592922855871'
const ROUTES = [
  { method: 'POST', path: '' },
  { method: 'PUT', path: `/${ID}/attachments/a`, payload: { attachment: 'x' } },
  { method: 'PUT', path: '', payload: { dbs: {} } },
  { method: 'PUT', path: `/${ID}` },
  { method: 'GET', path: `/${ID}` },
  { method: 'GET', path: '' }
] as const

async function spoolDirectory(t: Test): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'authorization-'))
  t.teardown(() => rm(directory, { recursive: true, force: true }))
  return directory
}

/** Every route at every prefix and version. */
function* everyRoute() {
  for (const prefix of ['/api', '/ak/api']) {
    for (const version of ['v1', 'v2', 'v3']) {
      for (const { path, ...route } of ROUTES) yield { ...route, url: `${prefix}/${version}/backups${path}` }
    }
  }
}

/** Milliseconds in which a request that was not stopped reaches the database. */
const LATE = 40

async function* slowly(body: object): AsyncGenerator<string> {
  await delay(LATE)
  yield JSON.stringify(body)
}

/** Returns everything that a request could have changed in the databases. */
async function nothingHappened(t: Test, { on, calls }: TestHost): Promise<void> {
  const { rows } = await on.couch.use(on.names.system).list()
  t.strictSame(rows, [], 'nothing was written')
  t.equal(calls.rebuildWhitelist, 0, 'nothing was restored')
}

t.test(
  'a request without credentials, or with wrong ones, is refused with 401, one without the action with 403',
  async (t) => {
    const host = await buildHost(t)
    for (const route of everyRoute()) {
      const what = `${route.method} ${route.url}`
      const nobody = await host.app.inject(route)
      t.equal(nobody.statusCode, 401, what)
      t.match(nobody.json(), { statusCode: 401, error: 'Unauthorized', message: 'unauthorized' })
      const wrong = await host.app.inject({ ...route, headers: { 'x-role': 'managers' } })
      t.equal(wrong.statusCode, 401, `${what}, wrong credentials`)
      const reader = await host.app.inject({ ...route, headers: host.as('reader') })
      t.equal(reader.statusCode, 403, what)
      t.match(reader.json(), { statusCode: 403, error: 'Forbidden', message: 'forbidden' })
    }
    await nothingHappened(t, host)
  }
)

t.test('a hook that throws any error refuses, and its text is not told', async (t) => {
  const thrown: unknown[] = [
    new Error('secret of the host'),
    Object.assign(new Error('secret of the host'), { statusCode: 200 }),
    Object.assign(new Error('secret of the host'), { code: 'ECONNREFUSED' }),
    'secret of the host'
  ]
  let next: unknown
  const host = await buildHost(t, {
    authorize() {
      throw next
    }
  })
  for (const route of everyRoute()) {
    for (next of thrown) {
      const reply = await host.app.inject(route)
      t.equal(reply.statusCode, 500, `${route.method} ${route.url}`)
      t.notMatch(reply.body, /secret/)
      t.equal(reply.json().message, 'the request could not be authorized')
    }
  }
  await nothingHappened(t, host)
})

t.test('a status that the hook chooses is told by its name', async (t) => {
  const slow = Object.assign(new Error('slow down'), { statusCode: 429 })
  const host = await buildHost(t, { authorize: () => Promise.reject(slow) })
  for (const route of everyRoute()) {
    const reply = await host.app.inject(route)
    t.match(reply.json(), { statusCode: 429, error: 'Too Many Requests', message: 'slow down' })
  }
  await nothingHappened(t, host)
})

t.test('a hook that throws nothing refuses', async (t) => {
  const host = await buildHost(t, {
    authorize: async () => {
      throw undefined
    }
  })
  for (const route of everyRoute()) t.equal((await host.app.inject(route)).statusCode, 500)
  await nothingHappened(t, host)
})

t.test('a hook that gives `false` refuses', async (t) => {
  const host = await buildHost(t, { authorize: (async () => false) as never })
  for (const route of everyRoute()) t.equal((await host.app.inject(route)).statusCode, 403)
  await nothingHappened(t, host)
})

t.test('a hook that does not answer refuses', async (t) => {
  const host = await buildHost(t, {
    authorize: () => new Promise<void>(() => {}),
    timeouts: { authorize: 50 }
  })
  const replies = await Promise.all([...everyRoute()].map((route) => host.app.inject(route)))
  for (const reply of replies) {
    t.equal(reply.statusCode, 500)
    t.equal(reply.json().message, 'the request could not be authorized')
  }
  await nothingHappened(t, host)
})

t.test('a hook that replies itself refuses', async (t) => {
  // differs from the schemas of replies
  const body = { who: 'goes there' }
  const hooks: Record<string, Authorize> = {
    'sends before it returns': (_request, _context, reply) => {
      reply.code(401).send(body)
    },
    'returns the reply': async (_request, _context, reply) => reply.code(401).send(body) as never,
    'sends a stream': (_request, _context, reply) => {
      reply
        .code(401)
        .type('application/json')
        .send(Readable.from(slowly(body)))
    },
    'sends and throws': (_request, _context, reply) => {
      reply.code(401).send(body)
      throw new Error('refused')
    }
  }
  for (const [how, authorize] of Object.entries(hooks)) {
    for (const onSend of [false, true]) {
      await t.test(`${how}${onSend ? ', with an asynchronous onSend hook' : ''}`, async (t) => {
        const on = await setupDatabases(t)
        const app = Fastify()
        t.teardown(() => app.close())
        if (onSend) {
          app.addHook('onSend', async (_request, _reply, payload) => {
            await delay(LATE)
            return payload
          })
        }
        let rebuilt = 0
        await app.register(dbBackups, {
          couch: on.couch,
          databases: on.names,
          authorize,
          webhooks: createMemoryWebhookStore(),
          rebuildWhitelist() {
            rebuilt++
          }
        })
        const asked = [...everyRoute()].map(async (route) => {
          const reply = await app.inject(route)
          t.equal(reply.statusCode, 401, `${route.method} ${route.url}`)
          t.strictSame(reply.json(), body)
        })
        await Promise.all(asked)
        // a request that continued would have shown by the time the server has closed
        await app.close()
        const { rows } = await on.couch.use(on.names.system).list()
        t.strictSame(rows, [], 'nothing was written')
        t.equal(rebuilt, 0)
      })
    }
  }
})

t.test('a hook that redirects or takes over the connection refuses', async (t) => {
  const redirecting = await buildHost(t, {
    authorize: (_request, _context, reply) => void reply.redirect('/login')
  })
  const hijacking = await buildHost(t, {
    authorize(_request, _context, reply) {
      reply.hijack()
      reply.raw.writeHead(418).end()
    }
  })
  for (const route of everyRoute()) {
    const reply = await redirecting.app.inject(route)
    t.equal(reply.statusCode, 302)
    t.equal(reply.headers.location, '/login')
    t.equal((await hijacking.app.inject(route)).statusCode, 418)
  }
  await nothingHappened(t, redirecting)
  await nothingHappened(t, hijacking)
})

t.test('the body is not read before the request is authorized', async (t) => {
  const directory = await spoolDirectory(t)
  const host = await buildHost(t, { spoolDirectory: directory, limits: { uploadBytes: 1000 } })
  const headers = { 'content-type': 'application/json' }
  const bodies = ['{"dbs":', 'not JSON', `{"dbs":{"athena_components":{"docs":["${'x'.repeat(300_000)}"]}}}`]
  for (const route of everyRoute()) {
    if (route.method === 'GET') continue
    for (const payload of bodies) {
      const reply = await host.app.inject({ ...route, headers, payload })
      t.equal(reply.statusCode, 401, `${route.method} ${route.url}`)
    }
    const wrongType = await host.app.inject({ ...route, headers: { 'content-type': 'text/x' }, payload: 'x' })
    t.equal(wrongType.statusCode, 401)
  }
  t.strictSame(await spooledIn(directory), [], 'nothing was spooled')
  await nothingHappened(t, host)
})

t.test('the body is neither parsed nor spooled while the hook runs', async (t) => {
  const directory = await spoolDirectory(t)
  let decide = () => {}
  const decided = new Promise<void>((resolve) => {
    decide = resolve
  })
  const host = await buildHost(t, {
    spoolDirectory: directory,
    async authorize() {
      await decided
      throw Object.assign(new Error('forbidden'), { statusCode: 403 })
    }
  })
  const headers = { 'content-type': 'application/json' }
  const payload = `{"dbs":{"athena_components":{"docs":["${'x'.repeat(300_000)}"]}}}`
  const asked = [...everyRoute()].map((route) =>
    host.app.inject(route.method === 'GET' ? route : { ...route, headers, payload })
  )
  await delay(LATE)
  t.strictSame(await spooledIn(directory), [], 'nothing is spooled')
  await nothingHappened(t, host)
  decide()
  for (const { statusCode } of await Promise.all(asked)) t.equal(statusCode, 403)
  t.strictSame(await spooledIn(directory), [], 'nothing was spooled')
  await nothingHappened(t, host)
})

t.test('the query and the parameters are not judged before the request is authorized', async (t) => {
  const host = await buildHost(t)
  for (const route of everyRoute()) {
    t.equal((await host.app.inject({ ...route, url: `${route.url}?unknown=1` })).statusCode, 401)
  }
  for (const path of ['/not_an_id', `/${'x'.repeat(10_000)}`]) {
    t.equal((await host.app.inject(`/api/v1/backups${path}`)).statusCode, 401)
  }
})

t.test('a refused upload leaves the server ready for the next request', async (t) => {
  const host = await buildHost(t)
  const origin = await host.app.listen({ port: 0, host: '127.0.0.1' })
  async function* body() {
    yield Buffer.from('{"dbs":{"athena_components":{"docs":[')
    // ends only when the server stops reading
    for (;;) yield Buffer.from(`${JSON.stringify({ _id: 'x'.repeat(60_000) })},`)
  }
  const upload = fetch(`${origin}/api/v1/backups`, {
    method: 'PUT',
    headers: { 'content-type': 'application/json' },
    body: ReadableStream.from(body()),
    duplex: 'half'
  } as RequestInit)
  const status = await upload.then(
    (response) => response.status,
    (error: Error) => error.message
  )
  t.ok(status === 401 || status === 'fetch failed', `${status}`)
  t.equal((await apiOf(host).call('GET')).statusCode, 200)
})

t.test('the transaction names the requester', async (t) => {
  const host = await buildHost(t, {
    authorize: (_request, { scheme }) => ({ name: `by ${scheme}`, uuid: '123' })
  })
  const session = await apiOf(host, '/api/v2').restore({ dbs: {} })
  t.match(session, { by: 'by session', uuid: '123' })
  const key = await apiOf(host, '/ak/api/v2').restore({ dbs: {} })
  t.match(key, { by: 'by api-key', uuid: '123' })
})
