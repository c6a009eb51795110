import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as client from 'prom-client'
import t from 'tap'
import type { MetricsOptions } from '../types/index.js'
import { apiOf, backupOf } from './helpers/api.js'
import { buildHost } from './helpers/host.js'
import { COUNTS, leaveInterruptedBackup, observe, seeded, startReceiver } from './helpers/observed-host.js'

const LAST = 'db_backups_last_success_timestamp_seconds'

t.test('a backup is counted: duration, documents, bytes, time of success', async (t) => {
  const { app, metric } = await observe(t)
  const { finished } = await app.dbBackups.start()
  t.equal(await metric('db_backups_in_progress{operation="backup"}'), 1)
  const backup = await finished
  t.equal(await metric('db_backups_in_progress{operation="backup"}'), 0)
  t.equal(await metric('db_backups_duration_seconds_count{operation="backup",outcome="success"}'), 1)
  const seconds = await metric('db_backups_duration_seconds_sum{operation="backup",outcome="success"}')
  t.ok(seconds! > 0 && seconds! < 60, 'in seconds')
  for (const database of ['components', 'sessions', 'system'] as const) {
    const { raw_bytes, stored_bytes } = backup.dbs[`athena_${database}`]!
    const labels = `operation="backup",database="${database}",result="stored"`
    t.equal(await metric(`db_backups_documents_total{${labels}}`), COUNTS[database])
    t.equal(await metric(`db_backups_raw_bytes_total{database="${database}"}`), raw_bytes)
    t.equal(await metric(`db_backups_stored_bytes_total{database="${database}"}`), stored_bytes)
  }
  t.equal(await metric('db_backups_failures_total{operation="backup"}'), 0)
  t.equal(await metric(`${LAST}{operation="backup"}`), backup.end_timestamp! / 1000)
})

t.test('a restore is counted by result, a dry run apart from it', async (t) => {
  const { app, metric, on } = await observe(t)
  const { id, finished } = await app.dbBackups.start()
  await finished
  await on.couch.db.destroy(on.names.components)
  await (await app.dbBackups.restore({ id }, { dryRun: true })).finished
  const created = 'db_backups_documents_total{operation="restore",database="components",result="created"}'
  const runs = (operation: string) =>
    metric(`db_backups_duration_seconds_count{operation="${operation}",outcome="success"}`)
  t.equal(await runs('dry_run'), 1)
  t.equal(await runs('restore'), undefined)
  t.equal(await metric(created), undefined, 'a dry run writes nothing')
  t.equal(await metric(`${LAST}{operation="restore"}`), undefined)

  const before = Date.now() / 1000
  await (await app.dbBackups.restore({ id })).finished
  t.equal(await runs('restore'), 1)
  t.equal(await metric(created), COUNTS.components)
  const unchanged = 'db_backups_documents_total{operation="restore",database="sessions",result="unchanged"}'
  t.equal(await metric(unchanged), COUNTS.sessions)
  t.ok((await metric(`${LAST}{operation="restore"}`))! >= before)
})

t.test('failures and retries are counted, and are no success', async (t) => {
  const { app, metric, proxy, event } = await observe(t)
  t.equal(await metric('db_backups_failures_total{operation="backup"}'), 0, 'there before the first one')
  proxy.add({ path: /_changes/, fault: 'status_503', times: 4 })
  await t.rejects((await app.dbBackups.start()).finished)
  await event('backup_failed')
  t.equal(await metric('db_backups_failures_total{operation="backup"}'), 1)
  t.equal(await metric('db_backups_retries_total{operation="backup"}'), 3)
  t.equal(await metric('db_backups_duration_seconds_count{operation="backup",outcome="failure"}'), 1)
  t.equal(await metric('db_backups_in_progress{operation="backup"}'), 0)
  t.notOk(await metric(`${LAST}{operation="backup"}`))
})

t.test('a restore that fails is counted as one', async (t) => {
  const { app, metric, event } = await observe(t, {
    rebuildWhitelist: () => Promise.reject(new Error('no peers'))
  })
  const { id, finished } = await app.dbBackups.start()
  await finished
  await t.rejects((await app.dbBackups.restore({ id })).finished)
  await event('restore_failed')
  t.equal(await metric('db_backups_failures_total{operation="restore"}'), 1)
  t.equal(await metric('db_backups_in_progress{operation="restore"}'), 0)
})

t.test('recoveries and deliveries are counted', async (t) => {
  const on = await seeded(t)
  await leaveInterruptedBackup(on)
  const { app, metric, event } = await observe(t, { on, clientWebhook: { attempts: 1 } })
  await event('recovered')
  t.equal(await metric('db_backups_recoveries_total{operation="backup"}'), 1)
  const { id, finished } = await app.dbBackups.start()
  await finished
  for (const [status, type] of [
    [200, 'webhook_delivered'],
    [500, 'webhook_failed']
  ] as const) {
    const clientWebhookUrl = await startReceiver(t, status)
    await (await app.dbBackups.restore({ id }, { clientWebhookUrl })).finished
    await event(type)
  }
  t.equal(await metric('db_backups_webhook_deliveries_total{outcome="success"}'), 1)
  t.equal(await metric('db_backups_webhook_deliveries_total{outcome="failure"}'), 1)
})

