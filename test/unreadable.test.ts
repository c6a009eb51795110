import { Readable } from 'node:stream'
import nano from 'nano'
import t, { type Test } from 'tap'
import { MAX_UNREADABLE, nameUnreadable } from '../lib/backup/unreadable.js'
import { CouchError } from '../lib/couch/errors.js'
import { LARGE_DOCUMENT } from '../lib/json/document.js'
import { type Api, apiOf } from './helpers/api.js'
import { putAttachment, setupDatabases, type TestDatabases } from './helpers/database.js'
import { startFaultProxy } from './helpers/fault-proxy.js'
import { buildHost, type HostOptions } from './helpers/host.js'
import { observe } from './helpers/observed-host.js'
import { setupRawDatabases } from './helpers/raw-databases.js'
import { bytesOf } from './helpers/seed.js'

const SMALL = { content_type: 'image/png', data: bytesOf('small', 100).toString('base64') }
const BAD = Buffer.from('not gzip')
const AS_GZIP = { 'content-type': 'text/plain', 'content-encoding': 'gzip' }
const FOREVER = { times: Number.POSITIVE_INFINITY }
const QUICK: HostOptions = { retry: { attempts: 2, wait: 1, longest: 1 } }

/** Servers that store anything as gzip: the raw server, and `COUCHDB_URL`. */
const setups: Record<string, (t: Test) => Promise<TestDatabases>> = { imitated: setupRawDatabases }
if (process.env.COUCHDB_URL) setups.CouchDB = setupDatabases

const ids = async (api: Api, id: string) =>
  (await api.get(id)).dbs.athena_components!.docs.map(({ _id }) => _id).sort()

/** Writes readable documents, and some with an attachment that is marked as gzip and is not. */
async function seedWithDamaged(on: TestDatabases, damaged: Record<string, number>): Promise<string[]> {
  const docs = Array.from({ length: 150 }, (_, i) => ({ _id: `good ${i}`, _attachments: { a: SMALL } }))
  await on.couch.use(on.names.components).bulk({ docs } as never)
  for (const [id, length] of Object.entries(damaged))
    await putAttachment(on.url, [on.names.components, id, 'a'], Buffer.alloc(length, BAD), AS_GZIP)
  return docs.map(({ _id }) => _id).sort()
}

