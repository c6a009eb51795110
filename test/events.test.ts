import t from 'tap'
import type { BackupEvent } from '../types/index.js'
import { startGate } from './helpers/gate.js'
import {
  COUNTS,
  leaveInterruptedBackup,
  type ObservedHost,
  observe,
  seeded,
  startReceiver
} from './helpers/observed-host.js'
import { poll } from './helpers/poll.js'

const types = (events: readonly BackupEvent[]) => events.map(({ type }) => type)
const databases = ({ events }: ObservedHost) =>
  events.flatMap((event) => ('database' in event ? [event.database] : []))

t.test('a backup tells its start, each database and its end', async (t) => {
  const host = await observe(t)
  const { id, finished } = await host.app.dbBackups.start()
  const backup = await finished
  t.strictSame(types(host.events), [
    'backup_started',
    ...Array(3).fill('backup_database_finished'),
    'backup_finished'
  ])
  t.strictSame(databases(host), ['components', 'sessions', 'system'])
  t.match(host.events[1], { id, durationMs: Number, summary: backup.dbs.athena_components })
  t.match(host.events.at(-1), { id, durationMs: Number, retries: 0, backup: { doc_count: 255 } })
})

t.test('a restore tells its check, each database, the white list and its end', async (t) => {
  const host = await observe(t)
  const { id, finished } = await host.app.dbBackups.start()
  await finished
  await host.on.couch.db.destroy(host.on.names.components)
  host.events.length = 0
  const { tx_id, finished: restored } = await host.app.dbBackups.restore({ id })
  const outcome = await restored
  t.strictSame(types(host.events), [
    'restore_started',
    'restore_checked',
    ...Array(3).fill('restore_database_finished'),
    'restore_whitelist_rebuilt',
    'restore_finished'
  ])
  const about = { tx_id, backup_id: id, dryRun: false }
  for (const event of host.events) t.match(event, about)
  t.match(host.events[1], { durationMs: Number, documents: COUNTS })
  t.match(host.events[2], {
    database: 'components',
    counts: { total: COUNTS.components, created: COUNTS.components, unchanged: 0 }
  })
  t.match(host.events.at(-1), { outcome, retries: 0 })
})

t.test('a dry run says so, and rebuilds no white list', async (t) => {
  const host = await observe(t)
  const { id, finished } = await host.app.dbBackups.start()
  await finished
  host.events.length = 0
  await (await host.app.dbBackups.restore({ id }, { dryRun: true })).finished
  for (const event of host.events) t.match(event, { dryRun: true })
  t.notOk(types(host.events).includes('restore_whitelist_rebuilt'))
})

t.test('a failed restore tells what was done', async (t) => {
  const rebuildWhitelist = () => Promise.reject(new Error('no peers'))
  const host = await observe(t, { rebuildWhitelist })
  const { id, finished } = await host.app.dbBackups.start()
  await finished
  await t.rejects((await host.app.dbBackups.restore({ id })).finished)
  const failed = await host.event('restore_failed')
  t.match(failed, { error: { message: /no peers/ }, outcome: { databases: { components: { total: 250 } } } })
})

t.test('a call that is made again is told, and counted at the end', async (t) => {
  const host = await observe(t)
  host.proxy.add({ path: /_changes/, fault: 'status_503', times: 2 })
  const { id, finished } = await host.app.dbBackups.start()
  await finished
  const retries = host.events.filter(({ type }) => type === 'retry')
  t.match(retries, [
    { operation: 'backup', id, attempt: 1, waitMs: Number, error: { status: 503 } },
    { operation: 'backup', id, attempt: 2, waitMs: Number, error: { status: 503 } }
  ])
  t.equal((await host.event('backup_finished')).retries, 2)
})

