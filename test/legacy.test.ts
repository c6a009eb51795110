import { deflateSync } from 'node:zlib'
import nano from 'nano'
import t, { type Test } from 'tap'
import { apiOf } from './helpers/api.js'
import { DATABASES, setupDatabases } from './helpers/database.js'
import { startFaultProxy } from './helpers/fault-proxy.js'
import { startGate } from './helpers/gate.js'
import { buildHost } from './helpers/host.js'
import { type RawDatabases, setupRawDatabases } from './helpers/raw-databases.js'
import { LOSSY_MEMBERS } from './helpers/seed.js'

const ID = '03_ibp_db_backup_1592922855871'
const REV = `3-${'ab'.repeat(16)}`
const HEAD = {
  type: 'athena_backup',
  backup_version: '1.0.0',
  ibp_versions: { tag: '2.5.0-26' },
  doc_count: 4,
  in_progress: false,
  start_timestamp: 1_592_922_838_408,
  end_timestamp: 1_592_922_862_177,
  elapsed: '23.8 secs'
}
const ABOUT = {
  start_timestamp: 1_592_922_855_874,
  finish_timestamp: 1_592_922_856_926,
  last_sequence: '7-g1AAAA'
}

/** Texts of documents that a parser in JavaScript would change. */
const DOCUMENTS: Record<(typeof DATABASES)[number], string[]> = {
  components: [
    `{"_id":"lossy","_rev":"${REV}",${LOSSY_MEMBERS.join(',')}}`,
    `{"_id":"attached","_rev":"${REV}","n":1.0,"_attachments":{"a b":{"content_type":"text/plain","data":"b2YgYSBiLnR4dA=="}}}`
  ],
  sessions: [],
  system: [
    `{"_id":"00_settings_athena","_rev":"${REV}","big":9007199254740993}`,
    `{"_id":"_design/x","_rev":"${REV}"}`
  ]
}

type Form = (docs: readonly string[]) => string

const FORMS: Record<string, Form> = {
  docs: (docs) => `"docs":[${docs.join(',')}]`,
  compressed_docs: (docs) => `"compressed_docs":"${deflated(`[${docs.join(',')}]`)}"`,
  'compressed_docs with escaped solidus': (docs) =>
    `"compressed_docs":"${deflated(`[ ${docs.join(' ,\n')} ]`).replaceAll('/', '\\/')}"`
}

const deflated = (text: string) => deflateSync(text).toString('base64')

const KEYS: Record<string, (database: (typeof DATABASES)[number], names: RawDatabases['names']) => string> = {
  DB_COMPONENTS: (database) => `DB_${database.toUpperCase()}`,
  'the names of the databases': (database, names) => names[database],
  athena_components: (database) => `athena_${database}`,
  components: (database) => database
}

function legacyBackup(key: (database: (typeof DATABASES)[number]) => string, form: Form): string {
  const about = JSON.stringify(ABOUT).slice(0, -1)
  const dbs = DATABASES.map((database) => `"${key(database)}":${about},${form(DOCUMENTS[database])}}`)
  return `${JSON.stringify(HEAD).slice(0, -1)},"dbs":{${dbs.join(',')}}}`
}

/** Returns what the databases must hold after a restore. */
async function expectedContents(t: Test, options: { rev: boolean }): Promise<object[]> {
  const on = await setupRawDatabases(t)
  for (const database of DATABASES) await on.write(on.names[database], DOCUMENTS[database], false)
  return DATABASES.map((database) => on.content(on.names[database], options))
}

