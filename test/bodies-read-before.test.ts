import { once } from 'node:events'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import type { FastifyInstance, preParsingHookHandler } from 'fastify'
import t from 'tap'
import { apiOf, backupOf } from './helpers/api.js'
import { buildHost } from './helpers/host.js'

const BACKUP = backupOf([{ _id: 'first' }, { _id: 'second', text: 'x'.repeat(300_000) }])
const READ = { statusCode: 500, code: 'DB_BACKUPS_BODY_ALREADY_READ', message: /the host has read the body/ }

/**
 * Reads bodies as fastify-raw-body 5 does when it is global: an onRoute hook gives every route a preParsing hook that
 * collects the body, unless the route's configuration says `rawBody: false`.
 */
function rawBodies(app: FastifyInstance, { optOut = true, runFirst = false } = {}): string[] {
  const read: string[] = []
  const collect: preParsingHookHandler = (request, _reply, payload, done) => {
    read.push(request.url)
    buffer(runFirst ? request.raw : payload).catch(() => {})
    done(null, payload)
  }
  app.addHook('onRoute', (route) => {
    const { rawBody } = (route.config ?? {}) as { rawBody?: boolean }
    if (route.method === 'GET' || (optOut && rawBody === false)) return
    const own = [route.preParsing ?? []].flat() as preParsingHookHandler[]
    route.preParsing = (runFirst ? [collect, ...own] : [...own, collect]) as typeof route.preParsing
  })
  return read
}

t.test('a plugin that collects bodies leaves these routes alone', async (t) => {
  for (const runFirst of [false, true]) {
    let read: string[] = []
    const host = await buildHost(t, {
      extend(app) {
        read = rawBodies(app, { runFirst })
        app.post('/other', async (request) => request.body)
      }
    })
    const api = apiOf(host)
    const id = await api.backup()
    t.equal((await api.call('PUT', `/${id}/attachments/a`, { attachment: 'x' })).statusCode, 200)
    t.equal((await api.restore(id)).status, 'success')
    t.equal((await api.restore(BACKUP)).status, 'success')
    await host.app.inject({ method: 'POST', url: '/other', payload: { a: 1 } })
    t.strictSame(read, ['/other'], 'but no others')
  }
})

/** Reads the whole body in a hook of the host, before the routes get it. */
const HOOKS: Record<string, (app: FastifyInstance) => void> = {
  onRequest: (app) =>
    app.addHook('onRequest', async (request) => {
      await buffer(request.raw)
    }),
  preParsing: (app) =>
    app.addHook('preParsing', async (_request, _reply, payload) => {
      await buffer(payload as Readable)
      return payload as never
    }),
  'a listener that lets it flow': (app) =>
    app.addHook('preParsing', async (_request, _reply, payload) => {
      const first = once(payload as Readable, 'data')
      await first
      return payload as never
    })
}

t.test('a body that a hook has read is told as such, on every route', async (t) => {
  for (const [name, extend] of Object.entries(HOOKS)) {
    const plain = await buildHost(t)
    const id = await apiOf(plain).backup()
    const host = await buildHost(t, { on: plain.on, extend })
    const api = apiOf(host)
    for (const [path, payload] of [
      ['', BACKUP],
      [`/${id}`, { client_webhook_url: 'http://127.0.0.1:9' }],
      [`/${id}/attachments/a`, { attachment: 'x' }]
    ] as const) {
      const reply = await api.call('PUT', path, payload)
      t.equal(reply.statusCode, 500, `${name}: ${path}`)
      t.match(reply.json(), READ)
    }
    t.strictSame((await host.on.fetchAll(host.on.names.components)).size, 0, 'nothing was written')
  }
})

t.test('a hook may give another stream of the same bytes', async (t) => {
  const host = await buildHost(t, {
    extend: (app) =>
      app.addHook('preParsing', async (_request, _reply, payload) =>
        Readable.from([await buffer(payload as Readable)], { objectMode: false })
      )
  })
  t.equal((await apiOf(host).restore(BACKUP)).status, 'success')
})

t.test('a stream that was read is told to those who give it to the decorator', async (t) => {
  const { app } = await buildHost(t)
  const read = Readable.from([JSON.stringify(BACKUP)])
  await read.toArray()
  await t.rejects(app.dbBackups.restore({ body: read }), READ)
  const closed = Readable.from([JSON.stringify(BACKUP)]).destroy()
  await t.rejects(app.dbBackups.restore({ body: closed }), READ)
})
