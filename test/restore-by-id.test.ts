import t, { type Test } from 'tap'
import { createCouchWebhookStore } from '../lib/index.js'
import type { LogicalDatabase, WebhookTransaction } from '../types/index.js'
import { apiOf } from './helpers/api.js'
import { compareDatabases, DATABASES, LEASE, setupDatabases, type TestDatabases } from './helpers/database.js'
import { startGate } from './helpers/gate.js'
import { buildHost, type HostOptions, txIdOf } from './helpers/host.js'
import { hostileDocuments, load, seedDocuments } from './helpers/seed.js'

const DESIGN = {
  _id: '_design/athena',
  language: 'javascript',
  views: { by_type: { map: 'function (doc) { emit(doc.type, 1) }' } }
}

/** Fills three databases, with backups in a fourth, so that only a restore and the lease change the three. */
async function seeded(t: Test, count = 60) {
  const on = await setupDatabases(t)
  const { couch, names } = on
  const backups = `${names.system}_backups`
  t.teardown(() => (on.real ? couch.db.destroy(backups).catch(() => {}) : undefined))
  await load(couch.use(names.components), seedDocuments({ count, attachmentEvery: 10 }))
  await load(couch.use(names.components), [DESIGN, ...hostileDocuments()])
  await load(couch.use(names.sessions), seedDocuments({ count: 5, prefix: 'user' }))
  await load(couch.use(names.system), [{ _id: '00_settings_athena', type: 'settings', port: 3000 }])
  const build = (options: HostOptions = {}) =>
    buildHost(t, { on, databases: { ...names, backups }, ...options })
  return { on, backups, build }
}

/** Watches the three databases. Returns a function that lists the ids changed since, except the lease. */
async function watchChanges(
  { couch, names }: TestDatabases,
  databases: readonly LogicalDatabase[] = DATABASES
): Promise<() => Promise<string[]>> {
  const dbs = databases.map((logical) => couch.use(names[logical]))
  const since = await Promise.all(dbs.map(async (db) => (await db.changes({ since: 'now' })).last_seq))
  return async () => {
    const feeds = await Promise.all(dbs.map((db, i) => db.changes({ since: since[i] as never })))
    return feeds.flatMap(({ results }) => results.map(({ id }) => id)).filter((id) => id !== LEASE)
  }
}

const snapshots = async (on: TestDatabases) =>
  new Map(
    await Promise.all(
      DATABASES.map(async (logical) => [logical, await on.fetchAll(on.names[logical])] as const)
    )
  )

async function change({ couch, names }: TestDatabases, logical: LogicalDatabase, id: string, body?: object) {
  const db = couch.use(names[logical])
  const { _rev } = await db.get(id)
  if (body) await db.insert({ _id: id, _rev, ...body } as never)
  else await db.destroy(id, _rev)
}

t.test('brings back what was deleted or changed, and leaves what was added', async (t) => {
  const { on, build } = await seeded(t)
  const host = await build()
  const api = apiOf(host)
  const id = await api.backup()
  const before = await snapshots(on)

  await change(on, 'components', 'doc_00000001')
  await change(on, 'components', 'doc_00000010')
  await change(on, 'components', 'doc_00000020', { type: 'fabric-peer', attachments: 'gone' })
  await change(on, 'components', 'a/b', { type: 'changed' })
  await change(on, 'components', '_design/athena', { views: {} })
  await change(on, 'sessions', 'user_00000000')
  await change(on, 'system', '00_settings_athena', { port: 4000 })
  await load(on.couch.use(on.names.components), [{ _id: 'added', type: 'fabric-ca' }])

  const transaction = await api.restore(id)
  t.equal(transaction.status, 'success')
  for (const [logical, expected] of before) {
    const now = await on.fetchAll(on.names[logical])
    if (logical === 'components') {
      t.strictSame(now.get('added')?.type, 'fabric-ca', 'an added document stays')
      now.delete('added')
    }
    compareDatabases(t, expected, now)
  }
  const total = before.get('components')!.size
  t.match(transaction.databases, {
    components: { total, created: 2, changed: 3, unchanged: total - 5, skipped: 0, failed: 0, deleted: 0 },
    sessions: { total: 5, created: 1, changed: 0, unchanged: 4 },
    system: { total: 1, created: 0, changed: 1, unchanged: 0 }
  })
  t.equal(host.calls.rebuildWhitelist, 1)
})