t.test('backups of older forms, with every spelling of their keys', async (t) => {
  const expected = await expectedContents(t, { rev: true })
  const claimed = await expectedContents(t, { rev: false })
  for (const [keys, keyOf] of Object.entries(KEYS)) {
    for (const [form, write] of Object.entries(FORMS)) {
      await t.test(`${form} under ${keys}`, async (t) => {
        const on = await setupRawDatabases(t)
        const { names } = on
        const text = legacyBackup((database) => keyOf(database, names), write)
        await on.write(names.backups, [`{"_id":"${ID}",${text.slice(1)}`])
        const api = apiOf(await buildHost(t, { on, databases: names }))
        const contents = (options = { rev: true }) =>
          DATABASES.map((database) => on.content(names[database], options))
        const empty = async () => {
          for (const database of DATABASES) await on.couch.db.destroy(names[database])
        }

        t.strictSame((await api.call('GET')).json(), { ids: [ID] })
        const got = await api.call('GET', `/${ID}`)
        t.equal(got.statusCode, 200)
        const databases = DATABASES.map((database) => {
          const about = JSON.stringify(ABOUT).slice(0, -1)
          return `"athena_${database}":${about},"docs":[${DOCUMENTS[database].join(',')}]}`
        })
        const { type, backup_version, ibp_versions, doc_count, in_progress, start_timestamp, ...rest } = HEAD
        const head = {
          id: ID,
          backup_version,
          ibp_versions,
          doc_count,
          in_progress,
          type,
          start_timestamp,
          ...rest
        }
        t.equal(
          got.body,
          `${JSON.stringify(head).slice(0, -1)},"dbs":{${databases.join(',')}}}`,
          'GET sends it in the form of today, document by document as it is'
        )

        t.match(await api.restore(ID), { status: 'success', databases: { components: { created: 2 } } })
        t.strictSame(contents(), expected, 'restored by id')
        for (const body of [Buffer.from(text), got.rawPayload]) {
          await empty()
          t.match(await api.restore(body), { status: 'success' })
          t.strictSame(contents({ rev: false }), claimed, 'restored from an upload')
        }
      })
    }
  }
})

t.test('attachments of an older backup are shown and kept', async (t) => {
  const on = await setupRawDatabases(t)
  await on.write(on.names.backups, [`{"_id":"${ID}",${legacyBackup((name) => name, FORMS.docs!).slice(1)}`])
  const api = apiOf(await buildHost(t, { on, databases: on.names }))
  const put = await api.call('PUT', `/${ID}/attachments/my-attachment1`, { attachment: 'bub' })
  t.equal(put.statusCode, 200)
  const { _attachments: attachments } = await api.get(ID)
  t.strictSame(attachments, { 'my-attachment1': 'YnVi' })
  t.match(await api.restore(ID), { status: 'success' })
})

t.test('keys that mean no database, or the same one twice', async (t) => {
  const on = await setupRawDatabases(t)
  const host = await buildHost(t, { on, databases: on.names })
  const api = apiOf(host)
  const docs = '{"docs":[{"_id":"a"}]}'
  const wrong: [string, RegExp][] = [
    [`{"dbs":{"athena_peers":${docs}}}`, /"dbs\.athena_peers" is not a database/],
    [
      `{"dbs":{"DB_COMPONENTS":${docs},"components":${docs}}}`,
      /"dbs\.DB_COMPONENTS" and "dbs\.components" are the same/
    ],
    [`{"dbs":{"${on.names.system}":${docs},"athena_system":${docs}}}`, /are the same database/],
    [
      `{"dbs":{"components":{"docs":[],"compressed_docs":"${deflated('[]')}"}}}`,
      /both "docs" and "compressed_docs"/
    ],
    ['{"dbs":{"components":{}}}', /"dbs\.components\.docs" is missing/],
    ['{"dbs":{"components":{"compressed_docs":"%%%%"}}}', /is not base64/],
    [
      `{"dbs":{"components":{"compressed_docs":"${Buffer.from('[]').toString('base64')}"}}}`,
      /cannot be inflated/
    ],
    [
      `{"dbs":{"components":{"compressed_docs":"${deflated('{"_id":"a"}')}"}}}`,
      /does not inflate to an array/
    ],
    [`{"dbs":{"components":{"compressed_docs":"${deflated('[{"_id":"a"}')}"}}}`, /is truncated/],
    [
      `{"dbs":{"components":{"compressed_docs":"${deflated('[{"_id":"a"},5]')}"}}}`,
      /compressed_docs\[1\] is not an object/
    ],
    [
      `{"dbs":{"components":{"compressed_docs":"${deflated('[{"x":1}]')}"}}}`,
      /compressed_docs\[0\]: a document has no "_id"/
    ]
  ]
  for (const [i, [body, message]] of wrong.entries()) {
    const refused = await api.call('PUT', '', body)
    t.equal(refused.statusCode, 400, body.slice(0, 60))
    t.match(refused.json().message, message)
    const id = `03_ibp_db_backup_${i + 1}`
    await on.write(on.names.backups, [`{"_id":"${id}","type":"athena_backup",${body.slice(1)}`])
    const { status, athena_messages: messages } = await api.restore(id)
    t.equal(status, 'error')
    t.match(messages.at(-1), message)
  }
  for (const database of DATABASES) t.strictSame(on.content(on.names[database]), {}, 'nothing was written')
})

