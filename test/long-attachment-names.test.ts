import Fastify from 'fastify'
import t from 'tap'
import dbBackups, { createMemoryWebhookStore } from '../lib/index.js'
import { apiOf } from './helpers/api.js'
import { setupDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'

const NAMES = ['x'.repeat(101), 'x'.repeat(128), 'ü'.repeat(128), '😀'.repeat(128), `${'a/'.repeat(60)}%2F`]

t.test('names of 128 characters are taken, whatever they are, and come back', async (t) => {
  for (const server of [
    {},
    { routerOptions: { maxParamLength: 1000 } },
    { routerOptions: { maxParamLength: 5 } }
  ]) {
    const host = await buildHost(t, { server })
    // ids are parameters as well
    const { id, finished } = await host.app.dbBackups.start()
    await finished
    const api = apiOf(host)
    if (server.routerOptions?.maxParamLength === 5) continue
    for (const name of NAMES) {
      const reply = await api.call('PUT', `/${id}/attachments/${encodeURIComponent(name)}`, {
        attachment: name
      })
      t.strictSame(reply.json(), { message: 'ok', att_name: name })
    }
    const sent = await api.get(id)
    t.strictSame(
      sent._attachments,
      Object.fromEntries(NAMES.map((name) => [name, Buffer.from(name).toString('base64')])),
      'each is in the backup'
    )
    t.match(await api.restore(sent), { status: 'success' }, 'which can be uploaded')
  }
})

t.test('a name that is too long is refused, and says how long it may be', async (t) => {
  const host = await buildHost(t)
  const api = apiOf(host)
  const id = await api.backup()
  for (const name of ['x'.repeat(513), '😀'.repeat(129), `${'x'.repeat(120)}\u0000`, `_${'x'.repeat(120)}`]) {
    const reply = await api.call('PUT', `/${id}/attachments/${encodeURIComponent(name)}`, { attachment: 'x' })
    t.match(reply.json(), { statusCode: 400, code: 'DB_BACKUPS_INVALID_PARAMETER', message: /^att_name / })
  }
  const wrong = await api.call('PUT', `/${id}/attachments/${'x'.repeat(128)}`, { attachment: 1 })
  t.match(
    wrong.json(),
    { statusCode: 400, message: /body\/attachment/ },
    'its body is checked as for a short one'
  )
  const none = await api.call('PUT', `/none/attachments/${'x'.repeat(128)}`, { attachment: 'x' })
  t.match(none.json(), { statusCode: 400, message: /backup_id/ })
})

t.test('below a prefix of the host as well', async (t) => {
  const { couch, names } = await setupDatabases(t)
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(
    async (scope) => {
      await scope.register(dbBackups, {
        couch,
        databases: names,
        authorize: () => undefined,
        webhooks: createMemoryWebhookStore(),
        rebuildWhitelist() {}
      })
      scope.addHook('onReady', async () => {})
    },
    { prefix: '/console' }
  )
  const url = '/console/api/v1/backups'
  const { id } = (await app.inject({ method: 'POST', url })).json()
  const name = 'x'.repeat(128)
  const reply = await app.inject({
    method: 'PUT',
    url: `${url}/${id}/attachments/${name}?`,
    payload: { attachment: 'x' }
  })
  t.strictSame(reply.json(), { message: 'ok', att_name: name })
  const sub = await app.inject({
    method: 'PUT',
    url: `${url}/${id}/attachments/${name}/x`,
    payload: { attachment: 'x' }
  })
  t.equal(sub.statusCode, 404)
})
