import { once } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import nano from 'nano'
import t, { type Test } from 'tap'
import {
  BackupNotComparableError,
  BackupNotFoundError,
  ClosingError,
  CouchError,
  DamagedBackupError,
  InvalidParameterError,
  StalledDiffError
} from '../lib/index.js'
import { LARGE_DOCUMENT } from '../lib/json/document.js'
import type { DiffOptions, DocumentDiff } from '../types/index.js'
import { apiOf } from './helpers/api.js'
import { setupDatabases } from './helpers/database.js'
import { startFaultProxy } from './helpers/fault-proxy.js'
import { buildHost, type HostOptions, type TestHost } from './helpers/host.js'
import { bytesOf } from './helpers/seed.js'
import { StoredBackupsOf } from './helpers/stored-backups.js'

const diff = async ({ app }: TestHost, id: string, options: DiffOptions): Promise<DocumentDiff[]> => {
  const found: DocumentDiff[] = await app.dbBackups.diff(id, options).toArray()
  return found.sort((a, b) => (a.id < b.id ? -1 : 1))
}

const attachment = (text: string, content_type = 'image/png') => ({
  content_type,
  data: Buffer.from(text).toString('base64')
})

/** Makes a backup of some components, changes them, and makes another. */
async function setup(
  t: Test,
  before: object[],
  change: (docs: Change) => Promise<unknown>,
  more: HostOptions = {}
) {
  const on = more.on ?? (await setupDatabases(t))
  const db = on.couch.use<Record<string, unknown>>(on.names.components)
  await db.bulk({ docs: before } as never)
  const host = await buildHost(t, { ...more, on })
  const first = await apiOf(host).backup()
  await change({
    async put(doc) {
      const current = await db.get(doc._id).catch(() => undefined)
      await db.insert({ ...doc, ...(current && { _rev: current._rev }) } as never)
    },
    async remove(id) {
      await db.destroy(id, (await db.get(id))._rev)
    }
  })
  const second = await apiOf(host).backup()
  return { on, host, first, second, stored: new StoredBackupsOf(on) }
}

interface Change {
  put(doc: { _id: string; [member: string]: unknown }): Promise<void>
  remove(id: string): Promise<void>
}

const DOCS = [
  { _id: 'changed', kept: 1, value: 'a', gone: true },
  { _id: 'deleted', kept: 1 },
  { _id: 'same', kept: 1 },
  { _id: 'rewritten', kept: 1 },
  { _id: 'reordered', a: 1, b: 2 },
  { _id: '_design/x', views: {} },
  {
    _id: 'attached',
    _attachments: { same: attachment('same'), other: attachment('one'), text: attachment('t', 'text/plain') }
  },
  {
    _id: 'kept attachments',
    v: 1,
    _attachments: { a: attachment('a'), text: attachment('t'.repeat(5000), 'text/plain') }
  }
]

async function changeDocs({ put, remove }: Change): Promise<void> {
  await put({ _id: 'changed', kept: 1, value: 'b', added: [1] })
  await remove('deleted')
  await put({ _id: 'created', v: 1 })
  await put({ _id: 'rewritten', kept: 2 })
  await put({ _id: 'rewritten', kept: 1 })
  await put({ _id: 'reordered', b: 2, a: 1 })
  await put({ _id: '_design/x', views: { y: { map: 'function () {}' } } })
  await put({
    _id: 'attached',
    _attachments: { same: attachment('same'), other: attachment('two'), text: attachment('t', 'text/plain') }
  })
  await put({
    _id: 'kept attachments',
    v: 2,
    _attachments: { a: attachment('a'), text: attachment('t'.repeat(5000), 'text/plain') }
  })
}

t.test('a diff tells what was created, changed and deleted from the backup on', async (t) => {
  const { host, first, second } = await setup(t, DOCS, changeDocs)
  const expected = [
    { id: '_design/x', change: 'changed', fields: ['views'] },
    { id: 'attached', change: 'changed', fields: ['_attachments'], bytes: { before: 8, after: 8 } },
    { id: 'changed', change: 'changed', fields: ['value', 'gone', 'added'] },
    { id: 'created', change: 'created', bytes: { after: '"v":1'.length } },
    { id: 'deleted', change: 'deleted', bytes: { before: '"kept":1'.length } },
    { id: 'kept attachments', change: 'changed', fields: ['v'] },
    { id: 'reordered', change: 'changed', fields: [] }
  ]
  for (const against of [second, 'now']) {
    const found = await diff(host, first, { against })
    t.match(found, expected, `against ${against}`)
    t.equal(found.length, expected.length)
    t.notOk(
      found.some((one) => 'values' in one),
      'no values'
    )
  }
  const back = await diff(host, second, { against: first })
  t.match(
    back.map(({ change }) => change),
    ['changed', 'changed', 'changed', 'deleted', 'created', 'changed', 'changed']
  )
  t.strictSame(await diff(host, first, { against: first }), [])
  t.strictSame(await diff(host, second, { against: 'now' }), [])
  t.strictSame(await diff(host, first, { against: second, databases: ['sessions'] }), [])
})

