import { randomBytes } from 'node:crypto'
import { createServer, request as httpRequest } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import nano, { type ServerScope } from 'nano'
import t, { type Test } from 'tap'
import { connectionOf } from '../lib/couch/connection.js'
import { apiOf } from './helpers/api.js'
import { setupDatabases, type TestDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'

/** Seconds that a session of these tests lasts. */
const SECONDS = 4

/** Starts a proxy with sessions like CouchDB's, which each answer renews and which end without requests. */
async function sessionsBefore(t: Test, { url }: TestDatabases) {
  const sessions = new Map<string, number>()
  const renewed = () => {
    const value = randomBytes(8).toString('hex')
    const ends = Date.now() + SECONDS * 1000
    sessions.set(value, ends)
    return `AuthSession=${value}; Version=1; Expires=${new Date(ends).toUTCString()}; Max-Age=${SECONDS}; Path=/; HttpOnly`
  }
  const server = createServer((request, response) => {
    if (request.url === '/_session') {
      request.resume()
      response.setHeader('set-cookie', renewed())
      return response.setHeader('content-type', 'application/json').end('{"ok":true}')
    }
    const [, value] = /^AuthSession=([^;]*)$/.exec(request.headers.cookie ?? '') ?? []
    if (!((sessions.get(value ?? '') ?? 0) > Date.now())) {
      request.resume()
      response.writeHead(401, { 'content-type': 'application/json' })
      return response.end('{"error":"unauthorized","reason":"the session is over"}')
    }
    const { method, headers } = request
    const onward = httpRequest(new URL(request.url!, url), { method, headers }, (answer) => {
      // a load balancer's cookie without an end, which nano ignores
      response.writeHead(answer.statusCode!, {
        ...answer.headers,
        'set-cookie': ['ROUTE=.1; Path=/', renewed()]
      })
      answer.pipe(response)
    })
    onward.on('error', () => response.destroy())
    request.pipe(onward)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** Logs a scope in for a few seconds. */
async function loggedIn(t: Test, on: TestDatabases): Promise<ServerScope> {
  const { origin, username, password } = new URL(on.url)
  if (!on.real) {
    const couch = nano(await sessionsBefore(t, on))
    await couch.auth('admin', 'secret')
    return couch
  }
  const setting = (value: string) =>
    on.couch.request({ method: 'PUT', path: '_node/_local/_config/chttpd_auth/timeout', body: value })
  const before = await setting(String(SECONDS))
  t.teardown(() => setting(String(before) || '600'))
  const couch = nano(origin)
  await couch.auth(decodeURIComponent(username), decodeURIComponent(password))
  return couch
}

t.test('a session that the server renews lasts as long as there are requests', async (t) => {
  const on = await setupDatabases(t)
  const couch = await loggedIn(t, on)
  const api = apiOf(await buildHost(t, { on, couch, timeouts: { lease: 2000 } }))
  const end = Date.now() + 3.5 * SECONDS * 1000
  let backups = 0
  while (Date.now() < end) {
    await api.backup()
    backups++
    await delay(SECONDS * 250)
  }
  t.ok(backups >= 4)
  const { jar } = (couch.config as unknown as { cookieJar: { jar: unknown[] } }).cookieJar
  t.equal(jar.length, 1, 'nothing piles up')
  await t.resolves(couch.db.list(), "nano's own requests go on with it")
})

t.test('a renewed session takes the place of the cookie that nano was made with', (t) => {
  const couch = nano({ url: 'http://127.0.0.1:9', cookie: 'AuthSession=old' } as never) as ServerScope
  const cookie = () => connectionOf(couch).headers.cookie
  const { renew } = connectionOf(couch)
  t.equal(cookie(), 'AuthSession=old')
  renew?.(undefined)
  renew?.('AuthSession=new; Path=/')
  renew?.('AuthSession=new; Path=/; Expires=some day')
  t.equal(cookie(), 'AuthSession=old', 'without an end it is not kept')
  renew?.([
    `Other=1; Expires=${new Date(Date.now() + 60_000).toUTCString()}; Path=/elsewhere`,
    `AuthSession=new; Expires=${new Date(Date.now() + 60_000).toUTCString()}`
  ])
  t.equal(cookie(), 'AuthSession=new')
  t.end()
})
