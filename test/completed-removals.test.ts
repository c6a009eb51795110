import Fastify from 'fastify'
import t from 'tap'
import { createMemoryWebhookStore } from '../lib/index.js'
import type { ActiveOperation } from '../lib/operations/active-operations.js'
import { Databases } from '../lib/operations/databases.js'
import { Instance } from '../lib/operations/instance.js'
import { Prunes, pruningBy } from '../lib/operations/prunes.js'
import { resolveOptions } from '../lib/options.js'
import { LEASE, setupDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { poll } from './helpers/poll.js'
import { fabricate, StoredBackupsOf } from './helpers/stored-backups.js'

t.test('an instance that has completed an interrupted removal completes the next one as well', async (t) => {
  const on = await setupDatabases(t)
  const ids = await fabricate(on, [{ at: 1001, chunks: 2 }, { at: 1002, chunks: 2 }, { at: 1003 }])
  const stored = new StoredBackupsOf(on)
  await buildHost(t, { on, timeouts: { lease: 2000 } })
  for (const id of ids.slice(0, 2)) {
    await stored.leaveRemoval([id])
    t.equal((await stored.flaws()).length, 2, 'its chunks are there')
    await poll('the completion', async () => ((await stored.flaws()).length === 0 ? true : undefined), 20_000)
    await poll('its end', async () => ('operation' in (await stored.db.get(LEASE)) ? undefined : true))
  }
})

t.test('a removal is completed by a further one only when it has failed', async (t) => {
  const on = await setupDatabases(t)
  await fabricate(on, [
    { at: 1001, chunks: 1 },
    { at: 1002, chunks: 1 }
  ])
  const options = resolveOptions({
    couch: on.couch,
    databases: on.names,
    authorize: () => undefined,
    rebuildWhitelist: () => undefined,
    webhooks: createMemoryWebhookStore()
  })
  const instance = new Instance(options, Fastify().log)
  t.teardown(() => instance.close())
  const prunes = new Prunes(new Databases({ ...on.names, backups: on.names.system }, instance))
  const operation = { workClient: instance.client } as ActiveOperation
  const begin = async () => {
    const removal = prunes.describe(pruningBy({ keep: { last: 1 } }, options, Date.now()))
    const prepared = await removal.prepare(operation, async () => {})
    if (prepared === false) throw new Error('it has no record')
    return () =>
      removal.work(operation, prepared, async () => Promise.reject(new Error('nothing runs inside')))
  }
  const done = (await begin())()
  t.equal(prunes.completion(), undefined, 'it runs')
  await done
  t.equal(prunes.completion(), undefined, 'it is done')
  await fabricate(on, [{ at: 1003, chunks: 1 }])
  const work = await begin()
  await instance.close()
  await t.rejects(work())
  t.ok(prunes.completion(), 'it has failed')
})

t.test('a dry run takes nothing as its own that another instance removes afterwards', async (t) => {
  const on = await setupDatabases(t)
  const ids = await fabricate(on, [{ at: 1001 }, { at: 1002 }, { at: 1003 }])
  await new StoredBackupsOf(on).markRemoved(ids.slice(0, 1))
  const [one, other] = [
    (await buildHost(t, { on })).app.dbBackups,
    (await buildHost(t, { on })).app.dbBackups
  ]
  const keep = { last: 1 }
  const idsOf = ({ removed }: { removed: readonly { id: string }[] }) => removed.map(({ id }) => id)
  t.strictSame(idsOf(await one.prune({ keep, dryRun: true })), ids.slice(0, 2))
  t.strictSame(idsOf(await other.prune({ keep })), ids.slice(0, 2))
  t.strictSame(idsOf(await one.prune({ keep })), [])
})
