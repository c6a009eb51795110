import t, { type Test } from 'tap'
import { apiOf } from './helpers/api.js'
import { setupDatabases } from './helpers/database.js'
import { startGate } from './helpers/gate.js'
import { buildHost, type HostOptions } from './helpers/host.js'
import { load, seedDocuments } from './helpers/seed.js'

async function withBackup(t: Test, options: HostOptions = {}) {
  const on = options.on ?? (await setupDatabases(t))
  await load(on.couch.use(on.names.components), seedDocuments({ count: 5 }))
  const host = await buildHost(t, { on, ...options })
  const api = apiOf(host, '/ak/api/v3')
  const id = await api.backup()
  const append = (name: string, payload: object | string) =>
    api.call('PUT', `/${id}/attachments/${name}`, payload)
  return { on, host, api, id, append }
}

t.test('data are stored as they are and come back in base64', async (t) => {
  const { on, api, id, append } = await withBackup(t)
  const values = [
    'data',
    '',
    'bub\n',
    '\u0000\u001f"\\/',
    'é 漢字 😀',
    'eyJ0ZXN0IjoidGVzdCJ9',
    'x'.repeat(1_000_000)
  ]
  for (const [i, attachment] of values.entries()) {
    const reply = await append(`a${i}`, { attachment })
    t.equal(reply.statusCode, 200)
    t.strictSame(reply.json(), { message: 'ok', att_name: `a${i}` })
  }
  const { _attachments, ...backup } = await api.get(id)
  t.strictSame(
    Object.entries(_attachments!)
      .map(([name, data]) => [name, Buffer.from(data, 'base64').toString()])
      .sort(),
    values.map((value, i) => [`a${i}`, value])
  )
  for (const [i, value] of values.entries())
    t.equal(_attachments![`a${i}`], Buffer.from(value).toString('base64'))
  t.match(backup, { in_progress: false, doc_count: 5, dbs: { athena_components: { doc_count: 5 } } })
  const stored = (await on.couch.use(on.names.system).get(id)) as {
    _attachments?: Record<string, { content_type: string }>
  }
  t.equal(stored._attachments?.a0?.content_type, 'application/octet-stream')
})

t.test('a name may hold what a URL can', async (t) => {
  const { api, id, append } = await withBackup(t)
  const names = [
    'a/b/c',
    'with space',
    'ü漢😀',
    'a+b',
    'a%2Fb',
    '"quoted"',
    'a?b=c#d',
    'a&b',
    '0',
    'x'.repeat(100)
  ]
  for (const name of names) {
    const reply = await append(encodeURIComponent(name), { attachment: name })
    t.equal(reply.statusCode, 200, name)
    t.strictSame(reply.json(), { message: 'ok', att_name: name })
  }
  const { _attachments } = await api.get(id)
  const expected = Object.fromEntries(names.map((name) => [name, Buffer.from(name).toString('base64')]))
  t.strictSame(Object.keys(_attachments!).sort(), names.sort())
  t.same(_attachments, expected)
})

t.test('the same name replaces, and another is kept', async (t) => {
  const { host, api, id, append } = await withBackup(t)
  await append('a', { attachment: 'first' })
  await append('b', { attachment: 'other' })
  await append('a', { attachment: 'second' })
  const base64 = (text: string) => Buffer.from(text).toString('base64')
  t.same((await api.get(id))._attachments, { a: base64('second'), b: base64('other') })
  t.same((await host.app.dbBackups.summary(id)).attachments.sort(), ['a', 'b'])
})

t.test('several at the same time are all kept', async (t) => {
  const { api, id, append } = await withBackup(t)
  const names = Array.from({ length: 8 }, (_, i) => `a${i}`)
  const replies = await Promise.all(names.map((name) => append(name, { attachment: name })))
  for (const reply of replies) t.equal(reply.statusCode, 200)
  t.strictSame(Object.keys((await api.get(id))._attachments!).sort(), names)
})

t.test('a name that cannot be stored is refused', async (t) => {
  const { api, id, append } = await withBackup(t)
  const names = [
    '',
    '_a',
    '_',
    '%5Fa',
    'x'.repeat(513),
    encodeURIComponent('漢'.repeat(171)),
    'a%00b',
    'a%0Ab',
    '%7F'
  ]
  for (const name of names) {
    const reply = await append(name, { attachment: 'x' })
    t.equal(reply.statusCode, 400, name.slice(0, 20))
    t.match(reply.json(), { statusCode: 400, error: 'Bad Request', message: /att_name/ })
  }
  t.notOk('_attachments' in (await api.get(id)))
})

