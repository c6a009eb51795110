import { execFileSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import type { Server } from 'node:http'
import Module from 'node:module'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { gzipSync, inflateSync } from 'node:zlib'
import t, { type Test } from 'tap'
import ts from 'typescript'
import { setupDatabases, type TestDatabases } from './helpers/database.js'
import { poll } from './helpers/poll.js'

/** Resolves `require('fastify-couchdb-backups')` as in a project where the package is installed. */
const resolver = Module as unknown as { _resolveFilename(name: string, ...rest: unknown[]): string }
const resolve = resolver._resolveFilename
resolver._resolveFilename = (name, ...rest) =>
  resolve.call(
    Module,
    name === 'fastify-couchdb-backups' ? join(__dirname, '../lib/index.ts') : name,
    ...rest
  )

const ATHENA = join(__dirname, '../examples/athena-host/athena')
const KEY = `Basic ${Buffer.from('key:secret').toString('base64')}`

// biome-ignore lint/suspicious/noExplicitAny: athena has no types
type Any = any
type Callback = (error: Any, result?: Any) => void

interface Athena {
  url: string
  on: TestDatabases
  ev: Record<string, string>
  tools: Any
  server: Server
  /** Resolves when a signal has ended the server. */
  ended: Promise<void>
  logged: string[]
  /** `METHOD path status` of each request, as metrics record them. */
  metrics: string[]
  notifications: Any[]
  told: Any[]
  rebuild: { answer(cb: Callback): void }
  call(
    method: string,
    path: string,
    options?: { headers?: object; body?: string | Buffer<ArrayBuffer> }
  ): Promise<Response>
}

/** Paths that hold what clients send, each with a pattern that finds it. */
function wildcards(stack: Any[]): [string, RegExp][] {
  return stack.flatMap(({ route, name, handle }) => {
    if (name === 'router') return wildcards(handle.stack)
    const paths: unknown[] = route ? [route.path].flat() : []
    return paths
      .filter((path): path is string => String(path).includes('/:'))
      .map((path): [string, RegExp] => [path, new RegExp(`^${path.replace(/:[^/]+/g, '.+')}$`)])
  })
}

/** @param chance of the schedule's jitter, from 0 to 1 */
async function startAthena(t: Test, chance = 0.999): Promise<Athena> {
  const on = await setupDatabases(t)
  const ev: Athena['ev'] = {
    DB_CONNECTION_STRING: on.url,
    DB_COMPONENTS: on.names.components,
    DB_SESSIONS: on.names.sessions,
    DB_SYSTEM: on.names.system,
    HOST_URL: 'https://console.example.com'
  }
  const [logged, metrics, notifications, told]: [string[], string[], Any[], Any[]] = [[], [], [], []]
  const rebuild: Athena['rebuild'] = { answer: (cb) => cb(null, []) }
  const log = (line: string) => logged.push(line)
  const logger = { level: 'debug', error: log, warn: log, info: log, debug: log, silly: log }
  let routes: [string, RegExp][] = []
  const tracked = (req: Any, res: Any, next: () => void) => {
    const { end } = res
    res.end = (chunk: unknown, encoding: unknown) => {
      res.end = end
      res.end(chunk, encoding)
      for (const notice of req._notifications ?? [])
        notifications.push({ ...notice, code: res.statusCode, user_agent: req.headers['user-agent'] })
    }
    next()
  }
  const refuse = (res: Any) => res.status(401).json({ error: 'unauthorized' })
  const signature = (body: Any) => createHash('sha256').update(JSON.stringify(body)).digest('hex')
  const tools: Any = {
    http_metrics: {
      start(req: Any, res: Any, next: () => void) {
        const path = req.path
        const { end } = res
        res.end = (chunk: unknown, encoding: unknown) => {
          res.end = end
          res.end(chunk, encoding)
          const masked = routes.find(([, pattern]) => pattern.test(path))?.[0] ?? path
          req._wildcard_path = masked
          metrics.push(`${req.method} ${masked} ${res.statusCode}`)
        }
        next()
      },
      set_wildcard_routes(app: Any) {
        routes = wildcards(app._router.stack)
      }
    },
    session(req: Any, _res: unknown, next: () => void) {
      req._tx_id = `tx${randomBytes(3).toString('hex')}`
      if (req.headers.cookie === 'session=manager') req.session = { email: 'someone@example.com' }
      next()
    },
    lockout: {
      reject_if_exceeded: (req: Any, res: Any, next: () => void) =>
        req.headers['user-agent'] === 'locked out' ? res.status(402).json({ error: 'locked out' }) : next()
    },
    middleware: {
      verify_settings_action_session: [
        tracked,
        (req: Any, res: Any, next: () => void) => (req.session ? next() : refuse(res))
      ],
      verify_settings_action_ak: [
        tracked,
        (req: Any, res: Any, next: () => void) => {
          const { authorization = '' } = req.headers
          req.using_api_key = 'key'
          if (authorization === KEY) return next()
          if (!authorization.startsWith('Signature ')) return refuse(res)
          if (authorization === `Signature ${signature(req.body)}` && req.body.authorize) return next()
          return refuse(res)
        }
      ],
      getEmail: (req: Any) => req.session?.email ?? req.using_api_key,
      getUuid: (req: Any) => (req.session ? 'uuid-of-someone' : null)
    },
    misc: { censorEmail: (email: string) => email.replace(/(?<=^.).*(?=@)/, '***') },
    ot_misc: { parse_versions: () => ({ tag: '2.5.0' }), server_is_closed: () => false },
    notifications: {
      procrastinate(req: Any, details: object) {
        req._notifications = [
          ...(req._notifications ?? []),
          {
            ...details,
            by: tools.misc.censorEmail(tools.middleware.getEmail(req)),
            tx_id: req._tx_id,
            api: `${req.method}:${req.path}`
          }
        ]
      }
    },
    component_lib: { rebuildWhiteList: (_req: unknown, cb: Callback) => rebuild.answer(cb) },
    wss1_athena: { broadcast: (message: Any) => told.push(message) },
    other_routes(router: Any) {
      return router.post('/api/v[123]/components', (req: Any, res: Any) => res.json(req.body))
    }
  }
  const ended = { resolve: () => {}, promise: Promise.resolve() }
  ended.promise = new Promise((done) => {
    ended.resolve = done
  })
  const { build_app, start_app } = require(join(ATHENA, 'app.js'))
  const { random } = Math
  // What the jitter of the schedule is made of: its first backup comes at once, or after the test.
  Math.random = () => chance
  const starting: Promise<Server> = start_app(build_app(logger, ev, tools), tools, 0, ended.resolve)
  const server = await starting.finally(() => {
    Math.random = random
  })
  if (!server.listening) await once(server, 'listening')
  t.teardown(async () => {
    for (const signal of ['SIGTERM', 'SIGINT']) process.removeAllListeners(signal)
    server.close()
    await tools.backups.fastify.close()
    server.closeAllConnections()
  })
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const call: Athena['call'] = (method, path, { headers, body } = {}) =>
    fetch(url + path, {
      method,
      body,
      headers: {
        authorization: KEY,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers
      }
    })
  return {
    url,
    on,
    ev,
    tools,
    server,
    ended: ended.promise,
    logged,
    metrics,
    notifications,
    told,
    rebuild,
    call
  }
}

async function json(status: number, reply: Promise<Response>): Promise<Any> {
  const response = await reply
  const text = await response.text()
  if (response.status !== status) throw new Error(`${response.status} ${text}`)
  return JSON.parse(text)
}

async function backUp(athena: Athena, options = {}): Promise<string> {
  const { id } = await json(202, athena.call('POST', '/ak/api/v3/backups', options))
  await poll(id, async () => {
    const backup = await json(200, athena.call('GET', `/ak/api/v3/backups/${id}`))
    return backup.in_progress ? undefined : true
  })
  // the header is written a moment before the lease is released
  return id
}

async function restored({ on }: Athena, { url }: { url: string }): Promise<Any> {
  return poll(url, async () => {
    const tx: Any = await on.couch.use(on.names.system).get(url.split('/').at(-1)!)
    return tx.status === 'pending' ? undefined : tx
  })
}

t.test('the six routes answer both schemes, and the url is athena’s of now', async (t) => {
  const athena = await startAthena(t)
  const { on, call, ev } = athena
  await on.couch.use(on.names.components).insert({ a: 1 } as object, 'peer')
  for (const [base, headers] of [
    ['/ak/api/v3', {}],
    ['/api/v2', { authorization: '', cookie: 'session=manager' }]
  ] as const) {
    ev.HOST_URL = `https://${base.length}.example.com`
    const id = await backUp(athena)
    t.ok((await json(200, call('GET', `${base}/backups`, { headers }))).ids.includes(id))
    const path = `${base}/backups/${id}`
    const name = 'x'.repeat(128)
    t.strictSame(
      await json(200, call('PUT', `${path}/attachments/${name}`, { headers, body: '{"attachment":"x"}' })),
      { message: 'ok', att_name: name }
    )
    const started = await json(202, call('PUT', path, { headers, body: '{}' }))
    t.match(started.url, ev.HOST_URL)
    t.match(await restored(athena, started), {
      status: 'success',
      by: base === '/api/v2' ? 's***@example.com' : 'key'
    })
    const sent = await json(200, call('GET', path, { headers }))
    t.match(sent, { requester: { name: 'key' }, ibp_versions: { tag: '2.5.0' } })
    const upload = await json(202, call('PUT', `${base}/backups`, { headers, body: JSON.stringify(sent) }))
    t.match(await restored(athena, upload), { status: 'success' })
  }
  t.ok(
    athena.told.some(({ type, status }) => type === 'webhook_tx' && status === 'success'),
    'browsers are told'
  )
})

t.test(
  'middleware stands as in athena: lockout first, uploads stream past the parsers, errors are its own',
  async (t) => {
    const athena = await startAthena(t)
    const { call } = athena
    const locked = await call('GET', '/ak/api/v3/backups', { headers: { 'user-agent': 'locked out' } })
    t.equal(locked.status, 402)
    t.equal(
      (await call('GET', '/ak/api/v3/backups', { headers: { authorization: 'Basic eA==' } })).status,
      401
    )
    t.equal((await call('GET', '/api/v3/backups')).status, 401, 'a key is no session')
    const big = JSON.stringify({
      dbs: { DB_COMPONENTS: { docs: [{ _id: 'big', text: 'x'.repeat(2 ** 21) }] } }
    })
    const large = `${big.slice(0, -1)},"_attachments":{"a":"${'A'.repeat(26 * 2 ** 20)}"}}`
    t.match(await restored(athena, await json(202, call('PUT', '/ak/api/v3/backups', { body: large }))), {
      status: 'success'
    })
    const wrong = await json(400, call('POST', '/api/v3/components', { body: '{' }))
    t.match(wrong, { msg: 'input error' }, 'the handler of the parsers’ errors is reached by other routes')
    t.strictSame(await json(200, call('POST', '/api/v3/components', { body: '{"a":1}' })), { a: 1 })
    for (const [method, path] of [
      ['GET', '/ak/api/v3/backups/x/y'],
      ['DELETE', '/ak/api/v3/backups'],
      ['GET', '/ak/api/v4/backups']
    ] as const) {
      const reply = await call(method, path, { headers: { authorization: '' } })
      t.strictSame(await reply.json(), { statusCode: 404, msg: 'route not found' }, `${method} ${path}`)
    }
    const options = await call('OPTIONS', '/api/v3/backups')
    t.equal(options.status, 200)
    t.match(options.headers.get('allow'), 'PUT')
    t.equal((await call('GET', '/ak/api/v3/backups/%zz')).status, 400)
    t.equal((await call('GET', '/AK/API/v3/Backups/')).status, 200, 'paths are matched as Express does')
  }
)

t.test('ids and names are masked in what athena records', async (t) => {
  const athena = await startAthena(t)
  const id = await backUp(athena)
  await athena.call('PUT', `/ak/api/v3/backups/${id}/attachments/secret-name`, { body: '{"attachment":"x"}' })
  await athena.call('GET', `/api/v2/backups/${id}`, { headers: { cookie: 'session=manager' } })
  const backups = '/backups/:backup_id'
  t.ok(athena.metrics.includes(`PUT /ak/api/v[123]${backups}/attachments/:att_name 200`))
  await poll('the end of the reply', () =>
    athena.metrics.find((line) => line === `GET /api/v[123]${backups} 200`)
  )
  t.notMatch(athena.metrics.join('\n'), new RegExp(`${id}|secret-name`))
})

/** Signs a request over its body, as athena's clients do. */
function signed(body: object) {
  const text = JSON.stringify({ ...body, authorize: { certificate: 'c', msp_id: 'm' } })
  const hash = createHash('sha256').update(text).digest('hex')
  return { body: text, headers: { authorization: `Signature ${hash}` } }
}

t.test('a signed request is verified over its body, which reaches the plugin', async (t) => {
  const athena = await startAthena(t)
  const { call, on } = athena
  const id = await backUp(athena, signed({}))
  const path = `/ak/api/v3/backups/${id}`
  t.equal((await call('PUT', `${path}/attachments/a`, signed({ attachment: 'x' }))).status, 200)
  t.match(await restored(athena, await json(202, call('PUT', path, signed({})))), { status: 'success' })
  const exact =
    '{"dbs":{"DB_COMPONENTS":{"docs":[{"_id":"n","n":12345678901234567890}]}},"authorize":{"certificate":"c"}}'
  const hash = createHash('sha256')
    .update(JSON.stringify(JSON.parse(exact)))
    .digest('hex')
  const started = await json(
    202,
    call('PUT', '/ak/api/v3/backups', { body: exact, headers: { authorization: `Signature ${hash}` } })
  )
  t.match(await restored(athena, started), { status: 'success' })
  if (on.real) {
    const { origin, username, password } = new URL(on.url)
    const authorization = `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`
    const document = await fetch(`${origin}/${on.names.components}/n`, { headers: { authorization } })
    t.match(await document.text(), '"n":12345678901234567890', 'an upload goes on as it came')
  }
  const forged = await call('POST', '/ak/api/v3/backups', {
    ...signed({}),
    headers: { authorization: 'Signature x' }
  })
  t.equal(forged.status, 401)
  const unknown = await json(400, call('PUT', path, signed({ more: 1 })))
  t.match(unknown.message, /more/, 'members beside the signature are checked')
})

t.test('a signed request may be gzip', async (t) => {
  const athena = await startAthena(t)
  const { call, on } = athena
  const zipped = (body: object) => {
    const { body: text, headers } = signed(body)
    return { body: gzipSync(text), headers: { ...headers, 'content-encoding': 'gzip' } }
  }
  await on.couch.use(on.names.components).insert({ a: 1 } as object, 'peer')
  const id = await backUp(athena, zipped({}))
  const path = `/ak/api/v3/backups/${id}`
  await json(200, call('PUT', `${path}/attachments/z`, zipped({ attachment: 'é 漢' })))
  t.match(await restored(athena, await json(202, call('PUT', path, zipped({})))), { status: 'success' })
  const backup = await json(200, call('GET', path))
  t.equal(Buffer.from(backup._attachments.z, 'base64').toString(), 'é 漢')
  const upload = await json(202, call('PUT', '/ak/api/v3/backups', zipped({ dbs: backup.dbs })))
  t.match(await restored(athena, upload), { status: 'success', databases: { components: { unchanged: 1 } } })
})

t.test(
  'the nightly backup is at 01:00 UTC, and a console without one gets its first at the start',
  async (t) => {
    const { tools, notifications } = await startAthena(t, 0)
    const { dbBackups } = tools.backups.fastify
    const last = await poll('the first backup', () => dbBackups.schedule.last)
    t.match(last, {
      result: 'made',
      due: new Date().setUTCHours(1, 0, 0, 0) - (new Date().getUTCHours() < 1 ? 86_400_000 : 0)
    })
    t.equal(dbBackups.schedule.next, last.due + 86_400_000)
    t.match(await dbBackups.summary(last.id), { in_progress: false, ibp_versions: { tag: '2.5.0' } })
    t.strictSame(notifications, [], 'nobody asked for it')
  }
)

t.test('athena’s notification names who, the api, its tx_id and the user agent', async (t) => {
  const athena = await startAthena(t)
  const id = await backUp(athena, { headers: { 'user-agent': 'a browser' } })
  const [notice, ...more] = athena.notifications
  t.match(notice, {
    message: `starting db backup '${id}'`,
    by: 'key',
    api: 'POST:/ak/api/v3/backups',
    tx_id: /^tx/,
    user_agent: 'a browser',
    code: 202
  })
  t.strictSame(more, [], 'other requests make none')
  await poll('the end', () => athena.logged.find((line) => line.includes('backup finished')))
  await (await athena.tools.backups.fastify.dbBackups.start()).finished
  t.equal(athena.notifications.length, 1, 'nor does one that nobody asked for')
})

t.test('a backup that is sent to another console has the form that athena restores', async (t) => {
  const athena = await startAthena(t)
  const { dbs } = athena.tools.backups
  await athena.on.couch.use(athena.on.names.components).insert({ a: 1 } as object, 'peer')
  const call = (name: string, ...args: unknown[]): Promise<Any> =>
    new Promise((resolve, reject) => {
      dbs[name](...args, (error: Any, result: Any) => (error ? reject(error) : resolve(result)))
    })
  const { id } = await call('athena_backup', {})
  const backup = await poll('the backup', async () => {
    const found = await call('get_backup', id)
    return found.in_progress ? undefined : found
  })
  t.strictSame(Object.keys(backup.dbs), ['DB_COMPONENTS', 'DB_SESSIONS', 'DB_SYSTEM'])
  const docs = JSON.parse(
    inflateSync(Buffer.from(backup.dbs.DB_COMPONENTS.compressed_docs, 'base64')).toString()
  )
  t.match(docs, [{ _id: 'peer', a: 1 }])
  t.notOk('docs' in backup.dbs.DB_COMPONENTS)
  t.match(await call('get_backup', 'none').catch((error: Any) => error), {
    statusCode: 400,
    msg: /backup_id/
  })
  const reply = await poll('a restore', async () => {
    const sent = await athena.call('PUT', '/ak/api/v3/backups', { body: JSON.stringify(backup) })
    const text = await sent.text()
    return sent.status === 202 ? JSON.parse(text) : undefined
  })
  t.match(await restored(athena, reply), { status: 'success', databases: { components: { unchanged: 1 } } })
})

t.test('the log of the plugin reaches athena’s', async (t) => {
  const athena = await startAthena(t)
  const id = await backUp(athena)
  const line = await poll('the line', () => athena.logged.find((one) => one.includes('backup finished')))
  t.match(line, /^\[backup\] backup finished /)
  t.match(line, id)
  t.notMatch(athena.logged.join('\n'), /secret|Basic /)
})

t.test(
  'a console without components is restored; other failures of its white list are told whole',
  async (t) => {
    const athena = await startAthena(t)
    const restore = async (error: unknown) => {
      athena.rebuild.answer = (cb) => cb(error)
      const { url } = await poll('a restore', async () => {
        const reply = await athena.call('PUT', '/ak/api/v3/backups', { body: '{"dbs":{}}' })
        const text = await reply.text()
        return reply.status === 202 ? (JSON.parse(text) as { url: string }) : undefined
      })
      return restored(athena, { url })
    }
    const nothing = { statusCode: 222, msg: 'no components exist', reason: 'missing', components: [] }
    t.match(await restore(nothing), { status: 'success' })
    for (const [error, said] of [
      [{ statusCode: 500, msg: 'could not write', reason: 'conflict' }, 'could not write: conflict'],
      [{ statusCode: 404, error: 'not_found', reason: 'missing' }, 'not_found: missing'],
      [{ msg: { nested: ['why'] } }, "{ nested: [ 'why' ] }"],
      [{ odd: 1 }, '{ odd: 1 }'],
      ['a string', 'a string'],
      [500, '500'],
      [new Error('an error'), 'an error']
    ] as const) {
      const tx = await restore(error)
      t.equal(tx.status, 'error')
      t.match(tx.athena_messages.at(-1), said)
    }
  }
)

t.test('a signal ends what runs, once', async (t) => {
  const athena = await startAthena(t)
  const { id } = await json(202, athena.call('POST', '/ak/api/v3/backups'))
  process.emit('SIGTERM')
  process.emit('SIGTERM')
  await athena.ended
  t.notOk(athena.server.listening)
  const header = (await athena.on.couch.use(athena.on.names.system).get(id)) as Any
  t.equal(header.in_progress, false)
  t.notOk(athena.logged.some((line) => line.includes('could not close')))
})

t.test('the page shows the file as it is', async (t) => {
  const page = await readFile(join(__dirname, '../docs/migrating-from-athena.md'), 'utf8')
  const file = await readFile(join(ATHENA, 'libs/backups.js'), 'utf8')
  t.ok(page.includes(`\`\`\`js\n${file}\`\`\``))
})

/** Returns the diff of `app.js` that the page shows. */
async function appDiff(): Promise<string> {
  const page = await readFile(join(__dirname, '../docs/migrating-from-athena.md'), 'utf8')
  return /^```diff\n([\s\S]*?)^```$/m.exec(page)![1]!
}

const { ATHENA_SOURCE } = process.env

t.test(
  'the diff of the page applies to athena',
  { skip: ATHENA_SOURCE ? false : 'ATHENA_SOURCE names no packages/athena' },
  async (t) => {
    const directory = t.testdir({ 'app.js': await readFile(join(ATHENA_SOURCE!, 'app.js'), 'utf8') })
    const options = { cwd: directory, input: await appDiff() }
    execFileSync('patch', ['-p1', '--fuzz=0'], options)
    const program = ts.createProgram([join(directory, 'app.js')], {
      allowJs: true,
      checkJs: true,
      noEmit: true,
      noResolve: true,
      types: ['node'],
      typeRoots: [join(__dirname, '../node_modules/@types')]
    })
    const undeclared = ts
      .getPreEmitDiagnostics(program)
      .filter(({ code }) => code === 2304)
      .map(({ messageText }) => String(messageText))
    t.strictSame(
      undeclared.filter((text) => !text.includes('__dirname')),
      [],
      'every name is declared'
    )
  }
)