t.test('the time of the last backup outlives a restart', async (t) => {
  const first = await observe(t)
  const backup = await (await first.app.dbBackups.start()).finished
  // newer ones that have not succeeded
  const db = first.on.couch.use(first.on.names.system)
  const header = { type: 'athena_backup', dbs: {}, end_timestamp: Date.now() }
  const later = (ms: number) => `03_ibp_db_backup_${backup.start_timestamp + ms}`
  await db.insert({ _id: later(1), ...header, in_progress: false, error: 'no space' } as object)
  await db.insert({ _id: later(2), ...header, in_progress: true } as object)
  await first.app.close()
  const { metric } = await observe(t, { on: first.on })
  t.equal(await eventually(() => metric(`${LAST}{operation="backup"}`)), backup.end_timestamp! / 1000)
})

t.test('a backup that another instance makes counts', async (t) => {
  const on = await seeded(t)
  const { metric } = await observe(t, { on, timeouts: { lease: 2000 } })
  t.equal(await eventually(() => metric(`${LAST}{operation="backup"}`)), 0, 'there is none')
  const other = await buildHost(t, { on })
  const backup = await (await other.app.dbBackups.start()).finished
  const told = () => metric(`${LAST}{operation="backup"}`)
  t.equal(await eventually(async () => (await told()) || undefined), backup.end_timestamp! / 1000)
})

t.test("without an end, an older backup counts as of its id's time", async (t) => {
  const on = await seeded(t)
  const old = { _id: '03_ibp_db_backup_1592922855871', type: 'athena_backup', dbs: {} }
  await on.couch.use(on.names.system).insert(old as object)
  const { metric } = await observe(t, { on })
  t.equal(await eventually(() => metric(`${LAST}{operation="backup"}`)), 1592922855.871)
})

t.test('registrations on one registry share the metrics; a prefix keeps them apart', async (t) => {
  const on = await seeded(t)
  const registry = new client.Registry()
  const one = await observe(t, { on, metrics: { client, registry } })
  const two = await observe(t, { on, metrics: { client, registry } })
  const apart = await observe(t, { on, metrics: { client, registry, prefix: 'other_' } })
  for (const { app } of [one, two, apart]) await (await app.dbBackups.start()).finished
  const series = 'db_backups_duration_seconds_count{operation="backup",outcome="success"}'
  t.equal(await one.metric(series), 2)
  t.equal(await one.metric(`other_${series}`), 1)
})

t.test("the client's own registry is the default", async (t) => {
  t.teardown(() => client.register.clear())
  const host = await buildHost(t, { metrics: { client } })
  await apiOf(host).restore(backupOf([{ _id: 'a' }]))
  const series =
    /db_backups_documents_total\{operation="restore",database="components",result="created"\} 1\n/
  t.match(await client.register.metrics(), series)
})

t.test('metric names follow the conventions of Prometheus, and are documented', async (t) => {
  const { registry } = await observe(t)
  const all = await registry.getMetricsAsJSON()
  const documentation = await readFile(join(__dirname, '../docs/observability.md'), 'utf8')
  t.equal(all.length, 25)
  for (const { name, type, help } of all) {
    t.match(name, /^db_backups_[a-z_]+$/)
    t.ok(help.length > 10)
    t.ok(documentation.includes(`| \`${name}\` `), name)
    t.equal(name.endsWith('_total'), String(type) === 'counter', name)
  }
})

t.test('a wrong option is named', async (t) => {
  const taken = new client.Registry()
  new client.Counter({ name: 'db_backups_in_progress', help: 'another', registers: [taken] })
  for (const [metrics, problem] of [
    [{}, /metrics\.client/],
    [{ client: {} }, /metrics\.client/],
    [{ client, registry: {} }, /metrics\.registry/],
    [{ client, prefix: 'a-b' }, /metrics\.prefix/],
    [{ client, more: 1 }, /metrics\.more/],
    [{ client, registry: taken }, /"metrics\.registry" has another metric named "db_backups_in_progress"/]
  ] as [object, RegExp][]) {
    await t.rejects(buildHost(t, { metrics: metrics as MetricsOptions }), {
      name: 'TypeError',
      message: problem
    })
  }
})

async function eventually<T>(read: () => Promise<T | undefined>): Promise<T> {
  for (let i = 0; i < 1500; i++) {
    const value = await read()
    if (value !== undefined) return value
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  throw new Error('it did not come')
}