t.test('data that inflates to more than the limit is refused before all of it is inflated', async (t) => {
  const on = await setupRawDatabases(t)
  const api = apiOf(await buildHost(t, { on, databases: on.names, limits: { inflatedBytes: 1_000_000 } }))
  const bomb = `"compressed_docs":"${deflateSync(Buffer.alloc(400_000_000, 0x20), { level: 1 }).toString('base64')}"`
  const documents = (bytes: number) =>
    FORMS.compressed_docs!([`{"_id":"a","text":"${'x'.repeat(bytes - 23)}"}`])
  const bodyOf = (docs: string) => `{"type":"athena_backup","dbs":{"DB_SYSTEM":{${docs}}}}`
  const before = process.memoryUsage().rss
  for (const [i, docs] of [bomb, documents(1_000_001)].entries()) {
    const reply = await api.call('PUT', '', bodyOf(docs))
    t.equal(reply.statusCode, 413)
    t.match(reply.json().message, /"dbs\.DB_SYSTEM\.compressed_docs" inflates to more than 1000000 bytes/)
    await on.write(on.names.backups, [`{"_id":"03_ibp_db_backup_${i + 1}",${bodyOf(docs).slice(1)}`])
    const { status, athena_messages: messages } = await api.restore(`03_ibp_db_backup_${i + 1}`)
    t.equal(status, 'error')
    t.match(messages.at(-1), /inflates to more than 1000000 bytes/)
  }
  t.ok(process.memoryUsage().rss - before < 150_000_000, 'in bounded memory')
  t.strictSame(on.content(on.names.system), {})
  t.match(await api.restore(Buffer.from(bodyOf(documents(1_000_000)))), { status: 'success' })
  t.strictSame(Object.keys(on.content(on.names.system)), ['a'], 'up to the limit it is taken')
})

t.test('a backup that has not ended well is not restored', async (t) => {
  const on = await setupRawDatabases(t)
  const api = apiOf(await buildHost(t, { on, databases: on.names }))
  const members = { '1': '"in_progress":true', '2': '"error":"feed was cut"' }
  for (const [n, member] of Object.entries(members)) {
    const body = `"type":"athena_backup",${member},"dbs":{"components":{"docs":[{"_id":"a"}]}}}`
    await on.write(on.names.backups, [`{"_id":"03_ibp_db_backup_${n}",${body}`])
    t.equal((await api.call('PUT', `/03_ibp_db_backup_${n}`)).statusCode, 400)
    t.equal((await api.call('PUT', '', `{${body}`)).statusCode, 400)
  }
  t.strictSame(on.content(on.names.components), {})
})