t.test('a document that differs only in the content type of an attachment is restored', async (t) => {
  const { on, build } = await seeded(t, 1)
  const db = on.couch.use(on.names.components)
  const attach = async (type: string) => {
    const { _rev: rev } = await db.get('typed')
    await db.attachment.insert('typed', 'a', 'text', type, { rev })
  }
  await db.insert({ _id: 'typed' } as never)
  await attach('text/plain')
  const api = apiOf(await build())
  const id = await api.backup()
  await attach('text/html')
  const { databases } = await api.restore(id)
  t.match(databases, { components: { changed: 1, created: 0 } })
  t.equal((await on.fetchAll(on.names.components)).get('typed')?._attachments?.a?.content_type, 'text/plain')
})

t.test('a document that a client changes while it is being written is written again', async (t) => {
  const { on, build } = await seeded(t)
  const gate = await startGate(t, on)
  const api = apiOf(await build({ couch: gate.couch }))
  const id = await api.backup()
  const before = await on.fetchAll(on.names.components)
  const ids = ['doc_00000001', 'doc_00000002', 'doc_00000003']
  for (const one of ids) await change(on, 'components', one, { n: 'before' })
  const writes = new RegExp(`^POST /${on.names.components}/_bulk_docs`)
  const release = gate.hold(writes)
  const started = api.restore(id)
  await gate.held(writes)
  await change(on, 'components', ids[0]!, { n: 'meanwhile' })
  await change(on, 'components', ids[1]!)
  release()
  const { status, databases } = await started
  t.equal(status, 'success')
  t.match(databases, { components: { changed: 3, failed: 0 } })
  compareDatabases(t, before, await on.fetchAll(on.names.components))
})

t.test('writes nothing the second time', async (t) => {
  const { on, build } = await seeded(t)
  const api = apiOf(await build())
  const id = await api.backup()
  await change(on, 'components', 'doc_00000001')
  await change(on, 'components', 'doc_00000010')
  await change(on, 'components', 'doc_00000020', { type: 'other' })
  await on.couch.db.destroy(on.names.sessions)

  const first = await api.restore(id)
  t.match(first, {
    status: 'success',
    databases: { components: { created: 2, changed: 1 }, sessions: { created: 5 } }
  })
  const after = await snapshots(on)
  const changed = await watchChanges(on)
  const second = await api.restore(id)
  t.equal(second.status, 'success')
  for (const logical of DATABASES) {
    const { total, unchanged, ...others } = second.databases![logical]!
    t.ok(total > 0)
    t.equal(unchanged, total)
    t.strictSame(others, { created: 0, changed: 0, skipped: 0, failed: 0, deleted: 0 })
    compareDatabases(t, after.get(logical)!, await on.fetchAll(on.names[logical]), { rev: true })
  }
  t.strictSame(await changed(), [])
})

t.test('creates databases that are missing', async (t) => {
  const { on, build } = await seeded(t)
  const api = apiOf(await build())
  const id = await api.backup()
  const before = await snapshots(on)
  for (const logical of DATABASES) await on.couch.db.destroy(on.names[logical])
  const transaction = await api.restore(id)
  t.equal(transaction.status, 'success')
  for (const [logical, expected] of before) {
    compareDatabases(t, expected, await on.fetchAll(on.names[logical]), { rev: true })
  }
})

