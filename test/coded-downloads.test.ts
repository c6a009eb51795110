import type { Readable } from 'node:stream'
import { createGzip, gunzipSync } from 'node:zlib'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import t, { type Test } from 'tap'
import { type Api, apiOf } from './helpers/api.js'
import { setupDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { load, seedDocuments } from './helpers/seed.js'

/** Compresses a reply as @fastify/compress does. `looks` tells whether the hook respects Accept-Encoding. */
const compress =
  ({ looks }: { looks: boolean }) =>
  async (request: FastifyRequest, reply: FastifyReply, payload: unknown) => {
    if (typeof (payload as Readable)?.pipe !== 'function') return payload
    if (looks && !/gzip/.test(String(request.headers['accept-encoding']))) return payload
    reply.header('content-encoding', 'gzip').removeHeader('content-length')
    return (payload as Readable).pipe(createGzip())
  }

/** Adds the hook to every route, as @fastify/compress 8 and 9 do, but for those whose option `compress` is false. */
const plugin = (app: FastifyInstance) =>
  app.addHook('onRoute', (route) => {
    const { compress: setting } = route as { compress?: boolean }
    if (setting === false) return
    route.onSend = [route.onSend ?? [], compress({ looks: true })].flat() as typeof route.onSend
  })
const hook = (looks: boolean) => (app: FastifyInstance) => app.addHook('onSend', compress({ looks }))

async function setup(t: Test, extend: (app: FastifyInstance) => unknown) {
  const on = await setupDatabases(t)
  await load(on.couch.use(on.names.components), seedDocuments({ count: 20, size: 5000 }))
  const plain = apiOf(await buildHost(t, { on }))
  const id = await plain.backup()
  const whole = (await plain.call('GET', `/${id}`)).rawPayload
  const host = await buildHost(t, { on, extend: (app) => void extend(app) })
  return { api: apiOf(host), id, whole }
}

const get = (api: Api, id: string, headers: Record<string, string> = {}) =>
  api.call('GET', `/${id}`, undefined, { 'accept-encoding': 'gzip', ...headers })

t.test('a plugin that compresses replies leaves downloads alone', async (t) => {
  const { api, id, whole } = await setup(t, plugin)
  const coded = await get(api, id)
  t.ok(gunzipSync(coded.rawPayload).equals(whole), 'gzip, once')
  const first = await get(api, id, { 'accept-encoding': 'identity' })
  t.equal(first.headers['content-encoding'], undefined)
  t.match(first.headers, { 'cache-control': /no-transform/, etag: /^"/, 'accept-ranges': 'bytes' })
  t.ok(first.rawPayload.equals(whole))
  const rest = await get(api, id, { range: 'bytes=1000-', 'if-range': String(first.headers.etag) })
  t.equal(rest.statusCode, 206)
  t.equal(rest.headers['content-encoding'], undefined)
  t.ok(rest.rawPayload.equals(whole.subarray(1000)))
})

t.test('a download that a hook codes is marked as another, which is not resumed', async (t) => {
  const { api, id, whole } = await setup(t, hook(true))
  const coded = await get(api, id)
  t.equal(coded.headers['content-encoding'], 'gzip')
  t.match(coded.headers.etag, /^W\/"/)
  for (const name of ['accept-ranges', 'content-length']) t.equal(coded.headers[name], undefined, name)
  t.ok(gunzipSync(coded.rawPayload).equals(whole))

  const resumed = await get(api, id, { range: 'bytes=1000-', 'if-range': String(coded.headers.etag) })
  t.equal(resumed.statusCode, 200, 'the whole, since a weak tag proves nothing')

  const rest = await get(api, id, { range: 'bytes=1000-' })
  t.equal(rest.statusCode, 206)
  t.equal(rest.headers['content-encoding'], undefined, 'a part is not coded')
  t.equal(rest.headers['content-length'], String(whole.length - 1000))
  t.ok(rest.rawPayload.equals(whole.subarray(1000)))
})

t.test('a part that a hook codes all the same is not sent', async (t) => {
  const { api, id, whole } = await setup(t, hook(false))
  const part = await get(api, id, { range: 'bytes=1000-' })
  t.equal(part.statusCode, 500)
  t.match(part.json(), { code: 'DB_BACKUPS_CODED_PART', message: /no-transform/ })
  for (const name of ['etag', 'content-range', 'content-encoding', 'accept-ranges']) {
    t.equal(part.headers[name], undefined, name)
  }
  t.ok(gunzipSync((await get(api, id)).rawPayload).equals(whole), 'the whole is')
})
