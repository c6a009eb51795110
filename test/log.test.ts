import t from 'tap'
import {
  COUNTS,
  type LogLine,
  leaveInterruptedBackup,
  observe,
  seeded,
  startReceiver
} from './helpers/observed-host.js'

const [DEBUG, INFO, WARN, ERROR] = [20, 30, 40, 50]
const PLUGIN = 'fastify-couchdb-backups'
const ofPlugin = (lines: readonly LogLine[]) => lines.filter(({ plugin }) => plugin === PLUGIN)
const told = (lines: readonly LogLine[]) => ofPlugin(lines).map(({ level, msg }) => [level, msg])

t.test('a backup has one line for each phase, with counts and durations', async (t) => {
  const host = await observe(t)
  const { id, finished } = await host.app.dbBackups.start()
  const backup = await finished
  t.strictSame(told(host.lines), [
    [INFO, 'backup started'],
    [INFO, 'backup: components finished'],
    [INFO, 'backup: sessions finished'],
    [INFO, 'backup: system finished'],
    [INFO, 'backup finished']
  ])
  const [started, components, , , end] = ofPlugin(host.lines)
  t.match(started, { event: 'backup_started', id })
  const { raw_bytes: rawBytes, stored_bytes: storedBytes } = backup.dbs.athena_components!
  t.match(components, {
    event: 'backup_database_finished',
    id,
    database: 'components',
    durationMs: Number,
    documents: COUNTS.components,
    conflicts: 0,
    rawBytes,
    storedBytes
  })
  const sum = (member: 'raw_bytes' | 'stored_bytes') =>
    Object.values(backup.dbs).reduce((total, database) => total + database[member]!, 0)
  t.match(end, {
    event: 'backup_finished',
    id,
    durationMs: Number,
    documents: 255,
    rawBytes: sum('raw_bytes'),
    storedBytes: sum('stored_bytes'),
    retries: 0
  })
})

t.test('a restore has one line for each phase, with counts and durations', async (t) => {
  const host = await observe(t)
  const { id, finished } = await host.app.dbBackups.start()
  await finished
  await host.on.couch.db.destroy(host.on.names.components)
  host.lines.length = 0
  const { tx_id, finished: restored } = await host.app.dbBackups.restore({ id })
  await restored
  t.strictSame(told(host.lines), [
    [INFO, 'restore started'],
    [INFO, 'restore: the backup is checked'],
    [INFO, 'restore: components finished'],
    [INFO, 'restore: sessions finished'],
    [INFO, 'restore: system finished'],
    [INFO, 'restore: the white list is rebuilt'],
    [INFO, 'restore finished']
  ])
  for (const line of ofPlugin(host.lines)) t.match(line, { tx_id, backup_id: id, dryRun: false })
  const counts = { created: COUNTS.components, changed: 0, skipped: 0, failed: 0, deleted: 0 }
  t.match(ofPlugin(host.lines)[1], { documents: COUNTS, durationMs: Number })
  t.match(ofPlugin(host.lines)[2], { database: 'components', total: COUNTS.components, ...counts })
  t.match(ofPlugin(host.lines).at(-1), { ...counts, total: 255, unchanged: 5, retries: 0 })
})

t.test('neither a document nor its id is logged', async (t) => {
  const host = await observe(t)
  const { id, finished } = await host.app.dbBackups.start()
  await finished
  await (await host.app.dbBackups.restore({ id })).finished
  t.ok(ofPlugin(host.lines).length > 10)
  t.notMatch(JSON.stringify(host.lines), /secret_|tls_cert|Component /)
})

t.test('failures are errors and say why', async (t) => {
  const host = await observe(t, { rebuildWhitelist: () => Promise.reject(new Error('no peers')) })
  const { id, finished } = await host.app.dbBackups.start()
  await finished
  const { tx_id, finished: restored } = await host.app.dbBackups.restore({ id })
  await t.rejects(restored)
  await host.event('restore_failed')
  t.match(ofPlugin(host.lines).at(-1), {
    level: ERROR,
    msg: 'restore failed',
    tx_id,
    durationMs: Number,
    total: 255,
    err: { message: /no peers/ }
  })
  await host.on.couch.db.destroy(host.on.names.sessions)
  const second = await host.app.dbBackups.start()
  await t.rejects(second.finished)
  await host.event('backup_failed')
  const expected = { level: ERROR, msg: 'backup failed', id: second.id, err: { message: /does not exist/ } }
  t.match(ofPlugin(host.lines).at(-1), expected)
})

t.test('single retries are told to those who debug, their number to everybody', async (t) => {
  const host = await observe(t)
  host.proxy.add({ path: /_changes/, fault: 'status_503', times: 2 })
  await (await host.app.dbBackups.start()).finished
  const retries = ofPlugin(host.lines).filter(({ event }) => event === 'retry')
  t.match(retries, [
    { level: DEBUG, attempt: 1, waitMs: Number },
    { level: DEBUG, attempt: 2, waitMs: Number }
  ])
  t.match(ofPlugin(host.lines).at(-1), { level: INFO, msg: 'backup finished', retries: 2 })
})

t.test('the take-over of an interrupted operation is a warning', async (t) => {
  const on = await seeded(t)
  const id = await leaveInterruptedBackup(on)
  const host = await observe(t, { on })
  await host.event('recovered')
  t.match(ofPlugin(host.lines), [
    { level: WARN, event: 'lease_taken_over', operation: 'backup', id },
    { level: WARN, event: 'recovered', operation: 'backup', id, durationMs: Number }
  ])
})

t.test("what became of a client's webhook is told, without its URL", async (t) => {
  const host = await observe(t, { clientWebhook: { attempts: 1 } })
  const { id, finished } = await host.app.dbBackups.start()
  await finished
  for (const [status, event] of [
    [200, 'webhook_delivered'],
    [500, 'webhook_failed']
  ] as const) {
    const clientWebhookUrl = await startReceiver(t, status)
    await (await host.app.dbBackups.restore({ id }, { clientWebhookUrl })).finished
    await host.event(event)
  }
  const deliveries = ofPlugin(host.lines).filter(({ event }) => event?.startsWith('webhook_'))
  t.match(deliveries, [
    { level: INFO, attempts: 1, status: 200 },
    { level: WARN, attempts: 1, status: 500, reason: 'the receiver answered 500' }
  ])
  t.notMatch(JSON.stringify(host.lines), /hidden/)
})