t.test('on a database that parses what it is sent', async (t) => {
  const on = await setupDatabases(t)
  const { couch, names } = on
  const system = couch.use(names.system)
  const docs = Array.from({ length: 40 }, (_, i) => ({
    _id: `doc_${i}`,
    type: 'fabric-peer',
    text: 'ü'.repeat(70_000)
  }))
  for (const [id, dbs] of Object.entries({
    '03_ibp_db_backup_1': {
      DB_COMPONENTS: { ...ABOUT, docs: docs.slice(0, 30) },
      DB_SYSTEM: { ...ABOUT, docs: [] }
    },
    '03_ibp_db_backup_22': { DB_COMPONENTS: { ...ABOUT, compressed_docs: deflated(JSON.stringify(docs)) } },
    '03_ibp_db_backup_3': { athena_components: { ...ABOUT, docs: docs.slice(0, 30) } },
    '03_ibp_db_backup_4': { components: { ...ABOUT, docs: docs.slice(0, 30) } },
    '03_ibp_db_backup_5': { components: { ...ABOUT, docs: docs.slice(0, 30) } }
  })) {
    await system.insert({ _id: id, ...HEAD, dbs } as never)
  }
  await system.insert({ _id: '00_settings_athena', type: 'settings' } as never)
  const image = { content_type: 'image/png', data: 'b2YgYSBiLnR4dA==' }
  await system.insert({ _id: 'attached', _attachments: { image } } as never)
  await system.insert({ _id: 'session', type: 'session_athena' } as never)
  for (const digit of ['1', '2']) {
    const conflicting = { _id: 'conflicting', _rev: `1-${digit.repeat(32)}` }
    await system.bulk({ docs: [conflicting], new_edits: false } as never)
  }
  const gone = await system.insert({ _id: 'gone' } as never)
  await system.destroy('gone', gone.rev)

  const proxy = await startFaultProxy(t, on.url)
  const read = { method: 'POST', path: /_bulk_get/, body: /03_ibp_db_backup_22/ }
  const reads = proxy.add({ ...read, fault: 'status_503', times: 1e9 })
  const feed = new RegExp(`${names.system}/_changes\\?.*include_docs=true`)
  const feeds = proxy.add({ method: 'GET', path: feed, fault: 'status_503', times: 1e9 })
  const api = apiOf(await buildHost(t, { on: { ...on, couch: nano(proxy.url) } }))
  const before = await on.fetchAll(names.system)
  const id = await api.backup()
  t.equal(reads.hits, 0, 'nobody asks for backups of 16 MiB')
  t.equal(feeds.hits, 0, 'nor for the feed with documents, which has them')
  t.strictSame((await api.call('GET')).json().ids, [
    '03_ibp_db_backup_1',
    '03_ibp_db_backup_3',
    '03_ibp_db_backup_4',
    '03_ibp_db_backup_5',
    '03_ibp_db_backup_22',
    id
  ])
  const { dbs } = await api.get(id)
  t.strictSame(
    dbs
      .athena_system!.docs.map(({ _id, _rev, _attachments }) => [_id, _rev, _attachments?.image?.data])
      .sort(),
    ['00_settings_athena', 'attached', 'conflicting'].map((id) => {
      const { _rev, _attachments } = before.get(id)!
      return [id, _rev, _attachments?.image?.data]
    }),
    'backups of 16 MiB in a database are left out of its backup, and nothing else'
  )
  // the embedded database answers a `_bulk_get` with the winning revision only
  if (on.real) t.equal(dbs.athena_system!.conflict_count, 1)
  for (const [legacy, count] of Object.entries({ '03_ibp_db_backup_22': 40, '03_ibp_db_backup_1': 30 })) {
    t.equal((await api.get(legacy)).dbs.athena_components!.docs.length, count)
    await couch.db.destroy(names.components)
    t.match(await api.restore(legacy), { status: 'success', databases: { components: { created: count } } })
    const restored = await on.fetchAll(names.components)
    t.strictSame(
      [...restored.keys()].sort(),
      docs
        .slice(0, count)
        .map(({ _id }) => _id)
        .sort()
    )
    t.equal(restored.get('doc_7')!.text, docs[7]!.text)
  }
})

t.test('documents come with the feed where earlier backups in the database are small', async (t) => {
  const on = await setupDatabases(t)
  await on.couch.use(on.names.system).insert({ _id: '03_ibp_db_backup_1', ...HEAD, dbs: {} } as never)
  const gate = await startGate(t, on)
  const id = await apiOf(await buildHost(t, { on, couch: gate.couch })).backup()
  t.ok(id)
  const feeds = gate.requests.filter((line) => line.includes(`${on.names.system}/_changes`))
  t.ok(
    feeds.some((line) => line.includes('include_docs=true')),
    String(feeds)
  )
})

t.test('they do not where the size of one cannot be told', async (t) => {
  const on = await setupDatabases(t)
  await on.couch.use(on.names.system).insert({ _id: '03_ibp_db_backup_1', ...HEAD, dbs: {} } as never)
  const proxy = await startFaultProxy(t, on.url)
  const retry = { attempts: 2, wait: 1, longest: 2 }
  const api = apiOf(await buildHost(t, { on: { ...on, couch: nano(proxy.url) }, retry }))
  const size = proxy.add({ method: 'HEAD', fault: 'status_500', times: Number.POSITIVE_INFINITY })
  t.ok(await api.backup())
  t.ok(size.hits > 0)
  const feeds = proxy.seen.filter(({ path }) => path.includes(`${on.names.system}/_changes`))
  t.notOk(feeds.some(({ path }) => path.includes('include_docs=true')))
})
