import nano from 'nano'
import t, { type Test } from 'tap'
import type { BackupEvent } from '../types/index.js'
import { apiOf } from './helpers/api.js'
import { setupDatabases, type TestDatabases } from './helpers/database.js'
import { startFaultProxy } from './helpers/fault-proxy.js'
import { buildHost, type HostOptions } from './helpers/host.js'
import { poll } from './helpers/poll.js'
import { startPagingProxy } from './helpers/relay.js'
import { load, seedDocuments } from './helpers/seed.js'

const stampOf = (id: string) => id.slice('03_ibp_db_backup_'.length)

/** Deletes or changes a header, given by its id. */
type Harm = (id: string) => Promise<unknown>

interface Watched {
  on: TestDatabases
  /** Returns the ids of the chunks and manifests of one backup, or of all. */
  parts(id?: string): Promise<string[]>
  remove: Harm
  /** Writes a document of the console in place of one. */
  replace: Harm
  /** Writes a header that says that its backup has failed. */
  end: Harm
  /** Writes the same content as a new revision. */
  rewrite: Harm
}

async function databases(t: Test): Promise<Watched> {
  const on = await setupDatabases(t)
  for (const logical of ['components', 'sessions'] as const) {
    await load(on.couch.use(on.names[logical]), seedDocuments({ count: 20 }))
  }
  const system = on.couch.use(on.names.system)
  const change = (id: string, changed: (doc: object) => object) =>
    again(async () => {
      const doc = await system.get(id)
      await system.insert({ ...changed(doc), _id: id, _rev: doc._rev } as never)
    })
  return {
    on,
    async parts(id) {
      const { rows } = await system.list({ startkey: 'backup_', endkey: 'backup_\ufff0' })
      return rows.map((row) => row.id).filter((part) => id === undefined || part.includes(stampOf(id)))
    },
    remove: (id) => again(async () => system.destroy(id, (await system.get(id))._rev)),
    replace: (id) => change(id, () => ({ type: 'peer', mine: true })),
    end: (id) => change(id, (header) => ({ ...header, in_progress: false, error: 'ended by hand' })),
    rewrite: (id) => change(id, (doc) => doc)
  }
}

/** Tries again after a conflict, since the backup writes its header as well. */
async function again(write: () => Promise<unknown>): Promise<void> {
  for (;;) {
    try {
      await write()
      return
    } catch (error) {
      if ((error as { statusCode?: number }).statusCode !== 409) throw error
    }
  }
}

/** Builds a host with a good backup. */
async function setup(t: Test, made: Watched, options: HostOptions = {}) {
  const events: BackupEvent[] = []
  const onEvent = (event: BackupEvent) => void events.push(event)
  const good = await apiOf(await buildHost(t, { on: made.on })).backup()
  const host = await buildHost(t, { on: made.on, timeouts: { lease: 2000 }, onEvent, ...options })
  return { good, goodParts: await made.parts(good), host, api: apiOf(host), events }
}

/** Starts a backup, and harms it once, before the first of its requests arrives that `at` tells. */
async function startHarmed(
  t: Test,
  at: (line: string, id: string) => Promise<boolean> | boolean,
  harm: (made: Watched, id: string) => Promise<unknown>
) {
  const made = await databases(t)
  let id: string | undefined
  let done = false
  const proxy = await startPagingProxy(t, made.on.url, {
    page: undefined,
    async before(line) {
      if (done || id === undefined || !(await at(decodeURIComponent(line), id))) return
      done = true
      await harm(made, id)
    }
  })
  const { good, goodParts, host, events } = await setup(t, made, {
    couch: proxy.couch,
    onEvent: (event) => {
      if (event.type === 'backup_started') id = event.id
      events.push(event)
    }
  })
  const started = await host.app.dbBackups.start()
  const error = await started.finished.then(
    () => undefined,
    (reason: Error & { code?: string }) => reason
  )
  t.ok(done, 'it was harmed')
  t.strictSame(await made.parts(), goodParts, 'its parts are deleted, and nothing of the other backup')
  return { id: started.id, error, made, host, events, good }
}

/** Harms the header of a running backup. */
async function harmed(
  t: Test,
  at: (line: string, id: string) => Promise<boolean> | boolean,
  harm: 'remove' | 'replace' | 'end' = 'remove'
) {
  const run = await startHarmed(t, at, (made, id) => made[harm](id))
  const { made, host, good } = run
  const lease = await made.on.couch.use(made.on.names.system).get('athena_backup_lease')
  t.notOk('operation' in lease, 'the lease is free at once')
  t.equal((await apiOf(host).get(good)).doc_count, 40)
  return run
}

const moments: Record<string, (names: Record<string, string>) => (line: string, id: string) => boolean> = {
  'while a database is read':
    ({ sessions }) =>
    (line) =>
      line.startsWith(`GET /${sessions}/_changes`),
  'before its presence is checked': () => (line, id) =>
    line.includes(`/_all_docs?startkey="backup_chunk_${stampOf(id)}_"`)
}

/** How a header is harmed, and what is at its id when its backup has failed. */
const HARMS = {
  deleted: { harm: 'remove', left: undefined },
  replaced: { harm: 'replace', left: { type: 'peer', mine: true } },
  'replaced by one that is not in progress': {
    harm: 'end',
    left: { type: 'athena_backup', in_progress: false, error: 'ended by hand' }
  }
} as const

