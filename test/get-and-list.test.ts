import { createServer } from 'node:http'
import nano from 'nano'
import t from 'tap'
import { apiOf } from './helpers/api.js'
import { setupDatabases } from './helpers/database.js'
import { startGate } from './helpers/gate.js'
import { buildHost } from './helpers/host.js'
import { listen } from './helpers/listen.js'
import { poll } from './helpers/poll.js'
import { load, seedDocuments } from './helpers/seed.js'

t.test('a backup has the shape of the contract', async (t) => {
  const on = await setupDatabases(t)
  await load(on.couch.use(on.names.components), [{ _id: 'a', type: 'fabric-peer' }])
  const api = apiOf(await buildHost(t, { on, versions: { tag: '2.5.0-26' } }))
  const id = await api.backup()
  await api.call('PUT', `/${id}/attachments/my-attachment1`, { attachment: 'bub' })
  const reply = await api.call('GET', `/${id}`)
  t.equal(reply.statusCode, 200)
  t.match(reply.headers, {
    'content-type': 'application/json; charset=utf-8',
    'cache-control': 'no-store, no-transform'
  })
  const backup = reply.json()
  t.strictSame(Object.keys(backup), [
    'id',
    'backup_version',
    'ibp_versions',
    'requester',
    'doc_count',
    'in_progress',
    'type',
    'start_timestamp',
    'end_timestamp',
    'elapsed',
    'chain_length',
    'added_bytes',
    'dbs',
    '_attachments'
  ])
  const database = (docs: object[]) => ({
    start_timestamp: Number,
    finish_timestamp: Number,
    last_sequence: String,
    doc_count: docs.length,
    docs
  })
  t.match(backup, {
    id,
    backup_version: '1.0.0',
    ibp_versions: { tag: '2.5.0-26' },
    doc_count: 1,
    in_progress: false,
    type: 'athena_backup',
    start_timestamp: Number,
    end_timestamp: Number,
    elapsed: String,
    dbs: {
      athena_components: database([{ _id: 'a', _rev: /^1-/, type: 'fabric-peer' }]),
      athena_sessions: database([]),
      athena_system: database([])
    },
    _attachments: { 'my-attachment1': Buffer.from('bub').toString('base64') }
  })
  t.notMatch(reply.body, /"storage"|backup_chunk/, 'how it is stored is not told')
})

t.test('an unknown backup is a 404', async (t) => {
  const on = await setupDatabases(t)
  const api = apiOf(await buildHost(t, { on }))
  await load(on.couch.use(on.names.system), [{ _id: '03_ibp_db_backup_7', type: 'other', secret: 1 }])
  for (const id of ['03_ibp_db_backup_1592922855871', '03_ibp_db_backup_7']) {
    const reply = await api.call('GET', `/${id}`)
    t.equal(reply.statusCode, 404)
    t.strictSame(reply.json(), { statusCode: 404, error: 'not_found', reason: 'missing' })
  }
})

t.test('an id that no backup can have is refused, and nothing is read', async (t) => {
  const on = await setupDatabases(t)
  const gate = await startGate(t, on)
  const api = apiOf(await buildHost(t, { on, couch: gate.couch }))
  const ids = [
    '',
    '..%2Fx',
    '%2E%2E%2F_users',
    '_design%2Fx',
    '_all_docs',
    '_local%2Fx',
    '00_settings_athena',
    '03_ibp_db_backup_',
    '03_ibp_db_backup_1x',
    '03_ibp_db_backup_1%0A',
    '03_ibp_db_backup_1%2F..%2Fx',
    '03_ibp_db_backup_1%3Frev=1',
    ' 03_ibp_db_backup_1',
    `03_ibp_db_backup_${'1'.repeat(21)}`,
    'x'.repeat(101),
    'x'.repeat(10_000),
    `03_ibp_db_backup_${'1'.repeat(10_000)}`
  ]
  for (const id of ids) {
    for (const [method, path] of [
      ['GET', `/${id}`],
      ['PUT', `/${id}`],
      ['PUT', `/${id}/attachments/a`]
    ] as const) {
      if (id === '' && path === '/') continue
      const reply = await api.call(method, path, path.endsWith('/a') ? { attachment: 'x' } : undefined)
      t.equal(reply.statusCode, 400, `${method} ${path.slice(0, 60)}`)
      t.match(reply.json(), { statusCode: 400, error: 'Bad Request', message: /backup_id/ })
    }
  }
  // the server recovers interrupted operations and reads the list of backups when it starts
  const ofStart =
    /_system\/_bulk_get$|\/_all_docs\?startkey=%22athena_backup_notice|\/_all_docs\?startkey=%2203_ibp_db_backup_%22&endkey=[^&]+$/
  t.strictSame(
    gate.requests.filter((line) => !ofStart.test(line)),
    []
  )
})

