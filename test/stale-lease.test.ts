import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import type { BackupEvent } from '../types/index.js'
import { setupDatabases } from './helpers/database.js'
import { startGate } from './helpers/gate.js'
import { buildHost } from './helpers/host.js'
import { poll } from './helpers/poll.js'

t.test('a server looks again when the lease that it found can be stale, and not all the time', async (t) => {
  const on = await setupDatabases(t)
  const gate = await startGate(t, on)
  const ttl = 4000
  const left = { operation: 'backup', id: '03_ibp_db_backup_1', instance: 'x', claim: 'x', beat: 1, ttl }
  const lease = { _id: 'athena_backup_lease', type: 'athena_backup_lease', ...left }
  await on.couch.use<object>(on.names.system).insert(lease)
  const events: BackupEvent[] = []
  await buildHost(t, {
    on,
    couch: gate.couch,
    timeouts: { lease: 60_000 },
    onEvent: (event) => void events.push(event)
  })
  await delay(ttl / 2)
  t.ok(gate.requests.length > 0 && gate.requests.length < 12, `${gate.requests.length} requests`)
  t.strictSame(events, [])
  await poll('its end', () => (events.some(({ type }) => type === 'recovered') ? true : undefined), 15_000)
  t.match(events, [{ type: 'lease_taken_over' }, { type: 'recovered' }])
  await delay(1000)
  gate.requests.length = 0
  await delay(1000)
  t.strictSame(gate.requests, [], 'nothing is left to look for')
})
