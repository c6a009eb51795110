import { setTimeout as delay } from 'node:timers/promises'
import nano from 'nano'
import t, { type Test } from 'tap'
import type { BackupEvent } from '../../types/index.js'
import { LEASE, setupDatabases } from '../helpers/database.js'
import { type Fault, startFaultProxy } from '../helpers/fault-proxy.js'
import { buildHost, type HostOptions } from '../helpers/host.js'
import { observe } from '../helpers/observed-host.js'
import { poll } from '../helpers/poll.js'
import { fabricate, StoredBackupsOf } from '../helpers/stored-backups.js'

const timeouts = { lease: 2000 }
const keep = { last: 1 }

/** Stores four backups, the second and the third of which list chunks of those before. */
async function fabricated(t: Test) {
  const on = await setupDatabases(t)
  const chunk = (stamp: number) => `backup_chunk_${stamp}_components_000000`
  const ids = await fabricate(on, [
    { at: 1001, chunks: 3 },
    { at: 1002, shared: [chunk(1001)] },
    { at: 1003, shared: [chunk(1002)] },
    { at: 1004 }
  ])
  return { on, ids, stored: new StoredBackupsOf(on) }
}

/** Builds a host on a proxy, with these backups. */
async function setup(t: Test, options: HostOptions = {}) {
  const { on, ids, stored } = await fabricated(t)
  const proxy = await startFaultProxy(t, on.url)
  const events: BackupEvent[] = []
  const host = await buildHost(t, {
    on: { ...on, couch: nano(proxy.url) },
    timeouts,
    retry: { attempts: 6, wait: 100, longest: 200 },
    onEvent: (event) => void events.push(event),
    ...options
  })
  return { on, ids, proxy, events, dbBackups: host.app.dbBackups, stored }
}

const removedOf = (ids: readonly string[]) =>
  ids.slice(0, 3).map((id) => ({ id, reasons: ['no rule keeps it'] }))

t.test('what an instance that died has left of a removal is completed by another', async (t) => {
  const { on, ids, stored } = await fabricated(t)
  await stored.leaveRemoval(ids.slice(0, 3))
  const before = (await stored.flaws()).length
  t.equal(before, 5, 'no backup lists the chunks of the first three')
  const { app, events, lines, metric } = await observe(t, { on, timeouts })
  await poll('the completion', async () => ((await stored.flaws()).length === 0 ? true : undefined), 20_000)
  await poll('its end', async () => events.find(({ type }) => type === 'prune_finished'))
  t.match(
    events.filter(({ type }) => /lease|recovered|prune/.test(type)),
    [
      { type: 'lease_taken_over', operation: 'prune' },
      { type: 'recovered', operation: 'prune' },
      { type: 'prune_started' },
      { type: 'prune_finished', outcome: { removed: removedOf(ids), parts: 5 } }
    ]
  )
  t.strictSame(await app.dbBackups.list(), { ids: ids.slice(3) })
  await delay(2 * timeouts.lease)
  t.equal(events.filter(({ type }) => type === 'prune_started').length, 1, 'it is done once')
  t.equal(await metric('db_backups_pruned_total'), 3)
  t.match(
    lines.filter(({ event }) => event === 'prune_finished'),
    [{ removed: 3, removedBackups: ids.slice(0, 3) }]
  )
  t.strictSame((await app.dbBackups.prune({ keep })).removed, [], 'it is told once')
  await (await app.dbBackups.start()).finished
})

t.test('what an interrupted removal has removed is told by the next, and once', async (t) => {
  const on = await setupDatabases(t)
  const ids = await fabricate(on, [
    { at: 1001 },
    { at: 1002 },
    { at: 1003 },
    { at: 1004, shared: ['backup_chunk_1003_components_000000'] }
  ])
  const stored = new StoredBackupsOf(on)
  await stored.markRemoved(ids.slice(0, 3))
  const { dbBackups } = (await buildHost(t, { on })).app
  t.match(await dbBackups.prune({ keep, dryRun: true }), { removed: removedOf(ids), parts: 2 })
  t.match(await dbBackups.prune({ keep }), { removed: removedOf(ids), parts: 2 })
  const [third] = await stored.marked()
  t.equal(third, ids[2], 'another backup has its chunk')
  t.match(await dbBackups.prune({ keep, dryRun: true }), { removed: [] })
  t.match(await dbBackups.prune({ keep }), { removed: [] })
  t.strictSame(await stored.marked(), [third])
})

t.test('a start right after such a death does not wait for the completion', async (t) => {
  const { on, ids, stored } = await fabricated(t)
  await stored.leaveRemoval(ids.slice(0, 3))
  const { app } = await buildHost(t, { on, timeouts: { lease: 60_000 } })
  const begun = await poll('a start', () => app.dbBackups.start().catch(() => undefined))
  await begun.finished
  t.strictSame((await app.dbBackups.list()).ids, [ids[3], begun.id])
  await app.dbBackups.prune({ keep: { last: 2 } })
  t.strictSame(await stored.flaws(), [])
})

for (const fault of [
  'reply_lost',
  'status_503',
  'reset',
  'cut_mid',
  'duplicate',
  'shard_500'
] as const satisfies Fault[]) {
  for (const [what, match] of Object.entries({
    'a mark': { method: 'PUT', path: /\/03_ibp_db_backup_1002/ },
    'a deletion of chunks': { method: 'POST', path: /_bulk_docs/ }
  })) {
    t.test(`a removal outlives the fault ${fault} at ${what}`, async (t) => {
      const { ids, proxy, dbBackups, stored } = await setup(t)
      const rule = proxy.add({ fault, ...match })
      const outcome = await dbBackups.prune({ keep })
      t.ok(rule.hits > 0)
      t.match(outcome, { removed: ids.slice(0, 3).map((id) => ({ id })), parts: 5 })
      t.strictSame(await dbBackups.list(), { ids: ids.slice(3) })
      t.strictSame(await stored.flaws(), [])
    })
  }
}

t.test('a chunk that the database does not delete is no success, and is deleted soon', async (t) => {
  const { ids, proxy, dbBackups, events, stored } = await setup(t)
  proxy.add({ fault: 'conflict_storm', method: 'POST', path: /_bulk_docs/ })
  await t.rejects(dbBackups.prune({ keep }), { name: 'CouchError' })
  t.strictSame(await dbBackups.list(), { ids: ids.slice(3) })
  t.not((await stored.flaws()).length, 0)
  t.notOk('operation' in (await stored.db.get(LEASE)), 'the lease is free')
  await poll('the completion', async () => ((await stored.flaws()).length === 0 ? true : undefined), 20_000)
  await poll('its end', async () => events.find(({ type }) => type === 'prune_finished'))
  t.match(
    events.filter(({ type }) => type.startsWith('prune')),
    [
      { type: 'prune_started' },
      { type: 'prune_failed' },
      { type: 'prune_started' },
      { type: 'prune_finished', outcome: { removed: removedOf(ids), parts: 5 } }
    ]
  )
  t.strictSame((await dbBackups.prune({ keep })).removed, [], 'it is told once')
})