t.test('the transaction tells how it goes and how it went', async (t) => {
  const { build } = await seeded(t)
  const seen: WebhookTransaction[] = []
  const host = await build({ publicUrl: 'https://console.example.com/base/' })
  const { update } = host.webhooks
  host.webhooks.update = async (...args) => {
    const transaction = await update(...args)
    seen.push(transaction)
    return transaction
  }
  const api = apiOf(host)
  const id = await api.backup()
  const before = Date.now()
  const reply = await api.call('PUT', `/${id}`, {})
  t.equal(reply.statusCode, 202)
  const { url } = reply.json()
  t.strictSame(reply.json(), { message: 'in-progress', url })
  t.match(url, /^https:\/\/console\.example\.com\/base\/ak\/api\/v1\/webhooks\/txs\/[0-9a-f]{32}$/)

  const { ts_started, ts_last_updated, ts_completed, timeout_ms, ...transaction } =
    await host.waitForRestore(url)
  t.ok(before <= ts_started && ts_started <= ts_completed! && ts_completed! <= ts_last_updated)
  t.ok(timeout_ms > 0)
  const none = { created: 0, changed: 0, skipped: 0, failed: 0, deleted: 0 }
  const components = transaction.databases!.components!.total
  t.strictSame(transaction, {
    tx_id: url.slice(-32),
    type: 'webhook_tx',
    sub_type: 'backup_restore',
    description: 'restoring dbs from backup',
    status: 'success',
    by: 'manager',
    uuid: 'uuid-manager',
    url,
    on_step: 5,
    total_steps: 5,
    athena_messages: [
      'checking the backup',
      `restoring ${components} documents of components`,
      'restoring 5 documents of sessions',
      'restoring 1 documents of system',
      'rebuilding the component white list',
      'the restore is done'
    ],
    backup_id: id,
    databases: {
      components: { total: components, unchanged: components, ...none },
      sessions: { total: 5, unchanged: 5, ...none },
      system: { total: 1, unchanged: 1, ...none }
    },
    failures: []
  })
  const steps = seen.filter(({ status }) => status === 'pending').map(({ on_step }) => on_step)
  t.strictSame(steps, [1, 2, 3, 4, 5])
})

t.test('the white list is rebuilt once, after the data', async (t) => {
  const { on, build } = await seeded(t)
  const found: unknown[] = []
  const host = await build({
    async rebuildWhitelist({ tx_id }) {
      const { port } = (await on.couch.use(on.names.system).get('00_settings_athena')) as { port?: number }
      found.push({ tx_id, port })
    }
  })
  const id = await apiOf(host).backup()
  await change(on, 'system', '00_settings_athena', { port: 4000 })
  const { tx_id } = await apiOf(host).restore(id)
  t.strictSame(found, [{ tx_id, port: 3000 }])
  // The command line tells it from the id of a backup by this form.
  t.match(tx_id, /^[0-9a-f]{32}$/)
})

t.test('a white list that cannot be rebuilt makes it an error that says the data is there', async (t) => {
  const { on, build } = await seeded(t)
  const hooks = {
    'no peers': () => {
      throw new Error('no peers')
    },
    'rebuildWhitelist did not answer within 50 ms': () => new Promise<void>(() => {})
  }
  for (const [reason, rebuildWhitelist] of Object.entries(hooks)) {
    const api = apiOf(await build({ rebuildWhitelist, timeouts: { rebuildWhitelist: 50 } }))
    const id = await api.backup()
    await change(on, 'system', '00_settings_athena', { port: 4000 })
    const transaction = await api.restore(id)
    t.equal(transaction.status, 'error')
    t.equal(
      transaction.athena_messages.at(-1),
      `the data was restored, but the component white list could not be rebuilt: ${reason}`
    )
    t.match(transaction, { databases: { system: { changed: 1 } }, failures: [] })
    t.match(await on.couch.use(on.names.system).get('00_settings_athena'), { port: 3000 })
  }
})

t.test('of a backup that does not exist is refused', async (t) => {
  const { on, build } = await seeded(t)
  const host = await build()
  const changed = await watchChanges(on)
  const reply = await apiOf(host).call('PUT', '/03_ibp_db_backup_1592922855871')
  t.equal(reply.statusCode, 400)
  t.strictSame(reply.json(), { statusCode: 400, message: 'cannot restore, could not load backup doc.' })
  t.strictSame(await changed(), [])
  t.equal(host.calls.rebuildWhitelist, 0)
})

t.test('of a backup that runs or has failed is refused, and nothing is written', async (t) => {
  const { on, backups, build } = await seeded(t)
  const gate = await startGate(t, on)
  const host = await build({ couch: gate.couch })
  const api = apiOf(host)
  await api.backup()
  const header = { type: 'athena_backup', doc_count: 0, start_timestamp: 1, dbs: {} }
  await load(on.couch.use(backups), [
    { _id: '03_ibp_db_backup_1', ...header, in_progress: true },
    { _id: '03_ibp_db_backup_2', ...header, in_progress: false, error: 'the disk was full' }
  ])
  const changed = await watchChanges(on)
  const running = await api.call('PUT', '/03_ibp_db_backup_1')
  t.equal(running.statusCode, 400)
  t.match(running.json(), { statusCode: 400, message: 'cannot restore, the backup is still in progress.' })
  const failed = await api.call('PUT', '/03_ibp_db_backup_2')
  t.equal(failed.statusCode, 400)
  t.match(failed.json(), {
    statusCode: 400,
    message: 'cannot restore, the backup has failed: the disk was full'
  })

  const release = gate.hold(/_changes/)
  const { id } = (await api.call('POST')).json()
  const reply = await api.call('PUT', `/${id}`)
  t.equal(reply.statusCode, 400)
  t.strictSame(reply.json(), { statusCode: 400, message: 'backup_in_progress', id })
  release()
  await host.waitForBackup(id)
  t.strictSame(await changed(), [])
  t.equal(host.calls.rebuildWhitelist, 0)
})