t.test('values are told when they are asked for, as the database has them, and no long ones', async (t) => {
  const long = 'x'.repeat(2000)
  const { host, first, second } = await setup(t, [{ _id: 'a', n: 1, long: 'y' }], async ({ put }) => {
    await put({ _id: 'a', n: 2, long })
    await put({ _id: 'b', text: 'é', _attachments: { one: attachment('1') } })
  })
  for (const against of [second, 'now']) {
    const [changed, created] = await diff(host, first, { against, values: true })
    t.match(changed, {
      fields: ['n', 'long'],
      values: [
        { field: 'n', before: '1', after: '2' },
        { field: 'long', before: '"y"', truncated: true }
      ]
    })
    t.strictSame(created!.values, [
      { field: 'text', after: '"é"' },
      { field: '_attachments', after: '{"one":{"content_type":"image/png","length":1}}' }
    ])
  }
})

t.test('long ids and many fields are cut, and the diff says so', async (t) => {
  const id = 'x'.repeat(2000)
  const many = (v: number) => Object.fromEntries(Array.from({ length: 300 }, (_, i) => [`member ${i}`, v]))
  const { host, first, second } = await setup(t, [{ _id: id, ...many(1) }], ({ put }) =>
    put({ _id: id, ...many(2) })
  )
  for (const against of [second, 'now']) {
    const [found, ...others] = await diff(host, first, { against, values: true })
    t.equal(others.length, 0)
    t.match(found, { id_truncated: true, fields_truncated: true, values_truncated: true })
    t.equal(found!.id, id.slice(0, 512))
    t.equal(found!.fields!.length, 100)
    t.equal(found!.values!.length, 100)
  }
})

t.test('documents with attachments that are too large for memory are compared by all of them', async (t) => {
  const length = LARGE_DOCUMENT + 9
  const data = (seed: string) => ({
    content_type: 'image/png',
    data: bytesOf(seed, length).toString('base64')
  })
  const long = `long ${'y'.repeat(700)}`
  const docs = ['other', long].map((_id) => ({ _id, v: 1, _attachments: { a: data('a') } }))
  const { host, first, second } = await setup(t, docs, async ({ put }) => {
    await put({ ...docs[0]!, _attachments: { a: data('b') } })
    await put({ ...docs[1]!, v: 2 })
  })
  const bytes = { before: length + '"v":1'.length, after: length + '"v":1'.length }
  for (const against of [second, 'now'])
    t.match(await diff(host, first, { against }), [
      { id: long.slice(0, 512), change: 'changed', fields: ['v'], bytes },
      { id: 'other', change: 'changed', fields: ['_attachments'], bytes }
    ])
})

t.test('documents that one of the two could not read are told as unknown', async (t) => {
  const { host, first, second, stored } = await setup(t, [{ _id: 'a' }, { _id: 'b' }], ({ remove }) =>
    remove('a')
  )
  const unread = (id: string, count = 1) =>
    stored.change(id, ({ dbs, storage }) => {
      Object.assign(dbs.athena_components!, {
        unreadable_count: count,
        unreadable: [{ id: 'a', reason: 'bad gzip' }]
      })
      storage.sha256 = undefined as never
    })
  await unread(second)
  const unknown = {
    id: 'a',
    change: 'unknown',
    bytes: {},
    reason: `backup "${second}" does not hold it: bad gzip`
  }
  for (const [id, against] of [
    [first, second],
    [second, first],
    [second, 'now']
  ])
    t.match(await diff(host, id!, { against: against! }), [unknown], `${id} against ${against}`)
  await unread(second, 2)
  for (const [id, against] of [
    [first, second],
    [second, 'now']
  ])
    await t.rejects(diff(host, id!, { against: against! }), BackupNotComparableError)
})

t.test('what cannot be compared is refused by name', async (t) => {
  const { host, first, second, stored } = await setup(t, [{ _id: 'a' }], async () => {})
  const { app } = host
  const wrong: unknown[] = [undefined, null, {}, { against: 1 }, { against: first, database: 'system' }]
  for (const options of [...wrong, { against: first, databases: ['other'] }, { against: first, signal: 1 }])
    t.throws(() => app.dbBackups.diff(second, options as never), InvalidParameterError)
  t.throws(() => app.dbBackups.diff(1 as never, { against: first }), InvalidParameterError)
  await t.rejects(diff(host, 'none', { against: 'now' }), InvalidParameterError)
  await t.rejects(diff(host, first, { against: '03_ibp_db_backup_1' }), BackupNotFoundError)
  await stored.change(second, (header) => Object.assign(header, { error: 'it failed' }))
  await t.rejects(diff(host, first, { against: second }), BackupNotComparableError)
  await stored.change(second, (header) => Object.assign(header, { error: undefined, in_progress: true }))
  await t.rejects(diff(host, second, { against: 'now' }), BackupNotComparableError)
})