for (const [database, setup] of Object.entries(setups)) {
  t.test(
    `${database}: attachments that are not what they are marked as are named, all else is safe`,
    async (t) => {
      const on = await setup(t)
      const good = await seedWithDamaged(on, { bad: 100, empty: 0, 'large and bad': LARGE_DOCUMENT + 1 })
      const host = await observe(t, { on, ...QUICK })
      const api = apiOf(host)
      const { id, finished } = await host.app.dbBackups.start()
      const summary = await finished
      const components = summary.dbs.athena_components!
      const expected = ['bad', 'empty', 'large and bad']
      t.strictSame(components.unreadable!.map((document) => document.id).sort(), expected)
      for (const { reason } of components.unreadable!) t.match(reason, /marked as gzip and is not/)
      t.match(components, { unreadable_count: 3, doc_count: good.length })
      t.equal(summary.unreadable_count, 3)
      t.notOk('unreadable' in summary.dbs.athena_system!)

      const sent = await api.get(id)
      t.equal(sent.unreadable_count, 3)
      t.strictSame(sent.dbs.athena_components!.unreadable, components.unreadable)
      t.strictSame(await ids(api, id), good)

      const warning = host.lines.find(({ msg }) => /components finished without/.test(msg))
      t.match(warning, { level: 40, unreadable: 3, unreadableDocuments: [{}, {}, {}] })
      t.match(
        host.lines.find(({ event }) => event === 'backup_finished'),
        { level: 40, unreadable: 3 }
      )
      const labels = 'operation="backup",database="components",result="unreadable"'
      t.equal(await host.metric(`db_backups_documents_total{${labels}}`), 3)
      t.match(await host.event('backup_finished'), { backup: { unreadable_count: 3 } })

      const upload = (await api.call('GET', `/${id}`)).rawPayload
      t.match(await api.restore(upload), { databases: { components: { total: good.length, failed: 0 } } })
    }
  )

  t.test(`${database}: "exact" keeps documents that could not be backed up`, async (t) => {
    const on = await setup(t)
    await seedWithDamaged(on, { bad: 100, worse: LARGE_DOCUMENT + 1 })
    const host = await buildHost(t, { on, ...QUICK })
    const api = apiOf(host)
    const id = await api.backup()
    const upload = (await api.call('GET', `/${id}`)).rawPayload
    const exactly = async (source: { id: string } | { body: Readable }) =>
      (await host.app.dbBackups.restore(source, { exact: true })).finished
    const db = on.couch.use(on.names.components)
    for (const source of [{ id }, { body: Readable.from([upload]) }]) {
      await db.insert({ _id: 'late' } as never)
      t.match((await exactly(source)).databases, { components: { deleted: 1, failed: 0 } })
      for (const kept of ['bad', 'worse']) t.match(await db.get(kept), { _id: kept })
    }
    const about = JSON.parse(upload.toString())
    about.dbs.athena_components.unreadable_count = 3
    const unnamed = Readable.from([JSON.stringify(about)])
    await t.rejects(exactly({ body: unnamed }), { code: 'DB_BACKUPS_NOT_RESTORABLE', message: /exact/ })
  })

  t.test(`${database}: a document whose attachment cannot be read is written over`, async (t) => {
    const on = await setup(t)
    const sizes = [BAD.length, LARGE_DOCUMENT + 1]
    for (const size of sizes)
      await putAttachment(on.url, [on.names.components, `${size}`, 'a'], Buffer.alloc(size, BAD), AS_GZIP)
    const api = apiOf(await buildHost(t, { on, ...QUICK }))
    const docs = sizes.map((size) => {
      const a = { content_type: 'text/plain', data: bytesOf('good', size).toString('base64') }
      return { _id: `${size}`, _attachments: { a } }
    })
    const backup = { dbs: { components: { docs } } }
    t.match((await api.restore(backup)).databases, { components: { changed: 2, failed: 0 } })
    t.match((await api.restore(backup)).databases, { components: { unchanged: 2, failed: 0 } })
  })

  t.test(`${database}: with onUnreadable "fail" such a backup fails and names the document`, async (t) => {
    const on = await setup(t)
    await seedWithDamaged(on, { bad: 100 })
    const host = await buildHost(t, { on, ...QUICK, onUnreadable: 'fail' })
    await t.rejects(apiOf(host).backup(), /document "bad".*marked as gzip and is not/)
  })

  t.test(
    `${database}: a document that is unreadable since it changed is not backed up as it was`,
    async (t) => {
      const on = await setup(t)
      const db = on.couch.use(on.names.components)
      await db.bulk({ docs: [{ _id: 'changes' }, { _id: 'stays' }] })
      const { _rev: rev } = await db.get('changes')
      const proxy = await startFaultProxy(t, on.url)
      // the document has arrived when the page breaks, and is read again after the wait
      const broken = proxy.add({ path: /components\/_changes/, fault: 'stall_mid' })
      let changed: Promise<string> | undefined
      const change = () => putAttachment(on.url, [on.names.components, 'changes', 'a'], BAD, AS_GZIP, rev)
      const host = await buildHost(t, {
        on,
        couch: nano(proxy.url),
        retry: { attempts: 3, wait: 1000 },
        timeouts: { idle: 1000 },
        onEvent({ type }) {
          if (type === 'retry') changed ??= change()
        }
      })
      const api = apiOf(host)
      const id = await api.backup()
      await changed
      t.equal(broken.hits, 1)
      t.strictSame(await ids(api, id), ['stays'])
      t.match((await api.get(id)).dbs.athena_components, { doc_count: 1, unreadable: [{ id: 'changes' }] })
    }
  )
}

