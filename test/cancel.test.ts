import nano from 'nano'
import t, { type Test } from 'tap'
import { IncompleteRestoreError } from '../lib/index.js'
import type { BackupEvent, RunningOperation } from '../types/index.js'
import { setupDatabases } from './helpers/database.js'
import { type Gate, startGate } from './helpers/gate.js'
import { buildHost, type HostOptions, type TestHost } from './helpers/host.js'
import { poll } from './helpers/poll.js'
import { seedDocuments } from './helpers/seed.js'

interface Gated extends TestHost {
  gate: Gate
  events: BackupEvent[]
}

const BY = { requester: { name: 'ann' } }

async function gatedHost(t: Test, options: HostOptions = {}): Promise<Gated> {
  const on = await setupDatabases(t)
  const gate = await startGate(t, on)
  const events: BackupEvent[] = []
  const onEvent = (event: BackupEvent) => void events.push(event)
  const host = await buildHost(t, { on, couch: gate.couch, onEvent, ...options })
  const docs = [...seedDocuments({ count: 600, prefix: 'peer' })]
  await on.couch.use(on.names.components).bulk({ docs })
  return { ...host, gate, events }
}

const backedUp = async ({ app }: Gated): Promise<string> => {
  const { id, finished } = await app.dbBackups.start()
  await finished
  return id
}

/** Waits until nothing runs, and another operation may begin. */
const isFree = ({ app }: Gated) =>
  poll('nothing runs', () => (app.dbBackups.running.length === 0 ? true : undefined))

t.test('a cancelled backup is marked as failed by whom, and leaves no parts', async (t) => {
  const host = await gatedHost(t)
  const { app, on, gate } = host
  const first = await backedUp(host)
  const pattern = new RegExp(`${on.names.sessions}/_changes`)
  const letGo = gate.hold(pattern)
  const { id, finished } = await app.dbBackups.start({ full: true })
  await gate.held(pattern)
  t.match(app.dbBackups.running, [
    { operation: 'backup', id, since: Number, progress: { documents: 600, expected_documents: 600 } }
  ])
  t.match(await app.dbBackups.cancel(id, BY), { operation: 'backup', id, cancelling: true })
  t.match(await app.dbBackups.cancel(id), { id, cancelling: true }, 'once more changes nothing')
  await t.rejects(finished, { code: 'DB_BACKUPS_CANCELLED', message: 'cancelled by ann' })
  letGo()
  t.match(await app.dbBackups.summary(id), { error: 'cancelled by ann', in_progress: false, doc_count: 0 })
  await isFree(host)
  const { rows } = await on.couch
    .use(on.names.system)
    .list({ startkey: 'backup_chunk_', endkey: 'backup_chunk_~' })
  const stamp = id.slice(id.lastIndexOf('_') + 1)
  t.notOk(
    rows.some((row) => row.id.includes(stamp)),
    'no part is left'
  )
  await t.rejects(app.dbBackups.cancel(id), { code: 'DB_BACKUPS_NOT_RUNNING', statusCode: 404 })
  await backedUp(host)
  t.notOk((await app.dbBackups.summary(first)).error, 'others are not touched')
  t.equal(host.events.filter(({ type }) => type === 'backup_failed').length, 1)
})

t.test('a cancelled restore tells what it had written, and has written nothing else', async (t) => {
  const host = await gatedHost(t)
  const { app, on, gate, webhooks } = host
  const id = await backedUp(host)
  const components = on.couch.use(on.names.components)
  const { rows } = await components.list()
  await components.bulk({ docs: rows.map((row) => ({ _id: row.id, _rev: row.value.rev, _deleted: true })) })
  // one request is answered after the restore was cancelled: what it writes counts
  const pattern = new RegExp(`POST /${on.names.components}/_bulk_docs`)
  const letGo = gate.hold(pattern)
  const { tx_id, finished } = await app.dbBackups.restore({ id })
  await gate.held(pattern)
  t.match(app.dbBackups.running, [
    { operation: 'restore', id: tx_id, backup_id: id, progress: { expected_documents: 600 } }
  ])
  await app.dbBackups.cancel(tx_id, BY)
  letGo()
  const error = await finished.then(
    () => undefined,
    (failure: unknown) => failure as IncompleteRestoreError
  )
  t.type(error, IncompleteRestoreError)
  const there = (await components.list()).rows.length
  t.equal(error?.outcome.databases.components?.created, there, 'what is there is what is told')
  t.match(
    error?.message,
    `cancelled by ann: ${there} documents had been written; the white list`,
    'and not more'
  )
  t.match(await webhooks.get(tx_id), {
    status: 'error',
    databases: { components: { created: there } },
    athena_messages: [/checking/, /restoring/, /^cancelled by ann/]
  })
  t.equal(host.calls.rebuildWhitelist, 0, 'and the message says so')
  await isFree(host)
  const again = await app.dbBackups.restore({ id })
  await again.finished
  t.equal((await components.list()).rows.length, 600, 'it can be restored again')
  t.match(await app.dbBackups.restores(), [{ tx_id: again.tx_id }, { tx_id }])
  const list = async () => [tx_id, again.tx_id]
  const { app: elsewhere } = await buildHost(t, { on, webhooks: { ...webhooks, list } })
  const order = [{ tx_id: again.tx_id }, { tx_id }]
  t.match(await elsewhere.dbBackups.restores(), order, 'whatever the order in which a store lists them')
})

