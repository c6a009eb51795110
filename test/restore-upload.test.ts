import { createHash } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { deflateSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { apiOf, backupOf } from './helpers/api.js'
import { compareDatabases, DATABASES, setupDatabases } from './helpers/database.js'
import { buildHost, type HostOptions } from './helpers/host.js'
import { bytesOf, hostileDocuments, load, seedDocuments } from './helpers/seed.js'
import { spooledIn } from './helpers/spooled.js'

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex')

/** Builds a console with empty databases and backups in another one, so that only a restore writes to the three. */
async function emptyConsole(t: Test, options: HostOptions = {}) {
  const on = options.on ?? (await setupDatabases(t))
  const backups = `${on.names.system}_backups`
  if (on.real) t.teardown(() => on.couch.db.destroy(backups).catch(() => {}))
  const spoolDirectory = await mkdtemp(join(tmpdir(), 'upload-'))
  t.teardown(() => rm(spoolDirectory, { recursive: true, force: true }))
  const host = await buildHost(t, { databases: { ...on.names, backups }, spoolDirectory, ...options, on })
  const components = () => on.fetchAll(on.names.components)
  return { on, host, api: apiOf(host, '/ak/api/v2'), components, spoolDirectory }
}

t.test('the decorator takes a stream of text', async (t) => {
  const { host, components } = await emptyConsole(t)
  const text = JSON.stringify(backupOf([{ _id: 'größe 🙂' }]))
  const { finished } = await host.app.dbBackups.restore({ body: Readable.from(text.match(/.{1,40}/gu)!) })
  t.match(await finished, { databases: { components: { created: 1 } } })
  t.ok((await components()).has('größe 🙂'))
})

t.test('moves a console to one with other database names', async (t) => {
  const from = await setupDatabases(t)
  await load(from.couch.use(from.names.components), seedDocuments({ count: 80, attachmentEvery: 8 }))
  await load(from.couch.use(from.names.components), [
    ...hostileDocuments(),
    { _id: '_design/athena', language: 'javascript', views: { a: { map: 'function (doc) { emit(1) }' } } }
  ])
  await load(from.couch.use(from.names.sessions), seedDocuments({ count: 3, prefix: 'user' }))
  await load(from.couch.use(from.names.system), [{ _id: '00_settings_athena', port: 3000 }])
  // a second revision, which the upload claims without proof
  const settings = from.couch.use(from.names.system)
  const { _rev } = await settings.get('00_settings_athena')
  await settings.insert({ _id: '00_settings_athena', _rev, port: 3001 } as never)
  const source = apiOf(await buildHost(t, { on: from }))
  const id = await source.backup()
  t.equal((await source.call('PUT', `/${id}/attachments/apollo`, { attachment: 'x' })).statusCode, 200)
  const sent = (await source.call('GET', `/${id}`)).rawPayload

  const { on, host, api, spoolDirectory } = await emptyConsole(t)
  const reply = await api.call('PUT', '', sent)
  t.equal(reply.statusCode, 202)
  const { url } = reply.json()
  t.strictSame(reply.json(), { message: 'in-progress', url })
  t.match(url, /^http:\/\/localhost:80\/ak\/api\/v1\/webhooks\/txs\/[0-9a-f]{32}$/)
  const transaction = await host.waitForRestore(url)
  t.equal(transaction.status, 'success')
  t.notOk('backup_id' in transaction)
  for (const logical of DATABASES) {
    const expected = await from.fetchAll(from.names[logical])
    expected.delete('athena_backup_lease')
    const found = await on.fetchAll(on.names[logical])
    compareDatabases(t, expected, found)
    found.delete('athena_backup_lease')
    for (const [id, { _rev }] of found) t.match(_rev, /^1-/, `${id} has a revision of its own`)
    const { total, created, ...others } = transaction.databases![logical]!
    t.ok(total > 0 && total === created)
    t.strictSame(others, { changed: 0, unchanged: 0, skipped: 0, failed: 0, deleted: 0 })
  }
  t.equal(host.calls.rebuildWhitelist, 1)
  t.strictSame(await spooledIn(spoolDirectory), [], 'the spool was removed')
})

t.test('takes every key that has named a database', async (t) => {
  const { on, api } = await emptyConsole(t)
  const keys = (role: string, name: string) => [`DB_${role.toUpperCase()}`, `athena_${role}`, role, name]
  for (let i = 0; i < 4; i++) {
    const dbs = Object.fromEntries(
      DATABASES.map((role) => [keys(role, on.names[role])[i], { docs: [{ _id: `${role}_${i}` }] }])
    )
    t.equal((await api.restore({ dbs })).status, 'success')
    for (const role of DATABASES) t.ok((await on.fetchAll(on.names[role])).has(`${role}_${i}`))
  }
})

t.test('takes compressed documents', async (t) => {
  const { api, components } = await emptyConsole(t)
  const docs = [...seedDocuments({ count: 20, attachmentEvery: 5 })]
  const compressed_docs = deflateSync(JSON.stringify(docs)).toString('base64')
  const transaction = await api.restore({ dbs: { DB_COMPONENTS: { compressed_docs } } })
  t.match(transaction, { status: 'success', databases: { components: { total: 20, created: 20 } } })
  compareDatabases(t, new Map(docs.map((doc) => [doc._id, doc])), await components())
})

t.test('documents of every size are compared with what the target has or had', async (t) => {
  const { on, api, components } = await emptyConsole(t)
  const sizes = [1, 100, 5000, 90_000, 260_000, 262_000, 262_136, 262_144, 263_000, 600_000, 3_000_000]
  const docs = Array.from({ length: 330 }, (_, i) => {
    const _id = `doc_${String(i).padStart(3, '0')}`
    // few large documents, each with small ones around it
    const size = i % 15 === 0 ? sizes[(i / 15) % sizes.length]! : 20 + i * 7
    return { _id, _rev: `1-${String(i).padStart(32, '0')}`, text: bytesOf(_id, size).toString('latin1') }
  })
  const states = ['same', 'changed', 'deleted', 'absent'] as const
  const state = (i: number) => states[i % states.length]!
  const db = on.couch.use(on.names.components)
  const before = docs.flatMap(({ _id, text }, i) =>
    state(i) === 'absent' ? [] : [{ _id, text: state(i) === 'changed' ? `${text}, edited` : text }]
  )
  await load(db, before, 20)
  const present = await components()
  await db.bulk({
    docs: docs.flatMap(({ _id }, i) =>
      state(i) === 'deleted' ? [{ _id, _rev: present.get(_id)!._rev, _deleted: true }] : []
    )
  })
  const count = (...wanted: string[]) => docs.filter((_, i) => wanted.includes(state(i))).length
  const transaction = await api.restore({ dbs: { athena_components: { docs } } })
  t.match(transaction, {
    status: 'success',
    databases: {
      components: {
        created: count('deleted', 'absent'),
        changed: count('changed'),
        unchanged: count('same')
      }
    }
  })
  // replace texts of megabytes by their digests, so that a difference can be shown
  const digests = (documents: Iterable<{ _id: string; text?: unknown }>) =>
    new Map(Array.from(documents, ({ _id, text }) => [_id, { _id, text: sha256(String(text)) }]))
  compareDatabases(t, digests(docs), digests((await components()).values()))
})

t.test('the last version of a document wins', async (t) => {
  const { api, components } = await emptyConsole(t)
  const between = [...seedDocuments({ count: 300, size: 5000 })]
  t.ok(JSON.stringify(between).length > 1024 * 1024)
  const docs = [
    { _id: 'twice', copy: 1 },
    { _id: 'far', copy: 1, only: 'in the first' },
    { _id: 'twice', copy: 2 },
    ...between.slice(0, 100),
    { _id: 'far', copy: 2 },
    ...between.slice(100),
    { _id: 'far', copy: 3 },
    { _id: 'doc_00000007', copy: 'later' }
  ]
  const transaction = await api.restore(backupOf(docs))
  t.equal(transaction.status, 'success')
  const found = await components()
  const far = found.get('far')!
  t.match(far, { copy: 3 })
  t.notOk('only' in far)
  t.match(found.get('twice'), { copy: 2 })
  t.match(found.get('doc_00000007'), { copy: 'later' })
  t.equal(found.size, 302)

  // restore over existing documents as well, in the other order
  const again = await api.restore(
    backupOf([{ _id: 'far', copy: 3 }, ...between, { _id: 'twice', copy: 1 }, { _id: 'far', copy: 1 }])
  )
  t.equal(again.status, 'success')
  const now = await components()
  t.match([now.get('far'), now.get('twice')], [{ copy: 1 }, { copy: 1 }])
})

t.test('a version that is deleted is not restored, nor are those before it', async (t) => {
  const { on, api, components } = await emptyConsole(t)
  await load(on.couch.use(on.names.components), [{ _id: 'there', n: 1 }])
  const transaction = await api.restore(
    backupOf([
      { _id: 'there', _deleted: true },
      { _id: 'never', _deleted: true },
      { _id: 'twice', n: 1 },
      { _id: 'twice', _deleted: true },
      { _id: 'back', _deleted: true },
      { _id: 'back', n: 2 }
    ])
  )
  t.match(transaction, { status: 'success', databases: { components: { created: 1, skipped: 3 } } })
  const found = await components()
  t.strictSame([...found.keys()].sort(), ['back', 'there'])
  t.match([found.get('back'), found.get('there')], [{ n: 2 }, { n: 1 }])
})

t.test('skip lists', async (t) => {
  const ids = ['a', 'b', 'c', 'd', "it's", 'say "x"', 'x y/ü', 'abcd']
  const docs = [...ids, 'a', 'c'].map((_id, i) => ({ _id, i }))
  const cases: [spelling: string, query: string, skipped: string[]][] = [
    ['a JSON array', param('["a","b"]'), ['a', 'b']],
    ['single quotes', param("['a','c']"), ['a', 'c']],
    ['single quotes and spaces', param(" [ 'a' , 'b' ] "), ['a', 'b']],
    ['wrapped in double quotes', param('"["a","b"]"'), ['a', 'b']],
    ['wrapped in double quotes, single inside', param(`"['a','b']"`), ['a', 'b']],
    ['wrapped in single quotes', param(`'["a","b"]'`), ['a', 'b']],
    ['JSON of JSON', param(JSON.stringify('["a","b"]')), ['a', 'b']],
    ['a repeated parameter', `${param('a')}&${param('b')}`, ['a', 'b']],
    ['repeated arrays', `${param('["a","b"]')}&${param("['d']")}`, ['a', 'b', 'd']],
    ['one bare id', param('abcd'), ['abcd']],
    ['one quoted id', param('"abcd"'), ['abcd']],
    ['neighbours', param('["a","b","c","d"]'), ['a', 'b', 'c', 'd']],
    ['ids with quotes', param(JSON.stringify(["it's", 'say "x"', 'x y/ü'])), ["it's", 'say "x"', 'x y/ü']],
    ['an empty list', param('[]'), []],
    ['ids that are not there', param('["ab","abc","A"]'), []]
  ]
  function param(value: string): string {
    return `skip_components=${encodeURIComponent(value)}`
  }
  const { on, api, components } = await emptyConsole(t)
  for (const [spelling, query, skipped] of cases) {
    const transaction = await api.restore(backupOf(docs), `?${query}`)
    t.equal(transaction.status, 'success')
    const expected = ids.filter((id) => !skipped.includes(id))
    const found = await components()
    t.strictSame([...found.keys()].sort(), expected.sort(), spelling)
    if (found.has('a')) t.equal(found.get('a')?.i, 8, 'the last version is the one restored')
    t.match(transaction.databases, { components: { skipped: skipped.length, created: expected.length } })
    await on.couch.db.destroy(on.names.components)
  }

  const system = await api.restore(
    { dbs: { athena_components: { docs }, athena_system: { docs } } },
    `?skip_system=${encodeURIComponent('["a"]')}`
  )
  t.match(
    system.databases,
    { components: { skipped: 0 }, system: { skipped: 1 } },
    'a list is of one database'
  )
})

t.test('an invalid skip list is refused', async (t) => {
  const { on, api, components } = await emptyConsole(t)
  const id = '03_ibp_db_backup_1592922855871'
  const header = { _id: id, type: 'athena_backup', in_progress: false, dbs: {} }
  await on.couch.db.create(`${on.names.system}_backups`)
  await load(on.couch.use(`${on.names.system}_backups`), [header])
  const wrong = [
    '[',
    '["a"',
    "['a",
    '["a",]',
    '[1]',
    '[null]',
    '[["a"]]',
    '[""]',
    '',
    '{}',
    '{"a":1}',
    '"',
    '""'
  ]
  for (const name of ['skip_components', 'skip_system']) {
    for (const value of wrong) {
      for (const path of ['', `/${id}`]) {
        const query = `?${name}=${encodeURIComponent(value)}`
        const reply = await api.call('PUT', path + query, path ? {} : backupOf([{ _id: 'a' }]))
        t.equal(reply.statusCode, 400, `${name}=${value}`)
        t.match(reply.json(), { statusCode: 400, error: 'Bad Request' })
        t.match(reply.json().message, name)
      }
    }
  }
  t.equal((await components()).size, 0)
})

t.test('documents that the backup does not hold stay', async (t) => {
  const { on, api, components } = await emptyConsole(t)
  await load(on.couch.use(on.names.components), seedDocuments({ count: 10, prefix: 'other' }))
  const before = await components()
  t.equal((await api.restore(backupOf([{ _id: 'new' }]))).status, 'success')
  const after = await components()
  t.ok(after.delete('new'))
  compareDatabases(t, before, after, { rev: true })
})

t.test('documents of the plugin and of logins are not restored', async (t) => {
  const { on, api, components } = await emptyConsole(t)
  const docs = [
    { _id: '03_ibp_db_backup_1', type: 'athena_backup', in_progress: false, dbs: {} },
    { _id: 'b', type: 'athena_backup' },
    { _id: 'backup_chunk_1_system_000000', type: 'athena_backup_chunk' },
    { _id: 'c', type: 'athena_backup_chunk' },
    { _id: 'm', type: 'athena_backup_manifest' },
    { _id: 'athena_backup_lease', type: 'x' },
    { _id: 's', type: 'session_athena' },
    { _id: 'kept', type: 'user', inner: { type: 'session_athena' } }
  ]
  const transaction = await api.restore({ dbs: { athena_components: { docs }, athena_sessions: { docs } } })
  t.equal(transaction.status, 'success')
  for (const logical of ['components', 'sessions'] as const) {
    // no id is reserved here, since backups are kept elsewhere and the lease in the system database
    const ids = [...(await on.fetchAll(on.names[logical])).keys()]
    t.strictSame(ids, ['athena_backup_lease', 'kept'])
    t.match(transaction.databases![logical], { total: 8, created: 2, skipped: 6 })
  }
  const reserved = await api.restore({ dbs: { athena_system: { docs } } })
  t.match(reserved, {
    status: 'error',
    failures: [{ database: 'system', id: 'athena_backup_lease', error: 'reserved' }],
    databases: { system: { total: 8, created: 1, skipped: 6, failed: 1 } }
  })
  t.equal((await components()).size, 2)
})

t.test('writes nothing the second time', async (t) => {
  const { on, api, components } = await emptyConsole(t)
  await load(on.couch.use(on.names.components), [{ _id: 'doc_00000003', type: 'changed' }])
  const docs = [...seedDocuments({ count: 30, attachmentEvery: 7 })]
  const uploads = {
    'with revisions': backupOf(
      docs.map((doc) => ({ ...doc, _rev: `1-${bytesOf(doc._id, 16).toString('hex')}` }))
    ),
    'without revisions': backupOf(docs.map(({ _attachments, ...doc }) => ({ ...doc, more: 1 }))),
    'with the id at the end': backupOf(
      docs.map(({ _id, _attachments, ...doc }) => ({ ...doc, more: 2, _id }))
    ),
    'with attachments that have no digest, or that of another compression': backupOf(
      docs.map(({ _rev, ...doc }, i) => ({
        ...doc,
        more: 3,
        _attachments: {
          a: {
            content_type: 'text/plain',
            data: Buffer.from(`text ${i} `.repeat(100)).toString('base64'),
            ...(i % 2 && { digest: 'md5-oqkXqiLjT7OVaCAW1TAN+A==' })
          }
        }
      }))
    ),
    // the database serializes these in its own way
    'with white space, escapes and fractions': Buffer.from(
      JSON.stringify(
        backupOf(docs.map(({ _attachments, ...doc }) => ({ ...doc, more: 'ü/', n: 1.5, _deleted: false }))),
        null,
        2
      )
        .replaceAll('ü/', '\\u00fc\\/')
        .replaceAll('1.5', '1.50e+0')
    )
  }
  for (const [kind, upload] of Object.entries(uploads)) {
    const first = await api.restore(upload)
    t.equal(first.status, 'success')
    t.match(first.databases, { components: { total: 30, unchanged: 0 } })
    const after = await components()
    const { update_seq } = await on.couch.db.get(on.names.components)
    const second = await api.restore(upload)
    t.match(second.databases, { components: { total: 30, unchanged: 30 } }, kind)
    compareDatabases(t, after, await components(), { rev: true })
    t.equal((await on.couch.db.get(on.names.components)).update_seq, update_seq)
  }
})

t.test('a document that the database refuses is counted and named, the others are written', async (t) => {
  const { host, api, components } = await emptyConsole(t)
  const docs: object[] = [...seedDocuments({ count: 20 })]
  docs.splice(7, 0, { _id: 'refused', _foo: 1 })
  docs.push({ _id: 'last' })
  const transaction = await api.restore(backupOf(docs))
  t.equal(transaction.status, 'error')
  t.match(transaction.databases, { components: { total: 22, created: 21, failed: 1 } })
  t.match(transaction.failures, [
    { database: 'components', id: 'refused', error: 'doc_validation', reason: /_foo/ }
  ])
  t.match(transaction.athena_messages.at(-1), /^1 documents were not restored: components\/refused \(\w+: \S/)
  const found = await components()
  t.equal(found.size, 21)
  t.notOk(found.has('refused'))
  t.ok(found.has('last'))
  t.equal(host.calls.rebuildWhitelist, 1, 'for what was restored')
})

t.test('of a backup that was running or has failed is refused', async (t) => {
  const { host, api, components, spoolDirectory } = await emptyConsole(t)
  for (const [more, message] of [
    [{ in_progress: true }, 'cannot restore, the backup is still in progress.'],
    [{ error: 'the disk was full' }, 'cannot restore, the backup has failed: the disk was full']
  ] as const) {
    // before the documents, and after them
    for (const body of [{ ...more, ...backupOf([{ _id: 'a' }]) }, backupOf([{ _id: 'a' }], more)]) {
      const reply = await api.call('PUT', '', body)
      t.equal(reply.statusCode, 400)
      t.match(reply.json(), { statusCode: 400, message })
    }
  }
  t.equal((await components()).size, 0)
  t.strictSame(await spooledIn(spoolDirectory), [])
  t.equal(host.calls.rebuildWhitelist, 0)
})

t.test('creates databases that are missing', async (t) => {
  const { on, api, components } = await emptyConsole(t)
  for (const logical of ['components', 'sessions'] as const) await on.couch.db.destroy(on.names[logical])
  const transaction = await api.restore(backupOf([{ _id: 'a' }]))
  t.equal(transaction.status, 'success')
  t.strictSame([...(await components()).keys()], ['a'])
  const databases = await on.couch.db.list()
  t.notOk(databases.includes(on.names.sessions), 'a database that the backup does not hold is left alone')
})

t.test('a large document may have a member name of any length', async (t) => {
  const { api, components } = await emptyConsole(t)
  const doc = { _id: 'large', [`k${'e'.repeat(100_000)}y`]: 1, text: 'x'.repeat(5 * 1024 * 1024) }
  t.match(await api.restore(backupOf([doc])), { status: 'success' })
  compareDatabases(t, new Map([['large', doc]]), await components())
})

t.test('data of attachments may escape the solidus, as some writers of JSON do', async (t) => {
  const { host, api, components } = await emptyConsole(t)
  for (const size of [1000, 5 * 1024 * 1024 + 1]) {
    const data = bytesOf(`solidus ${size}`, size).toString('base64')
    const doc = { _id: `of ${size}`, _attachments: { a: { content_type: 'image/png', data } } }
    const escaped = JSON.stringify(backupOf([doc])).replaceAll('/', '\\/')
    t.ok(escaped.length > size * 1.34, 'there are some')
    const { url } = (await api.call('PUT', '', escaped)).json()
    t.match(await host.waitForRestore(url), { status: 'success', failures: [] })
    const restored = (await components()).get(doc._id)!
    t.ok(restored._attachments!.a!.data === data, `of ${size} bytes`)
  }
  const wrong = JSON.stringify(
    backupOf([{ _id: 'wrong', _attachments: { a: { data: `${'A'.repeat(6_000_000)}\\` } } }])
  )
  const reply = await api.call('PUT', '', wrong)
  t.equal(reply.statusCode, 400)
  t.match(reply.json().message, /data of attachment "a" is not base64/)
})
