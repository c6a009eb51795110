import t, { type Test } from 'tap'
import type { BackupEvent } from '../types/index.js'
import { setupDatabases } from './helpers/database.js'
import { startGate } from './helpers/gate.js'
import { buildHost } from './helpers/host.js'

const CLAIM = /^(PUT|POST) .*(athena_backup_lease|_bulk_docs)/

/** Starts a host that can be made to wait for its lease. */
async function setup(t: Test) {
  const on = await setupDatabases(t)
  const gate = await startGate(t, on)
  const events: BackupEvent[] = []
  const onEvent = (event: BackupEvent) => void events.push(event)
  const { app } = await buildHost(t, { on, couch: gate.couch, onEvent, timeouts: { close: 4000 } })
  return {
    app,
    gate,
    /** The types of what was told but for retries. */
    told: () => events.map(({ type }) => type).filter((type) => type !== 'retry'),
    holder: async () => (await on.couch.use(on.names.system).get('athena_backup_lease')) as object,
    /** Ids of what the system database holds but the lease and design documents. */
    stored: async () =>
      (await on.couch.use(on.names.system).list()).rows
        .map(({ id }) => id)
        .filter((id) => id !== 'athena_backup_lease' && !id.startsWith('_'))
  }
}

t.test('a server that closes while a slow database gives the lease begins nothing', async (t) => {
  const { app, gate, told, holder, stored } = await setup(t)
  const letGo = gate.hold(CLAIM)
  const start = app.dbBackups.start()
  await gate.held(CLAIM)
  const refused = t.rejects(start, { code: 'DB_BACKUPS_CLOSING' })
  const closed = app.close()
  letGo()
  await Promise.all([refused, closed])
  t.strictSame(told(), [])
  t.strictSame(await stored(), [])
  t.match(await holder(), { operation: undefined }, 'the lease is free')
})

t.test('a verification that is given up while the lease is taken leaves no trace', async (t) => {
  const { app, gate, told, holder } = await setup(t)
  const { id, finished } = await app.dbBackups.start()
  await finished
  const before = told()
  const letGo = gate.hold(CLAIM)
  const abort = new AbortController()
  const verified = app.dbBackups.verify(id, { depth: 'restore', signal: abort.signal })
  await gate.held(CLAIM)
  abort.abort(new Error('no longer wanted'))
  letGo()
  const error = {
    code: 'DB_BACKUPS_VERIFY_INTERRUPTED',
    position: String,
    cause: { message: 'no longer wanted' }
  }
  await t.rejects(verified, error)
  t.strictSame(told(), before)
  t.match(await holder(), { operation: undefined }, 'the lease is free')
  t.strictSame(app.dbBackups.running, [])
})