t.test('a failure that cannot be written down is told', async (t) => {
  const host = await observe(t)
  host.proxy.add({ path: /_changes/, fault: 'status_500', times: Number.POSITIVE_INFINITY })
  host.proxy.add({
    method: 'PUT',
    path: /03_ibp/,
    nth: 2,
    fault: 'status_500',
    times: Number.POSITIVE_INFINITY
  })
  const { id, finished } = await host.app.dbBackups.start()
  await t.rejects(finished)
  t.match(await host.event('failure_not_recorded'), { operation: 'backup', id, error: { status: 500 } })
  t.match(await host.event('backup_failed'), { id, retries: Number })
})

t.test('the end of an interrupted backup is told by the instance that takes it over', async (t) => {
  const on = await seeded(t)
  const id = await leaveInterruptedBackup(on)
  const host = await observe(t, { on })
  t.match(await host.event('recovered'), { operation: 'backup', id, durationMs: Number })
  t.strictSame(types(host.events), ['lease_taken_over', 'recovered'])
  t.match(await host.app.dbBackups.summary(id), { in_progress: false, error: /interrupted/ })
})

t.test('one of several instances that find an interrupted backup ends it, and none fails', async (t) => {
  const on = await seeded(t)
  await leaveInterruptedBackup(on)
  const hosts = await Promise.all(Array.from({ length: 5 }, () => observe(t, { on })))
  const told = () => hosts.flatMap(({ events }) => types(events)).sort()
  await poll('the recovery', () => told().find((type) => type === 'recovered'))
  for (const { app } of hosts) await app.close()
  t.strictSame(told(), ['lease_taken_over', 'recovered'])
})

t.test('an instance that finds late what another has ended meanwhile tells nothing of it', async (t) => {
  const on = await seeded(t)
  const id = await leaveInterruptedBackup(on)
  const system = on.couch.use(on.names.system)
  await system.destroy('athena_backup_lease', (await system.get('athena_backup_lease'))._rev)
  const gate = await startGate(t, on)
  const [header, lease] = [new RegExp(`GET .*/${id}`), /_bulk_get$/]
  const readHeader = gate.hold(header)
  const late = await observe(t, { on, couch: gate.couch })
  await gate.held(header)
  const readLease = gate.hold(lease)
  readHeader()
  await gate.held(lease)
  const other = await observe(t, { on })
  await other.event('recovered')
  await other.app.close()
  readLease()
  const start = () => late.app.dbBackups.start().catch(() => undefined)
  await (await poll('the lease', start)).finished
  t.notOk(types(late.events).includes('recovered'))
})

t.test('a check that fails is told', async (t) => {
  const on = await seeded(t)
  await leaveInterruptedBackup(on)
  const host = await observe(t, {
    on,
    couch: () => {
      throw new Error('no credentials yet')
    }
  })
  t.match(await host.event('check_failed'), { error: { message: 'no credentials yet' } })
})

t.test("a call of the client's webhook is told, without the URL", async (t) => {
  const host = await observe(t, { clientWebhook: { attempts: 1 } })
  const { id, finished } = await host.app.dbBackups.start()
  await finished
  const restore = async (clientWebhookUrl: string) =>
    (await host.app.dbBackups.restore({ id }, { clientWebhookUrl })).tx_id
  const first = await restore(await startReceiver(t, 204))
  t.match(await host.event('webhook_delivered'), { tx_id: first, attempts: 1, status: 204 })
  const second = await restore(await startReceiver(t, 500))
  const failed = await host.event('webhook_failed')
  t.strictSame(failed, {
    type: 'webhook_failed',
    tx_id: second,
    attempts: 1,
    status: 500,
    reason: 'the receiver answered 500'
  })
})

t.test('an error that the host throws at an event is logged and changes nothing', async (t) => {
  const onEvent = () => {
    throw new Error('its own affair')
  }
  const host = await observe(t, { onEvent })
  await (await host.app.dbBackups.start()).finished
  const lines = host.lines.filter(({ msg }) => msg === 'a listener of events failed')
  t.match(lines[0], { level: 50, event: 'backup_started', err: { message: 'its own affair' } })
  t.equal(lines.length, 5)
})