t.test(
  'a restore whose requests are not answered is cut off, and says that more may be written',
  async (t) => {
    const host = await gatedHost(t)
    const { app, on, gate } = host
    const id = await backedUp(host)
    const components = on.couch.use(on.names.components)
    const { rows } = await components.list()
    await components.bulk({ docs: rows.map((row) => ({ _id: row.id, _rev: row.value.rev, _deleted: true })) })
    const pattern = new RegExp(`POST /${on.names.components}/_bulk_docs`)
    const letGo = gate.hold(pattern)
    const { tx_id, finished } = await app.dbBackups.restore({ id })
    await gate.held(pattern)
    await app.dbBackups.cancel(tx_id)
    await t.rejects(finished, { message: /^cancelled: 0 documents .* cut off that may have written more/ })
    letGo()
  }
)

t.test('cancelling the backup that a restore makes first ends the restore before it writes', async (t) => {
  const host = await gatedHost(t, { safety: true })
  const { app, on, gate } = host
  const id = await backedUp(host)
  const pattern = new RegExp(`${on.names.sessions}/_changes`)
  const letGo = gate.hold(pattern)
  const { tx_id, finished } = await app.dbBackups.restore({ id })
  await gate.held(pattern)
  const [restore, safety] = app.dbBackups.running as RunningOperation[]
  t.match([restore, safety], [{ operation: 'restore', id: tx_id }, { operation: 'backup' }])
  await app.dbBackups.cancel(safety!.id, BY)
  letGo()
  await t.rejects(finished, { code: 'DB_BACKUPS_CANCELLED' })
  t.match(await app.dbBackups.summary(safety!.id), { error: 'cancelled by ann' })
  t.match(await host.webhooks.get(tx_id), {
    status: 'error',
    athena_messages: [/./, /./, 'cancelled by ann']
  })
  await isFree(host)
})

t.test('a cancelled dry run claims no writes', async (t) => {
  const host = await gatedHost(t)
  const { app, on, gate } = host
  const id = await backedUp(host)
  const pattern = new RegExp(`${on.names.sessions}`)
  const letGo = gate.hold(pattern)
  const { tx_id, finished } = await app.dbBackups.restore({ id }, { dryRun: true })
  await gate.held(pattern)
  await app.dbBackups.cancel(tx_id)
  letGo()
  await t.rejects(finished, { code: 'DB_BACKUPS_CANCELLED', message: 'cancelled' })
  t.strictSame(await app.dbBackups.restores(), [], 'nor is it among the restores')
})

for (const depth of ['data', 'restore'] as const) {
  t.test(`a cancelled verification tells where it can go on: ${depth}`, async (t) => {
    const host = await gatedHost(t)
    const { app, gate } = host
    const id = await backedUp(host)
    const pattern = /GET \/.*backup_chunk_/
    const letGo = gate.hold(pattern)
    const verifying = app.dbBackups.verify(id, { depth })
    verifying.catch(() => undefined)
    await gate.held(pattern)
    const [running] = app.dbBackups.running
    t.match(running, { operation: 'verify', backup_id: id, depth })
    await app.dbBackups.cancel(running!.id, BY)
    letGo()
    const error = await verifying.then(
      () => undefined,
      (failure: unknown) => failure as { code: string; message: string; position: string }
    )
    t.match(error, { code: 'DB_BACKUPS_VERIFY_INTERRUPTED', message: /cancelled by ann/, position: String })
    await isFree(host)
    t.match(await app.dbBackups.verify(id, { depth, from: error?.position }), { good: true })
  })
}

t.test('a cancelled copy leaves no backup there', async (t) => {
  const host = await gatedHost(t)
  const { app, on, gate } = host
  const id = await backedUp(host)
  const database = `${on.names.system}_copies`
  await on.couch.db.create(database)
  t.teardown(() => on.couch.db.destroy(database).catch(() => undefined))
  const pattern = /GET \/.*backup_chunk_/
  const letGo = gate.hold(pattern)
  const copying = app.dbBackups.copy(id, { to: { couch: nano(on.url), database } })
  copying.catch(() => undefined)
  await gate.held(pattern)
  const [running] = app.dbBackups.running
  t.match(running, { operation: 'copy', backup_id: id })
  await app.dbBackups.cancel(running!.id)
  letGo()
  await t.rejects(copying, { code: 'DB_BACKUPS_CANCELLED' })
  const { rows } = await on.couch.use<{ type: string }>(database).list({ include_docs: true })
  t.notOk(rows.some(({ doc }) => doc?.type === 'athena_backup'))
  await isFree(host)
  t.match(await app.dbBackups.copy(id, { to: { couch: nano(on.url), database } }), { id, already: false })
})

t.test('a pruning is brought to its end, and wrong arguments are refused', async (t) => {
  const host = await gatedHost(t, { keep: { last: 1 } })
  const { app, gate } = host
  await backedUp(host)
  await backedUp(host)
  const pattern = /^(PUT .*03_ibp_db_backup|POST .*_bulk_docs)/
  const letGo = gate.hold(pattern)
  const pruning = app.dbBackups.prune()
  const [running] = await poll('the pruning', () =>
    app.dbBackups.running.length > 0 ? app.dbBackups.running : undefined
  )
  await t.rejects(app.dbBackups.cancel(running!.id), { code: 'DB_BACKUPS_NOT_CANCELLABLE', statusCode: 409 })
  letGo()
  t.equal((await pruning).removed.length, 1)
  await t.rejects(app.dbBackups.cancel(1 as never), { code: 'DB_BACKUPS_INVALID_PARAMETER' })
  await t.rejects(app.dbBackups.cancel('x', { by: 'ann' } as never), { code: 'DB_BACKUPS_INVALID_PARAMETER' })
  await t.rejects(app.dbBackups.restores({ limit: 0 }), { message: /limit/ })
})
