import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { SourceWatch } from '../lib/couch/source-watch.js'
import type { BackupEvent } from '../types/index.js'
import { apiOf } from './helpers/api.js'
import { startAnsweringCouch } from './helpers/couch-client.js'
import { setupDatabases, type TestDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { poll } from './helpers/poll.js'
import { type RawDatabases, setupRawDatabases } from './helpers/raw-databases.js'
import { startPagingProxy } from './helpers/relay.js'
import { load } from './helpers/seed.js'

const OLD = 30
const PAGE = 10
const image = { content_type: 'image/png', data: Buffer.alloc(300, 1).toString('base64') }
const large = { content_type: 'image/png', data: Buffer.alloc(5 * 1024 * 1024, 2).toString('base64') }

const oldDocuments = () =>
  Array.from({ length: OLD }, (_, i) => ({ _id: `old_${i}`, v: 'old', type: 'peer' }))
const NEW = [
  { _id: 'new_1', v: 'new' },
  { _id: 'old_1', v: 'new' },
  { _id: 'new_2', v: 'new', _attachments: { image } },
  { _id: 'new_3', v: 'new', _attachments: { large } }
]

interface Console {
  on: TestDatabases
  backups: string
  raw?: RawDatabases
}

/** Servers that show when a database was created again: the raw server, and CouchDB itself. */
const servers: Record<string, (t: Test) => Promise<Console>> = {
  raw: async (t) => {
    const raw = await setupRawDatabases(t)
    return { on: raw, backups: raw.names.backups, raw }
  },
  ...(process.env.COUCHDB_URL && {
    couchdb: async (t: Test) => {
      const on = await setupDatabases(t)
      return { on, backups: on.names.system }
    }
  })
}

type Act = (console: Console, times: number) => Promise<void>

/** Deletes the components database, a second after its creation, since CouchDB tells creation times in seconds. */
async function dropComponents({ on }: Console) {
  if (on.real) await delay(1100)
  await on.couch.db.destroy(on.names.components)
}

async function createComponents({ on }: Console, docs: object[] = NEW) {
  await on.couch.db.create(on.names.components)
  await load(on.couch.use(on.names.components), docs as never)
}

const recreate: Act = async (console) => {
  await dropComponents(console)
  await createComponents(console)
}

const purge =
  (...ids: string[]): Act =>
  async ({ on }) => {
    const body: Record<string, string[]> = {}
    for (const id of ids) body[id] = [(await on.couch.use(on.names.components).get(id))._rev]
    await on.couch.request({ db: on.names.components, path: '_purge', method: 'post', body })
  }

interface Scenario {
  /** Requests before which the change happens. */
  at: RegExp
  /** Number of the request, from 1. Default: all. */
  nth?: number
  act: Act
  docs?: object[]
}

/** Backs up while the components database changes. */
async function run(t: Test, setup: (t: Test) => Promise<Console>, { at, nth, act, docs }: Scenario) {
  const made = await setup(t)
  const { on, backups } = made
  await load(on.couch.use(on.names.components), (docs ?? oldDocuments()) as never)
  await load(on.couch.use(on.names.sessions), [{ _id: 'session', type: 'kept' }] as never)
  let seen = 0
  const lines: string[] = []
  const own = new RegExp(` /${on.names.components}([/?]|$)`)
  const proxy = await startPagingProxy(t, on.url, {
    page: PAGE,
    async before(line) {
      if (!own.test(line)) return
      lines.push(line)
      if (at.test(line.replace(on.names.components, 'db')) && (++seen === nth || nth === undefined)) {
        await act(made, seen)
      }
    }
  })
  const events: BackupEvent[] = []
  const host = await buildHost(t, {
    on,
    couch: proxy.couch,
    databases: { ...on.names, backups },
    retry: { attempts: 3, wait: 1, longest: 2 },
    onEvent: (event) => void events.push(event)
  })
  const api = apiOf(host)
  const { id } = (await api.call('POST')).json()
  const summary = await host.waitForBackup(id)
  const parts = async () => {
    const { rows } = await on.couch.use(backups).list({ startkey: 'backup_', endkey: 'backup_\ufff0' })
    return rows.map((row) => row.id)
  }
  // the header records the failure before the chunks are deleted
  const nothingLeft = () =>
    poll('the deletion of its parts', async () => ((await parts()).length ? undefined : true))
  return { ...made, api, id, summary, events, parts, nothingLeft, seen: () => seen, lines }
}

/** Checks that the backup equals the present database, and that nothing else was left. */
async function checkIsNow(
  t: Test,
  { on, api, id, summary, parts, backups }: Awaited<ReturnType<typeof run>>
) {
  t.equal(summary.error, undefined)
  const { docs } = (await api.get(id)).dbs.athena_components!
  const { rows } = await on.couch.use(on.names.components).list()
  t.strictSame(
    docs.map(({ _id, _rev }) => [_id, _rev]).sort(),
    rows.map((row) => [row.id, row.value.rev]).sort(),
    'the backup is the database as it is'
  )
  const header = (await on.couch.use(backups).get(id)) as unknown as {
    storage: { databases: Record<string, { chunks: { id: string }[]; index: { id: string }[] }> }
  }
  const listed = Object.values(header.storage.databases).flatMap(({ chunks, index }) =>
    [...chunks, ...index].map((chunk) => chunk.id)
  )
  t.strictSame((await parts()).sort(), listed.sort(), 'the chunks of the other database are deleted')
}

const scenarios: Record<string, Scenario> = {
  'before the first page': { at: /_changes/, nth: 1, act: recreate },
  'between pages': { at: /_changes/, nth: 2, act: recreate },
  'after all pages were read': { at: /^GET \/db$/, nth: 2, act: recreate },
  'before its attachments are read': {
    at: /_bulk_get/,
    nth: 1,
    act: recreate,
    docs: [{ _id: 'a', _attachments: { image } }, ...oldDocuments()]
  },
  'before a large attachment is read': {
    at: /^GET \/db\/a\//,
    nth: 1,
    act: recreate,
    docs: [{ _id: 'a', _attachments: { large } }, ...oldDocuments()]
  },
  'with nothing in it': {
    at: /_changes/,
    nth: 3,
    act: async (made) => {
      await dropComponents(made)
      await createComponents(made, [])
    }
  }
}

for (const [server, setup] of Object.entries(servers)) {
  for (const [when, scenario] of Object.entries(scenarios)) {
    t.test(`${server}: a database that is created again ${when} is read again`, async (t) => {
      const done = await run(t, setup, scenario)
      await checkIsNow(t, done)
      t.match(
        done.events.filter(({ type }) => type === 'retry'),
        [{ operation: 'backup', error: { error: 'changed' } }],
        'it is told'
      )
      await done.on.couch.db.destroy(done.on.names.components)
      t.match(await done.api.restore(done.id), { status: 'success' })
    })
  }

  t.test(`${server}: documents that are purged after they were read are not in the backup`, async (t) => {
    for (const scenario of [
      { at: /_changes/, nth: 2 },
      { at: /^GET \/db$/, nth: 2 }
    ]) {
      const done = await run(t, setup, { ...scenario, act: purge('old_1', 'old_2') })
      await checkIsNow(t, done)
      t.equal(done.summary.dbs.athena_components!.doc_count, OLD - 2)
    }
  })

  t.test(
    `${server}: a database that becomes another one each time fails the backup by its name`,
    async (t) => {
      const act: Act = (made, times) => purge(`old_${times}`)(made, times)
      const done = await run(t, setup, { at: /since=0/, act })
      t.match(done.summary, { doc_count: 0, dbs: {}, error: /deleted and created again|purged/ })
      t.match(done.summary.error, `database "${done.on.names.components}"`)
      t.equal(done.seen(), 4, 'it was read four times')
      await done.nothingLeft()
      t.match(await done.api.call('POST'), { statusCode: 202 }, 'the lease is free')
    }
  )

  t.test(`${server}: a database that is deleted while it is read fails the backup by its name`, async (t) => {
    for (const scenario of [
      { at: /_changes/, nth: 1 },
      { at: /_changes/, nth: 2 },
      { at: /^GET \/db$/, nth: 2 },
      { at: /^GET \/db\/a\//, nth: 1, docs: [{ _id: 'a', _attachments: { large } }, ...oldDocuments()] }
    ]) {
      const done = await run(t, setup, { ...scenario, act: dropComponents })
      t.match(done.summary, { doc_count: 0, error: /it was deleted while it was read/ })
      t.match(done.summary.error, done.on.names.components)
      await done.nothingLeft()
    }
  })
}

t.test('a database whose sequences go back is read again', async (t) => {
  const done = await run(t, servers.raw!, {
    at: /_changes/,
    nth: 3,
    // as when older files replace those of the database
    act: async ({ raw }) => {
      const database = raw!.raw.store.get(raw!.names.components)!
      for (const [id, { seq }] of database.docs) if (seq > 12) database.docs.delete(id)
      database.seq = 12
    }
  })
  await checkIsNow(t, done)
  t.equal(done.summary.dbs.athena_components!.doc_count, 12)
})

t.test('replicas that count purges and changes in their own way are the same database', async (t) => {
  const INFO = { doc_count: 0, instance_start_time: '7', purge_seq: '5-abc', update_seq: '100-x' }
  let info: object = INFO
  const { db } = await startAnsweringCouch(t, (request, response) => {
    request.resume()
    response.setHeader('content-type', 'application/json')
    response.end(JSON.stringify(info))
  })
  const changed = async (change: object, since = '100-y') => {
    const watch = new SourceWatch(db)
    info = { ...INFO, ...('n' in change ? { cluster: change } : {}) }
    await watch.begin()
    info = { ...info, ...change }
    return watch.changed(since)
  }
  t.equal(await changed({}), false)
  t.equal(await changed({ purge_seq: '5-another' }), false, 'spelled in another way')
  t.equal(await changed({ purge_seq: '4-abc' }), false, 'a replica that counts fewer purges is no change')
  t.equal(await changed({ purge_seq: '6-abc' }), true)
  t.equal(await changed({ instance_start_time: '8' }), true)
  t.equal(await changed({ update_seq: '99-x' }), true)
  t.equal(await changed({ n: 1, update_seq: '99-x' }), true)
  t.equal(await changed({ n: 3, update_seq: '99-x' }), false, 'replicas of a shard count in their own way')
  const silent = { instance_start_time: undefined, purge_seq: undefined, update_seq: undefined }
  info = { ...INFO, ...silent }
  const watch = new SourceWatch(db)
  await watch.begin()
  t.equal(await watch.changed('100'), false, 'a server that tells nothing')
  info = { ...INFO, purge_seq: '6-b' }
  await watch.begin()
  info = { ...INFO, purge_seq: '5-a' }
  await watch.begin()
  info = { ...INFO, purge_seq: '6-b' }
  t.equal(await watch.changed('100'), false, 'the most that was seen counts')
})