t.test('a body that is not as described is refused, and the message names the field', async (t) => {
  const { api, id, append } = await withBackup(t)
  const bodies: [body: object | string, message: RegExp][] = [
    [{}, /body\/attachment/],
    [{ attachment: 1 }, /body\/attachment/],
    [{ attachment: null }, /body\/attachment/],
    [{ attachment: ['x'] }, /body\/attachment/],
    [{ attachment: { x: 1 } }, /body\/attachment/],
    [{ attachment: true }, /body\/attachment/],
    [{ attachment: 'x', content_type: 'text/plain' }, /body\/content_type/],
    ['[]', /body/],
    ['"x"', /body/],
    ['null', /body/],
    ['{"attachment":"x"', /JSON/],
    ['{"attachment":"x","__proto__":{}}', /JSON/]
  ]
  for (const [body, message] of bodies) {
    const reply = await append('a', body)
    t.equal(reply.statusCode, 400, JSON.stringify(body))
    t.match(reply.json(), { statusCode: 400, error: 'Bad Request', message })
  }
  const none = await api.call('PUT', `/${id}/attachments/a`)
  t.equal(none.statusCode, 400)
  t.match(none.json().message, /body/)
  const query = await api.call('PUT', `/${id}/attachments/a?rev=1-x`, { attachment: 'x' })
  t.equal(query.statusCode, 400)
  t.match(query.json().message, /rev/)
  t.notOk('_attachments' in (await api.get(id)))
})

t.test('what is too large is refused', async (t) => {
  const attachmentBytes = 10_000
  const { api, id, append } = await withBackup(t, { limits: { attachmentBytes } })
  for (const attachment of [
    'x'.repeat(attachmentBytes + 1),
    'é'.repeat(attachmentBytes / 2 + 1),
    'x'.repeat(500_000)
  ]) {
    const reply = await append('a', { attachment })
    t.equal(reply.statusCode, 413, `${attachment.length}`)
    t.match(reply.json(), { statusCode: 413, error: 'Payload Too Large' })
  }
  t.equal(
    (await append('b', { attachment: 'x'.repeat(attachmentBytes) })).statusCode,
    200,
    'the limit is allowed'
  )
  t.strictSame(Object.keys((await api.get(id))._attachments!), ['b'])
})

t.test('to what is no backup is refused', async (t) => {
  const { on, api } = await withBackup(t)
  await load(on.couch.use(on.names.system), [{ _id: '03_ibp_db_backup_5', type: 'other' }])
  for (const id of ['03_ibp_db_backup_1592922855871', '03_ibp_db_backup_5']) {
    const reply = await api.call('PUT', `/${id}/attachments/a`, { attachment: 'x' })
    t.equal(reply.statusCode, 404)
    t.match(reply.json(), { statusCode: 404, error: 'Not Found', message: `there is no backup "${id}"` })
  }
  const wrong = await api.call('PUT', '/00_settings_athena/attachments/a', { attachment: 'x' })
  t.equal(wrong.statusCode, 400)
  t.match(wrong.json().message, /backup_id/)
})

t.test('what is appended while the backup runs is there when it is done', async (t) => {
  const on = await setupDatabases(t)
  const gate = await startGate(t, on)
  const { host, api } = await withBackup(t, { on, couch: gate.couch })
  const release = gate.hold(/_changes/)
  const { id } = (await api.call('POST')).json()
  await gate.held(/_changes/)
  const reply = await api.call('PUT', `/${id}/attachments/early`, { attachment: 'x' })
  t.equal(reply.statusCode, 200)
  t.match(await api.get(id), { in_progress: true, _attachments: { early: 'eA==' } })
  release()
  const summary = await host.waitForBackup(id)
  t.match(summary, { in_progress: false, attachments: ['early'] })
  t.notOk(summary.error)
  t.match(await api.get(id), { doc_count: 5, _attachments: { early: 'eA==' } })
})

t.test('through the decorator, a content type and bytes may be given', async (t) => {
  const { on, host, api, id } = await withBackup(t)
  const bytes = Buffer.from([0, 255, 128, 10])
  await host.app.dbBackups.attach(id, 'bytes', bytes, { contentType: 'application/x-apollo' })
  t.equal((await api.get(id))._attachments?.bytes, bytes.toString('base64'))
  const { _attachments } = (await on.couch.use(on.names.system).get(id)) as never
  t.equal(
    (_attachments as Record<string, { content_type: string }>).bytes?.content_type,
    'application/x-apollo'
  )
  for (const name of ['..', '.', '../x', '...']) {
    // No HTTP client sends the first two as they are.
    await host.app.dbBackups.attach(id, name, 'x')
    t.equal((await api.get(id))._attachments?.[name], 'eA==', name)
  }
  await t.rejects(host.app.dbBackups.attach(id, '_x', 'x'), { message: /att_name/ })
})
