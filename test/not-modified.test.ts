import t from 'tap'
import { apiOf } from './helpers/api.js'
import { buildHost } from './helpers/host.js'

t.test('a backup that the client has already is not sent again', async (t) => {
  const host = await buildHost(t)
  const api = apiOf(host)
  const id = await api.backup()
  const { etag } = (await api.call('GET', `/${id}`)).headers as { etag: string }
  const get = (headers: Record<string, string>) => api.call('GET', `/${id}`, undefined, headers)
  for (const tag of [etag, `W/${etag}`, `"a", ${etag}`, `"a",W/${etag} , "b"`, '*']) {
    const reply = await get({ 'if-none-match': tag })
    t.equal(reply.statusCode, 304, tag)
    t.equal(reply.body, '')
    t.match(reply.headers, { etag, 'cache-control': 'no-store' })
    t.notOk('content-type' in reply.headers)
    t.equal((await get({ 'if-none-match': tag, range: 'bytes=5-' })).statusCode, 304, 'before a range counts')
  }
  for (const tag of ['"a"', etag.slice(1, -1), `${etag}x`, '']) {
    t.equal((await get({ 'if-none-match': tag })).statusCode, 200, tag)
  }
  await api.call('PUT', `/${id}/attachments/a`, { attachment: 'x' })
  const changed = await get({ 'if-none-match': etag })
  t.equal(changed.statusCode, 200, 'with another attachment it is another')
  t.not(changed.headers.etag, etag)
})

t.test('of an unknown backup nobody has anything', async (t) => {
  const api = apiOf(await buildHost(t))
  const reply = await api.call('GET', '/03_ibp_db_backup_1', undefined, { 'if-none-match': '*' })
  t.equal(reply.statusCode, 404)
})

t.test('while a connection is kept, the reply is followed by the next one', async (t) => {
  const host = await buildHost(t)
  const id = await apiOf(host).backup()
  const url = `${await host.app.listen({ port: 0, host: '127.0.0.1' })}/api/v1/backups/${id}`
  const first = await fetch(url, { headers: host.as('manager') })
  const etag = first.headers.get('etag') as string
  await first.text()
  const again = await fetch(url, { headers: { ...host.as('manager'), 'if-none-match': etag } })
  t.equal(again.status, 304)
  const next = await fetch(url, { headers: host.as('manager') })
  t.equal(next.status, 200)
  // The server waits for the body to be read before it closes.
  await next.text()
})