t.test('only one runs at a time', async (t) => {
  const { on, build } = await seeded(t)
  const gate = await startGate(t, on)
  const host = await build({ couch: gate.couch })
  const other = await build()
  const { id, finished } = await host.app.dbBackups.start()
  await finished
  const release = gate.hold(/_all_docs/)
  const { url } = (await apiOf(host).call('PUT', `/${id}`)).json()
  const running = txIdOf(url)
  for (const server of [host, other]) {
    for (const path of [`/${id}`, '']) {
      const reply = await apiOf(server).call('PUT', path, path ? {} : { dbs: {} })
      t.equal(reply.statusCode, 400)
      t.strictSame(reply.json(), { statusCode: 400, message: 'already_in_progress', id: running })
    }
    const backup = await apiOf(server).call('POST')
    t.equal(backup.statusCode, 400)
    t.strictSame(backup.json(), { statusCode: 400, message: 'restore_in_progress', id: running })
  }
  release()
  t.equal((await host.waitForRestore(url)).status, 'success')
})

t.test('skips the documents that the lists name, and no others', async (t) => {
  const { on, build } = await seeded(t)
  const api = apiOf(await build())
  await load(on.couch.use(on.names.system), seedDocuments({ count: 6, prefix: 'sys' }))
  const id = await api.backup()
  const ids = [0, 1, 2, 3, 4, 5].map((i) => `sys_0000000${i}`)
  for (const one of ids) await change(on, 'system', one)
  await change(on, 'components', 'doc_00000001')
  await change(on, 'components', 'doc_00000002', { type: 'changed' })
  // neighbours, the first and the last id; a skip list counts for its own database only
  const query = new URLSearchParams({
    skip_system: JSON.stringify([ids[0], ids[1], ids[2], ids[5], 'doc_00000001']),
    skip_components: "['doc_00000002']"
  })
  const transaction = await api.restore(id, `?${query}`)
  t.equal(transaction.status, 'success')
  const system = await on.fetchAll(on.names.system)
  t.strictSame([...system.keys()], ['00_settings_athena', LEASE, ids[3], ids[4]])
  const components = await on.fetchAll(on.names.components)
  t.ok(components.has('doc_00000001'))
  t.equal(components.get('doc_00000002')?.type, 'changed')
  t.match(transaction.databases, {
    system: { created: 2, skipped: 4 },
    components: { created: 1, skipped: 1 }
  })
})

t.test('a body that is no object of a webhook is refused', async (t) => {
  const { build } = await seeded(t, 1)
  const api = apiOf(await build())
  const id = await api.backup()
  for (const [payload, message] of [
    [{ client_webhook_url: 1 }, /client_webhook_url/],
    [{ unknown: 1 }, /unknown/],
    ['[]', /body/],
    ['"x"', /body/],
    ['{"client_webhook_url"', /JSON/]
  ] as const) {
    const reply = await api.call('PUT', `/${id}`, payload as object)
    t.equal(reply.statusCode, 400, JSON.stringify(payload))
    t.match(reply.json().message, message)
  }
  const unknown = await api.call('PUT', `/${id}?skip_sessions=["a"]`)
  t.equal(unknown.statusCode, 400)
  t.match(unknown.json().message, /skip_sessions/)
})