for (const [when, at] of Object.entries(moments)) {
  for (const [how, { harm, left }] of Object.entries(HARMS)) {
    t.test(`a header that is ${how} ${when} fails its backup`, async (t) => {
      let names: Record<string, string> | undefined
      const { id, error, made, host } = await harmed(
        t,
        (line, backup) => {
          names ??= namesIn(line)
          return at(names)(line, backup)
        },
        harm
      )
      t.match(error, { code: 'DB_BACKUPS_DELETED', message: id })
      t.equal((await host.app.dbBackups.list()).ids.includes(id), harm === 'end')
      const { rows } = await made.on.couch
        .use(made.on.names.system)
        .list({ keys: [id], include_docs: true } as never)
      if (left) t.match(rows, [{ doc: left }], 'the other document is as it was')
      t.ok(await apiOf(host).backup(), 'the next backup')
    })
  }
}

/** The databases have a common prefix. */
const namesIn = (line: string) => ({ sessions: `${/\/(t[0-9a-f]+_)/.exec(line)?.[1]}sessions` })

t.test('a header that is deleted as its backup is about to be complete fails it as well', async (t) => {
  let checked = false
  const { error, id } = await harmed(t, (line, backup) => {
    const isHeader = line.split('?')[0]!.endsWith(`/${backup}`)
    if (line.includes(`/_all_docs?startkey="backup_manifest_${stampOf(backup)}_"`)) checked = true
    // the backup writes its header last, after it has checked that all chunks are there
    return checked && isHeader && line.startsWith('PUT')
  })
  t.match(error, { message: id })
})

for (const [how, harm] of [
  ['deleted', 'remove'],
  ['written again', 'rewrite']
] as const) {
  t.test(`a chunk that is ${how} while its backup runs fails the backup`, async (t) => {
    const { id, error, made } = await startHarmed(
      t,
      (line, backup) => line.includes(`startkey="backup_chunk_${stampOf(backup)}_"`),
      async (made, backup) => made[harm]((await made.parts(backup))[0]!)
    )
    t.match(error, { message: /is missing/ })
    t.match(await made.on.couch.use(made.on.names.system).get(id), {
      in_progress: false,
      error: /is missing/
    })
  })
}

t.test('chunks that come after their header was deleted are deleted', async (t) => {
  const made = await databases(t)
  const proxy = await startFaultProxy(t, made.on.url)
  const { host, goodParts, good } = await setup(t, made, {
    couch: nano(proxy.url),
    timeouts: { lease: 2000, idle: 1000 },
    retry: { attempts: 1 }
  })
  const chunk = /backup_chunk_[0-9]+_components/
  const release = proxy.hold({ method: 'PUT', path: chunk })
  const { id, finished } = await host.app.dbBackups.start()
  await poll('the chunk', () => (proxy.seen.some(({ path }) => chunk.test(path)) ? true : undefined))
  await made.remove(id)
  await t.rejects(finished)
  t.strictSame(await made.parts(), goodParts)
  release()
  const keys = [`backup_chunk_${stampOf(id)}_components_000000`]
  const system = made.on.couch.use(made.on.names.system)
  await poll('the late chunk', async () => {
    const { rows } = await system.fetchRevs({ keys })
    return 'value' in (rows[0] ?? {}) ? true : undefined
  })
  await poll('its deletion', async () => ((await made.parts(id)).length === 0 ? true : undefined))
  t.strictSame(await made.parts(), goodParts)
  t.equal((await apiOf(host).get(good)).doc_count, 40)
})

t.test('a header that is deleted while no server runs leaves no parts', async (t) => {
  const made = await databases(t)
  const { on } = made
  const dead = '03_ibp_db_backup_1592924104038'
  const chunk = { type: 'athena_backup_chunk', backup_id: dead }
  const { app } = await buildHost(t, { on })
  const { id: good, finished } = await app.dbBackups.start()
  await finished
  const goodParts = await made.parts()
  const system = on.couch.use(on.names.system)
  const { _rev } = await system.get('athena_backup_lease')
  await load(system, [
    { _id: `backup_chunk_${stampOf(dead)}_components_000000`, ...chunk },
    { _id: `backup_manifest_${stampOf(dead)}_components_000000`, ...chunk, type: 'athena_backup_manifest' },
    // a chunk of a backup without a header that was not seen to fail: the backup may be arriving by replication
    { _id: 'backup_chunk_1592924104039_components_000000', ...chunk }
  ] as never)
  const lease = { operation: 'backup', id: dead, instance: 'x', claim: 'x', beat: 0, ttl: 500 }
  await system.insert({ _id: 'athena_backup_lease', _rev, type: 'athena_backup_lease', ...lease } as never)
  const host = await buildHost(t, { on, timeouts: { lease: 2000 } })
  await poll('the deletion', async () => ((await made.parts(dead)).length === 0 ? true : undefined))
  t.strictSame(await made.parts(), ['backup_chunk_1592924104039_components_000000', ...goodParts].sort())
  t.equal((await apiOf(host).get(good)).doc_count, 40)
})