t.test('unknown query keys are refused', async (t) => {
  const host = await buildHost(t)
  const api = apiOf(host)
  const id = await api.backup()
  for (const [method, path] of [
    ['GET', ''],
    ['GET', `/${id}`],
    ['POST', '']
  ] as const) {
    for (const query of ['limit=1', 'rev=1-a', 'attachments=true&x=y']) {
      const reply = await api.call(method, `${path}?${query}`)
      t.equal(reply.statusCode, 400, `${method} ${path}?${query}`)
      t.match(reply.json(), { statusCode: 400, error: 'Bad Request' })
      t.ok(reply.json().message.includes(query.split('=')[0]))
    }
  }
  t.strictSame((await api.call('GET')).json(), { ids: [id] })
})

t.test('a body where none is needed', async (t) => {
  const host = await buildHost(t)
  const api = apiOf(host)
  const unknown = await api.call('POST', '', { databases: ['system'] })
  t.equal(unknown.statusCode, 400)
  t.match(unknown.json().message, /databases/)
  for (const body of ['', 'null', '{}']) {
    const reply = await api.call('POST', '', body, { 'content-type': 'application/json' })
    t.equal(reply.statusCode, 202, body)
    await host.waitForBackup(reply.json().id)
  }
})

t.test('a backup is sent while it is still being read', async (t) => {
  const on = await setupDatabases(t)
  const gate = await startGate(t, on)
  await load(on.couch.use(on.names.components), seedDocuments({ count: 140, size: 100_000 }), 20)
  const host = await buildHost(t, { on, couch: gate.couch })
  const id = await apiOf(host).backup()
  const { rows } = await on.couch
    .use(on.names.system)
    .list({ startkey: 'backup_chunk_', endkey: 'backup_chunk_z' })
  t.ok(rows.length > 3, `${rows.length} chunks`)
  const last = rows.at(-1)!.id

  const release = gate.hold(new RegExp(`GET /[^/]+/${last}/`))
  const origin = await host.app.listen({ port: 0, host: '127.0.0.1' })
  const response = await fetch(`${origin}/api/v1/backups/${id}`, { headers: host.as('manager') })
  t.equal(response.status, 200)
  const reader = response.body!.getReader()
  const pieces: Uint8Array[] = []
  let received = 0
  while (received < 1_000_000) {
    const { value, done } = await reader.read()
    if (done) break
    pieces.push(value)
    received += value.length
  }
  t.ok(received >= 1_000_000, 'documents have come before the last chunk could be read')
  release()
  for (;;) {
    const { value, done } = await reader.read()
    if (done) break
    pieces.push(value)
  }
  const backup = JSON.parse(Buffer.concat(pieces).toString())
  t.equal(backup.dbs.athena_components.docs.length, 140)
})

t.test('the list is empty before the backups database is created', async (t) => {
  const on = await setupDatabases(t)
  const names = { ...on.names, backups: `${on.names.system}_backups` }
  t.teardown(() => on.couch.db.destroy(names.backups))
  const host = await buildHost(t, { on, databases: names })
  const api = apiOf(host)
  t.strictSame((await api.call('GET')).json(), { ids: [] })
  t.strictSame(await host.app.dbBackups.list(), { ids: [] })
  const id = await api.backup()
  t.strictSame((await api.call('GET')).json(), { ids: [id] })
})

t.test('a 404 that does not come from CouchDB is not taken for an empty list', async (t) => {
  const server = createServer((request, response) => {
    request.resume()
    response.writeHead(404, { 'content-type': 'text/html' }).end('<html>nothing here</html>')
  })
  const origin = await listen(t, server)
  const host = await buildHost(t, { couch: nano(origin) })
  t.equal((await apiOf(host).call('GET')).statusCode, 502)
})

t.test('a backup that a later version has stored is refused, not misread', async (t) => {
  const on = await setupDatabases(t)
  const api = apiOf(await buildHost(t, { on }))
  const id = await api.backup()
  const system = on.couch.use(on.names.system)
  const header = (await system.get(id)) as unknown as { storage: { layout: number } }
  t.equal(header.storage.layout, 3, 'what this version writes')
  header.storage.layout += 2
  await system.insert(header as never)
  for (const method of ['GET', 'PUT'] as const) {
    const reply = await api.call(method, `/${id}`)
    t.equal(reply.statusCode, 400)
    t.match(reply.json(), { code: 'DB_BACKUPS_UNKNOWN_LAYOUT', message: /later version/ })
  }
  t.strictSame((await api.call('GET')).json().ids, [id])
})

t.test('a list does not read headers again that it knows', async (t) => {
  const on = await setupDatabases(t)
  const gate = await startGate(t, on)
  const api = apiOf(await buildHost(t, { on, couch: gate.couch }))
  const ids = [await api.backup(), await api.backup()]
  const asked = async () => {
    const before = gate.requests.length
    t.strictSame((await api.call('GET')).json(), { ids })
    return gate.requests.slice(before).filter((line) => line.includes('03_ibp_db_backup_1'))
  }
  // What ends a backup may read its header meanwhile.
  await poll('a list that reads none', async () => (await asked()).length === 0 || undefined)
})