t.test('a database that did not exist counts as empty, unless it is compared with now', async (t) => {
  const { on, host, first, stored, second } = await setup(t, [{ _id: 'a' }], async () => {})
  await stored.change(second, ({ dbs, storage }) => {
    Object.assign(dbs.athena_components!, { missing: true, doc_count: 0 })
    delete storage.databases.components
  })
  t.match(await diff(host, first, { against: second }), [{ id: 'a', change: 'deleted' }])
  t.match(await diff(host, second, { against: first }), [{ id: 'a', change: 'created' }])
  t.strictSame(await diff(host, second, { against: 'now' }), [], 'as a restore leaves it alone')
  await on.couch.db.destroy(on.names.components)
  t.match(await diff(host, first, { against: 'now' }), [{ id: 'a', change: 'deleted' }])
})

t.test('a fault of the database, or of what is stored, ends the stream with its error', async (t) => {
  const on = await setupDatabases(t)
  const proxy = await startFaultProxy(t, on.url)
  const quick = { couch: nano(proxy.url), retry: { attempts: 2, wait: 1, longest: 1 } }
  const docs = Array.from({ length: 50 }, (_, i) => ({ _id: `doc ${i}`, v: 1 }))
  const { host, first, second, stored } = await setup(
    t,
    docs,
    async ({ put, remove }) => {
      for (const { _id } of docs.slice(0, 25)) await put({ _id, v: 2 })
      await remove('doc 30')
    },
    { ...quick, on }
  )
  const times = Number.POSITIVE_INFINITY
  for (const against of [second, 'now']) t.equal((await diff(host, first, { against })).length, 26)
  for (const [path, against] of [
    [/documents\.ndjson/, second],
    [/documents\.ndjson/, 'now'],
    [/_components\/_all_docs/, 'now'],
    [/_components\/_bulk_get/, 'now'],
    [/03_ibp_db_backup/, second]
  ] as const) {
    for (const fault of ['status_500', 'cut_mid'] as const) {
      proxy.add({ fault, path, times })
      await t.rejects(diff(host, first, { against }), CouchError, `${fault} of ${path} against ${against}`)
      await proxy.clear()
    }
  }
  const [chunk] = (await stored.parts(first)).filter((part) => /components/.test(part))
  await stored.delete(chunk!)
  for (const against of [second, 'now']) await t.rejects(diff(host, first, { against }), DamagedBackupError)
})

t.test('a diff reads nothing before it is read, and ends when it is read no more', async (t) => {
  const docs = Array.from({ length: 100 }, (_, i) => ({ _id: `doc ${i}` }))
  const more = { timeouts: { idle: 300 } }
  const { host, first, second } = await setup(
    t,
    docs,
    async ({ remove }) => {
      for (const { _id } of docs) await remove(_id)
    },
    more
  )
  const { dbBackups } = host.app
  dbBackups.diff('03_ibp_db_backup_1', { against: 'now' })

  const stalled = dbBackups.diff(first, { against: second })
  const error = once(stalled, 'error')
  stalled.read()
  await once(stalled, 'readable')
  const waiting = diff(host, first, { against: second })
  t.ok((await error)[0] instanceof StalledDiffError)
  t.equal((await waiting).length, 100, 'the next one has its turn')

  let read = 0
  for await (const _ of dbBackups.diff(first, { against: second })) if (++read === 3) break
  t.equal((await diff(host, first, { against: second })).length, 100, 'a diff that was left makes way')

  const abort = new AbortController()
  const aborted = (async () => {
    for await (const _ of dbBackups.diff(first, { against: second, signal: abort.signal })) abort.abort()
  })()
  await t.rejects(aborted, { name: 'AbortError' })
  t.equal((await diff(host, first, { against: second })).length, 100, 'so does one that was aborted')

  const busy = dbBackups.diff(first, { against: second })
  const reading = (async () => {
    for await (const _ of busy) await delay(100)
  })()
  busy.read()
  const others = Array.from({ length: 16 }, () => diff(host, first, { against: second }))
  const last = diff(host, first, { against: second })
  await t.rejects(last, { code: 'DB_BACKUPS_TOO_MANY_REQUESTS' })
  const closed = host.app.close()
  for (const ended of [reading, ...others])
    await t.rejects(ended as Promise<unknown> as Promise<void>, ClosingError)
  await closed
})
