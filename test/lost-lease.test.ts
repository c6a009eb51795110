import { setTimeout as delay } from 'node:timers/promises'
import nano from 'nano'
import t, { type Test } from 'tap'
import { LEASE, setupDatabases } from './helpers/database.js'
import { startFaultProxy } from './helpers/fault-proxy.js'
import { startGate } from './helpers/gate.js'
import { buildHost } from './helpers/host.js'
import { poll } from './helpers/poll.js'
import { load, seedDocuments } from './helpers/seed.js'

/** Milliseconds that a request may take, and those in which an operation has to end. */
const PATIENT = { control: 120_000, idle: 120_000 }
const SOON = 15_000

/** Checks that an operation ends soon, with an error that has this code. */
async function endsSoon(t: Test, operation: Promise<unknown>, code: string): Promise<void> {
  const ended = operation.then(
    () => 'success',
    (error: { code?: string }) => error.code
  )
  t.equal(await Promise.race([ended, delay(SOON, 'late', { ref: false })]), code)
}

/** Builds a host whose lease can be taken away, and whose requests can be held back. */
async function setup(t: Test) {
  const on = await setupDatabases(t)
  await load(on.couch.use(on.names.components), seedDocuments({ count: 5 }))
  const gate = await startGate(t, on)
  const timeouts = { lease: 3000, close: 100, ...PATIENT }
  const { app } = await buildHost(t, { on, couch: gate.couch, timeouts })
  const system = on.couch.use<object>(on.names.system)
  /** Writes the lease as another instance does that takes it over. */
  const takeAway = () =>
    poll('the other lease', async () => {
      const { _rev } = await system.get(LEASE)
      const other = { operation: 'backup', id: '03_ibp_db_backup_1', instance: 'other', ttl: 600_000 }
      const lease = { _id: LEASE, _rev, type: LEASE, ...other, claim: 'other', beat: 1 }
      return system.insert(lease).catch((error: { statusCode: number }) => {
        if (error.statusCode !== 409) throw error
        return undefined
      })
    })
  return { app, gate, takeAway }
}

t.test('work that waits for the database ends as soon as the lease is lost', async (t) => {
  const { app, gate, takeAway } = await setup(t)
  gate.hold(/_changes/)
  const { finished } = await app.dbBackups.start()
  const ended = endsSoon(t, finished, 'DB_BACKUPS_LEASE_LOST')
  await gate.held(/_changes/)
  await takeAway()
  await ended
})

t.test('a start that waits for its record ends as soon as the lease is lost', async (t) => {
  const { app, gate, takeAway } = await setup(t)
  const header = /PUT .*03_ibp_db_backup_/
  gate.hold(header)
  const ended = endsSoon(t, app.dbBackups.start(), 'DB_BACKUPS_DATABASE_UNAVAILABLE')
  await gate.held(header)
  await takeAway()
  await ended
})

t.test('a renewal that is not answered leaves time for another', async (t) => {
  const on = await setupDatabases(t)
  const proxy = await startFaultProxy(t, on.url)
  const lease = 6000
  const { app } = await buildHost(t, { on, couch: nano(proxy.url), timeouts: { lease, ...PATIENT } })
  const release = proxy.hold({ path: /_changes/ })
  const { finished } = await app.dbBackups.start()
  const stalled = proxy.add({ method: 'PUT', path: /athena_backup_lease/, fault: 'stall' })
  await delay(1.5 * lease)
  t.equal(stalled.hits, 1)
  release()
  t.match(await finished, { in_progress: false })
})