/** Creates documents `good 0` to `good 249`, and others, behind a proxy that can play faults. */
async function withFaults(t: Test, others: object[], options: HostOptions = QUICK, setup = setupDatabases) {
  const on = await setup(t)
  const docs = Array.from({ length: 250 }, (_, i) => ({ _id: `good ${i}`, _attachments: { a: SMALL } }))
  await on.couch.use(on.names.components).bulk({ docs: [...docs, ...others] } as never)
  const proxy = await startFaultProxy(t, on.url)
  const host = await buildHost(t, { on, couch: nano(proxy.url), ...options })
  return { on, proxy, host, api: apiOf(host), good: docs.map(({ _id }) => _id).sort() }
}

t.test(
  'a document that fails every answer it is in is found, and its attachments are read alone',
  async (t) => {
    const { proxy, api, good } = await withFaults(t, [{ _id: 'poison', _attachments: { a: SMALL } }])
    const broken = proxy.add({
      path: /_bulk_get\?attachments/,
      body: /poison/,
      fault: 'status_500',
      ...FOREVER
    })
    const id = await api.backup()
    t.ok(broken.hits > 5, 'asked for by halves')
    t.strictSame(await ids(api, id), [...good, 'poison'])
    t.notOk((await api.get(id)).unreadable_count)
  }
)

t.test('a document that cannot be read at all is named, whatever the answer is', async (t) => {
  for (const fault of ['status_500', 'html', 'reset'] as const) {
    const { proxy, api, good } = await withFaults(t, [{ _id: 'poison', _attachments: { a: SMALL } }])
    proxy.add({ path: /_bulk_get/, body: /poison/, fault, ...FOREVER })
    proxy.add({ path: /poison/, fault, ...FOREVER })
    const id = await api.backup()
    t.strictSame(await ids(api, id), good, fault)
    t.match((await api.get(id)).dbs.athena_components, {
      unreadable: [{ id: 'poison' }],
      unreadable_count: 1
    })
  }
})

t.test('a page that cannot be read with its documents is read without them', async (t) => {
  const { on, proxy, api, good } = await withFaults(t, [{ _id: 'poison' }])
  proxy.add({ path: /components\/_changes.*include_docs/, fault: 'status_500', ...FOREVER })
  const poison = proxy.add({ path: /_bulk_get/, body: /poison/, fault: 'status_500', ...FOREVER })
  const id = await api.backup()
  t.ok(poison.hits > 0)
  t.strictSame(await ids(api, id), good)
  const { unreadable, doc_count, last_sequence } = (await api.get(id)).dbs.athena_components!
  t.match(unreadable, [{ id: 'poison' }])
  t.equal(doc_count, good.length)
  t.ok(last_sequence)
  await proxy.clear()
  await on.couch.use(on.names.components).insert({ _id: 'later' } as never)
  t.strictSame(await ids(api, await api.backup()), [...good, 'later', 'poison'].sort(), 'once it can be read')
})

t.test(
  'what the base could not read is asked for in the revision that it has by now, each time',
  async (t) => {
    const others = [{ _id: 'poison', _attachments: { a: SMALL } }]
    const { proxy, api } = await withFaults(t, others, QUICK, (t) => setupRawDatabases(t))
    const empty = proxy.add({ path: /_bulk_get/, body: /"rev":""/, fault: 'status_500', ...FOREVER })
    const poison = proxy.add({ path: /_bulk_get/, body: /poison/, fault: 'status_500', ...FOREVER })
    const base = await api.backup()
    const before = poison.hits
    const { athena_components: components } = (await api.get(await api.backup())).dbs
    t.match(components, { base, unreadable: [{ id: 'poison' }] })
    t.ok(poison.hits > before)
    t.equal(empty.hits, 0)
  }
)

t.test('a fault that passes leaves no document out', async (t) => {
  const poison = { _id: 'poison', _attachments: { a: SMALL } }
  const { proxy, api, good } = await withFaults(t, [poison], { retry: { attempts: 2, wait: 1, longest: 1 } })
  const broken = proxy.add({ path: /_bulk_get/, body: /poison/, fault: 'status_500', times: 22 })
  const id = await api.backup()
  t.equal(broken.hits, 22, 'it was given up, and asked for again in the end')
  t.strictSame(await ids(api, id), [...good, 'poison'])
  t.notOk((await api.get(id)).unreadable_count)
})

