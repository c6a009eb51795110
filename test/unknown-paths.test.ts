import t from 'tap'
import { apiOf } from './helpers/api.js'
import { buildHost } from './helpers/host.js'

const ID = '03_ibp_db_backup_1592922855871'

t.test('a path below the backups that does not exist is answered as any other, to anybody', async (t) => {
  const host = await buildHost(t)
  for (const prefix of ['/api/v1', '/ak/api/v3']) {
    for (const [method, path] of [
      ['GET', `/${ID}/attachments`],
      ['GET', `/${ID}/attachments/a`],
      ['GET', `/${ID}/x`],
      ['GET', `/${'x'.repeat(200)}/y`],
      ['PUT', `/${ID}/attachments/a/b`],
      ['PUT', `/${ID}/attachments/${'x'.repeat(200)}/b`],
      ['PUT', `/${ID}/x`],
      ['DELETE', `/${ID}`],
      ['PATCH', ''],
      ['HEAD', `/${ID}`],
      ['OPTIONS', '']
    ] as const) {
      const url = `${prefix}/backups${path}`
      const reply = await host.app.inject({ method, url, payload: method === 'PUT' ? '{}' : undefined })
      t.equal(reply.statusCode, 404, `${method} ${url.slice(0, 60)}`)
      if (method === 'HEAD') continue
      const elsewhere = await host.app.inject({ method, url: '/nowhere' })
      t.strictSame(
        reply.json(),
        { ...elsewhere.json(), message: `Route ${method}:${url} not found` },
        'as elsewhere'
      )
    }
  }
  t.strictSame(host.calls.authorize, [], 'authorize was not called')
})

t.test('a long id and a long name are for those who may ask', async (t) => {
  const host = await buildHost(t)
  for (const [method, path] of [
    ['GET', `/${'x'.repeat(200)}`],
    ['PUT', `/${'x'.repeat(200)}`],
    ['PUT', `/${ID}/attachments/${'x'.repeat(200)}`]
  ] as const) {
    for (const [role, status] of [
      ['none', 401],
      ['reader', 403]
    ] as const) {
      const reply = await host.app.inject({
        method,
        url: `/api/v1/backups${path}`,
        headers: host.as(role),
        payload: method === 'PUT' ? '{"attachment":"x"}' : undefined
      })
      t.equal(reply.statusCode, status, `${method} ${path.slice(0, 60)} as ${role}`)
    }
  }
  t.equal(host.calls.authorize.length, 6, 'once for each')
  const api = apiOf(host)
  for (const method of ['GET', 'PUT'] as const) {
    const reply = await api.call(method, `/${'x'.repeat(200)}`)
    t.match(reply.json(), { statusCode: 400, message: 'params/backup_id is not the id of a backup' })
  }
})