t.test('through the decorator', async (t) => {
  await t.test('dryRun counts and writes nothing', async (t) => {
    const { on, build } = await seeded(t)
    const host = await build()
    const { id, finished: stored } = await host.app.dbBackups.start()
    await stored
    await change(on, 'components', 'doc_00000001')
    await change(on, 'components', 'doc_00000002', { type: 'changed' })
    await load(on.couch.use(on.names.components), [{ _id: 'added' }])
    await on.couch.db.destroy(on.names.sessions)
    const changed = await watchChanges(on, ['components', 'system'])

    const { tx_id, finished } = await host.app.dbBackups.restore({ id }, { dryRun: true, exact: true })
    const outcome = await finished
    t.match(outcome, {
      tx_id,
      databases: {
        components: { created: 1, changed: 1, deleted: 1 },
        sessions: { created: 5 },
        system: { unchanged: 1 }
      },
      failures: []
    })
    t.match(await host.webhooks.get(tx_id), { status: 'success', dry_run: true, by: '-', uuid: '-' })
    t.strictSame(await changed(), [])
    t.notOk((await on.couch.db.list()).includes(on.names.sessions), 'no database was created')
    t.equal(host.calls.rebuildWhitelist, 0)
  })

  await t.test('exact deletes what the backup does not hold', async (t) => {
    const { on, build } = await seeded(t)
    const host = await build()
    const { id, finished: stored } = await host.app.dbBackups.start()
    await stored
    const before = await snapshots(on)
    await change(on, 'components', 'doc_00000001')
    await load(on.couch.use(on.names.components), [
      { _id: 'added' },
      { _id: '_design/added', views: {} },
      { _id: 'skipped', type: 'fabric-ca' }
    ])
    await load(on.couch.use(on.names.sessions), [{ _id: 'login', type: 'session_athena' }])
    await load(on.couch.use(on.names.system), [{ _id: 'added' }])

    const skip = { components: ['skipped'] }
    const outcome = await (await host.app.dbBackups.restore({ id }, { exact: true, skip })).finished
    t.match(outcome.databases, {
      components: { created: 1, deleted: 2 },
      sessions: { deleted: 0 },
      system: { deleted: 1 }
    })
    for (const [logical, expected] of before) {
      const now = await on.fetchAll(on.names[logical])
      if (logical === 'components') t.ok(now.delete('skipped'), 'a skipped document is not deleted')
      if (logical === 'sessions') t.ok(now.delete('login'), 'a type that is not backed up is not deleted')
      compareDatabases(t, expected, now)
    }
    t.match(await apiOf(host).get(id), { in_progress: false }, 'the backup is still there')
  })

  await t.test('exact keeps transactions, its own included, in the system database', async (t) => {
    const on = await setupDatabases(t)
    const webhooks = createCouchWebhookStore({ couch: on.couch, database: on.names.system })
    const host = await buildHost(t, { on, webhooks })
    const id = await apiOf(host).backup()
    const earlier = await host.app.dbBackups.restore({ id })
    await earlier.finished
    await load(on.couch.use(on.names.system), [{ _id: 'added' }])
    const { tx_id, finished } = await host.app.dbBackups.restore({ id }, { exact: true })
    t.match(await finished, { databases: { system: { deleted: 1 } } })
    t.match(await webhooks.get(tx_id), { status: 'success', on_step: 5 })
    t.match(await webhooks.get(earlier.tx_id), { status: 'success' })
    t.equal(host.calls.rebuildWhitelist, 2)
  })

  await t.test('exact keeps the backups in the system database', async (t) => {
    const on = await setupDatabases(t)
    const host = await buildHost(t, { on })
    const id = await apiOf(host).backup()
    await load(on.couch.use(on.names.system), [{ _id: 'added' }])
    const { id: later, finished: stored } = await host.app.dbBackups.start()
    await stored
    const { finished } = await host.app.dbBackups.restore({ id }, { exact: true })
    t.match(await finished, { databases: { system: { deleted: 1 } } })
    t.notOk((await on.fetchAll(on.names.system)).has('added'))
    t.match((await apiOf(host).get(later)).dbs.athena_system?.docs, [{ _id: 'added' }])
  })

  await t.test('exact keeps the transactions in the system database, its own among them', async (t) => {
    const on = await setupDatabases(t)
    const webhooks = createCouchWebhookStore({ couch: on.couch, database: on.names.system })
    const host = await buildHost(t, { on, webhooks })
    const api = apiOf(host)
    const id = await api.backup()
    await load(on.couch.use(on.names.system), [{ _id: 'added' }])
    const { tx_id: earlier } = await api.restore(id)

    const { tx_id, finished } = await host.app.dbBackups.restore({ id }, { exact: true })
    t.match(await finished, { databases: { system: { deleted: 1 } } })
    t.notOk((await on.fetchAll(on.names.system)).has('added'))
    t.match(await webhooks.get(tx_id), { status: 'success' })
    t.match(await webhooks.get(earlier), { status: 'success' }, 'a client may still ask for it')
  })
})