t.test('no document is blamed when the database does not answer', async (t) => {
  for (const fault of ['status_500', 'status_503', 'refuse', 'cut_mid'] as const) {
    const { proxy, host } = await withFaults(t, [], { ...QUICK, timeouts: { lease: 2000 } })
    proxy.add({ path: /_components\/_bulk_get/, fault, ...FOREVER, refusedFor: 60_000 })
    const { id, finished } = await host.app.dbBackups.start()
    const failure = finished.then(
      () => t.fail('it was no success'),
      (error: Error) => t.ok(error.message, `${fault}: ${error.message}`)
    )
    await failure
    await proxy.clear()
    const { error, dbs } = await host.waitForBackup(id).catch(() => ({ error: 'unknown', dbs: {} }))
    t.ok(error)
    t.strictSame(dbs, {})
  }
})

t.test(
  'documents and attachments that are too large for a chunk are stored in parts, or named',
  async (t) => {
    const on = await setupRawDatabases(t)
    const random = (name: string, length: number) => bytesOf(name, length).toString('base64')
    const docs = [
      ...Array.from({ length: 40 }, (_, i) => ({ _id: `good ${i}`, text: random(`${i}`, 30_000) })),
      { _id: 'too large', text: random('too large', 300_000) },
      { _id: '_design/one', text: random('design', 1000) },
      {
        _id: 'large',
        _attachments: { a: { content_type: 'image/png', data: random('large', LARGE_DOCUMENT + 1) } }
      }
    ]
    await on.write(
      on.names.components,
      docs.map((doc) => JSON.stringify(doc))
    )
    on.raw.store.get(on.names.backups)!.maxAttachmentSize = 100_000
    const host = await buildHost(t, { on, ...QUICK })
    const api = apiOf(host)
    const id = await api.backup()
    const good = docs.map(({ _id }) => _id).filter((name) => !/large/.test(name))
    t.strictSame(await ids(api, id), good.sort())
    const { unreadable, doc_count } = (await api.get(id)).dbs.athena_components!
    t.equal(doc_count, good.length)
    t.strictSame(unreadable!.map((document) => document.id).sort(), ['large', 'too large'])
    for (const { reason } of unreadable!) t.match(reason, /^too_large: /)
    const restored = await api.restore(id)
    t.match(restored, {
      status: 'success',
      databases: { components: { total: good.length, unchanged: good.length } }
    })

    await on.write(on.names.components, ['{"_id":"small"}'])
    on.raw.store.get(on.names.backups)!.maxAttachmentSize = 10
    await t.rejects(api.backup(), /attachment_too_large/, 'where nothing fits, nothing is a success')
  }
)

t.test('the list of unreadable documents has a bound', async (t) => {
  const failure = new CouchError('x', { error: 'bad', reason: 'r'.repeat(10_000) })
  const long = [
    'k'.repeat(1_000_000),
    '\u0000'.repeat(1000),
    `${'漢'.repeat(170)}😀😀`,
    // at the end of the cut there is half of a character
    `a${'😀'.repeat(300)}`,
    // a quote takes two bytes
    `"${'a'.repeat(511)}`,
    'a'.repeat(512),
    'short'
  ]
  const named = nameUnreadable(new Map(long.map((id) => [id, { rev: '1-a', failure }])))
  t.strictSame(
    named.map(({ id_truncated }) => id_truncated),
    [true, true, true, true, true, undefined, undefined]
  )
  for (const [i, { id, reason }] of named.entries()) {
    t.ok(id !== '' && long[i]!.startsWith(id) && id.isWellFormed())
    t.ok(JSON.stringify(id).length <= 514 && reason.length <= 256)
    t.match(reason, /^bad: rrr/)
  }
  const many = new Map(Array.from({ length: MAX_UNREADABLE }, (_, i) => [`${i}`, { rev: '1-a', failure }]))
  t.equal(nameUnreadable(many).length, 100)
})
