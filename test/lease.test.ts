import { setTimeout as delay } from 'node:timers/promises'
import nano from 'nano'
import t from 'tap'
import type { BackupEvent } from '../types/index.js'
import { apiOf, backupOf } from './helpers/api.js'
import { LEASE, setupDatabases, type TestDatabases } from './helpers/database.js'
import { startFaultProxy } from './helpers/fault-proxy.js'
import { startGate } from './helpers/gate.js'
import { buildHost } from './helpers/host.js'
import { poll } from './helpers/poll.js'
import { startRelay } from './helpers/relay.js'
import { load, seedDocuments } from './helpers/seed.js'

const HOUR = 3_600_000

async function seeded(t: Parameters<typeof setupDatabases>[0]): Promise<TestDatabases> {
  const on = await setupDatabases(t)
  await load(on.couch.use(on.names.components), seedDocuments({ count: 5 }))
  return on
}

async function otherDatabase(t: Parameters<typeof setupDatabases>[0], on: TestDatabases, suffix: string) {
  const name = `${on.names.system}_${suffix}`
  t.teardown(() => (on.real ? on.couch.db.destroy(name).catch(() => {}) : undefined))
  return name
}

const clocks = {
  'an hour ahead': (headers: object) => ({ ...headers, date: new Date(Date.now() + HOUR).toUTCString() }),
  'an hour behind': (headers: object) => ({ ...headers, date: new Date(Date.now() - HOUR).toUTCString() }),
  'no clock at all': (headers: object) => ({ ...headers, date: undefined })
}

for (const [name, headers] of Object.entries(clocks)) {
  t.test(`a database with ${name} neither ends a living lease nor keeps a dead one`, async (t) => {
    const on = await seeded(t)
    const gate = await startGate(t, on)
    const holder = await buildHost(t, { on, couch: gate.couch, timeouts: { lease: 4000 } })
    const strip = (all: object) =>
      Object.fromEntries(Object.entries(headers(all)).filter(([, v]) => v !== undefined))
    const couch = nano(await startRelay(t, on.url, { headers: strip as never }))
    const events: BackupEvent[] = []
    const onEvent = (event: BackupEvent) => void events.push(event)
    const other = await buildHost(t, { on, couch, timeouts: { lease: 2000 }, onEvent })
    const release = gate.hold(/_changes/)
    const { id, finished } = await holder.app.dbBackups.start()
    const until = performance.now() + 7000
    while (performance.now() < until) {
      t.match((await apiOf(other).call('POST')).json(), { message: 'already_in_progress', id })
      await delay(500)
    }
    release()
    t.match(await finished, { in_progress: false })
    t.strictSame(
      events.map(({ type }) => type),
      [],
      'nothing was taken over'
    )

    const system = on.couch.use(on.names.system)
    const { _rev } = await system.get(LEASE)
    const dead = {
      operation: 'backup',
      id: '03_ibp_db_backup_1',
      instance: 'x',
      claim: 'x',
      beat: 1,
      ttl: 500
    }
    await system.insert({ _id: LEASE, _rev, type: LEASE, ...dead } as never)
    await poll(
      'the take-over',
      async () => ('operation' in (await system.get(LEASE)) ? undefined : true),
      20_000
    )
    t.match(await apiOf(other).backup(), /^03_ibp/)
  })
}

t.test('an instance with a shorter lease does not take over one that has a longer', async (t) => {
  const on = await seeded(t)
  const gate = await startGate(t, on)
  const holder = await buildHost(t, { on, couch: gate.couch, timeouts: { lease: 20_000 } })
  const other = await buildHost(t, { on, timeouts: { lease: 2000 } })
  const release = gate.hold(/_changes/)
  const { id, finished } = await holder.app.dbBackups.start()
  await delay(4500)
  t.match((await apiOf(other).call('POST')).json(), { message: 'already_in_progress', id })
  release()
  t.match(await finished, { in_progress: false })
})

t.test('a lone server whose database answers late keeps its lease', async (t) => {
  const on = await seeded(t)
  const couch = nano(await startRelay(t, on.url, { late: 500 }))
  const host = await buildHost(t, { on, couch, timeouts: { lease: 6000 } })
  const { finished } = await host.app.dbBackups.start()
  t.match(await finished, { in_progress: false, dbs: { athena_components: { doc_count: 5 } } })
})

t.test('conflicts without end at the lease are waited for, and given up', async (t) => {
  const on = await seeded(t)
  const proxy = await startFaultProxy(t, on.url)
  const host = await buildHost(t, { on, couch: nano(proxy.url), timeouts: { lease: 4000 } })
  const rule = proxy.add({
    path: /athena_backup_lease/,
    fault: 'conflict_storm',
    times: Number.POSITIVE_INFINITY
  })
  const before = proxy.seen.length
  const reply = await apiOf(host).call('POST')
  t.equal(reply.statusCode, 503)
  t.match(reply.json().message, /no_majority/)
  t.ok(rule.hits > 1 && proxy.seen.length - before < 150, `${proxy.seen.length - before} requests`)
  await proxy.clear()
  t.match(await apiOf(host).backup(), /^03_ibp/)
})

t.test('registrations with different databases for their backups run one at a time', async (t) => {
  const on = await seeded(t)
  const gate = await startGate(t, on)
  const [old, current] = [await otherDatabase(t, on, '2025'), await otherDatabase(t, on, '2026')]
  const first = await buildHost(t, { on, couch: gate.couch, databases: { ...on.names, backups: old } })
  const second = await buildHost(t, { on, databases: { ...on.names, backups: current } })
  const release = gate.hold(/_changes/)
  const { id, finished } = await first.app.dbBackups.start()
  t.match((await apiOf(second).call('POST')).json(), { message: 'already_in_progress', id })
  t.match((await apiOf(second).call('PUT', '', backupOf([{ _id: 'a' }]))).json(), {
    message: 'backup_in_progress',
    id
  })
  release()
  await finished
  t.not(await apiOf(second).backup(), id)
  t.strictSame((await second.app.dbBackups.list()).ids.includes(id), false)
})

t.test('a backup that another registration left is marked by whoever uses its database', async (t) => {
  const on = await seeded(t)
  const old = await otherDatabase(t, on, '2025')
  await on.couch.db.create(old)
  const id = '03_ibp_db_backup_1700000000000'
  const header = {
    type: 'athena_backup',
    in_progress: true,
    start_timestamp: 1_700_000_000_000,
    dbs: {},
    doc_count: 0
  }
  await on.couch
    .use(old)
    .insert({ _id: id, ...header, storage: { layout: 2, instance: 'x', databases: {} } } as never)
  const lease = {
    _id: LEASE,
    type: LEASE,
    operation: 'backup',
    id,
    instance: 'x',
    claim: 'x',
    beat: 1,
    ttl: 500
  }
  for (const database of [on.names.system, old]) await on.couch.use(database).insert(lease as never)
  const host = await buildHost(t, { on, timeouts: { lease: 2000 } })
  await poll('the lease beside the sources to be taken over', () =>
    apiOf(host)
      .backup()
      .catch(() => undefined)
  )
  t.match(await on.couch.use(old).get(id), { in_progress: true })
  await buildHost(t, { on, databases: { ...on.names, backups: old }, timeouts: { lease: 2000 } })
  const marked = await poll('the mark', async () => {
    const found = (await on.couch.use(old).get(id)) as unknown as { in_progress: boolean; error: string }
    return found.in_progress ? undefined : found
  })
  t.match(marked.error, /^interrupted/)
})

t.test('consoles that keep their backups in one database leave those of the other alone', async (t) => {
  const [on, another] = [await seeded(t), await setupDatabases(t)]
  if (!on.real) return t.pass('each has a server of its own here')
  const backups = await otherDatabase(t, on, 'common')
  const gate = await startGate(t, on)
  const first = await buildHost(t, { on, couch: gate.couch, databases: { ...on.names, backups } })
  const release = gate.hold(/_changes/)
  const { id, finished } = await first.app.dbBackups.start()
  const second = await buildHost(t, {
    on: another,
    databases: { ...another.names, backups },
    timeouts: { lease: 2000 }
  })
  t.match((await apiOf(second).call('POST')).json(), { message: 'already_in_progress', id })
  await delay(5000)
  t.match(await second.app.dbBackups.summary(id), { in_progress: true })
  release()
  t.match(await finished, { in_progress: false })
  t.match(await apiOf(second).backup(), /^03_ibp/)
})

t.test('a lease of an earlier version beside the backups', async (t) => {
  const on = await seeded(t)
  const backups = await otherDatabase(t, on, 'former')
  await on.couch.db.create(backups)
  const former = on.couch.use(backups)
  const id = '03_ibp_db_backup_1700000000000'
  const holder = { operation: 'backup', id, instance: 'old', renewed: Date.now() + HOUR }
  const { rev } = await former.insert({
    _id: LEASE,
    type: LEASE,
    ...holder,
    beat: 'old:0',
    notify: ['abc']
  } as never)
  const host = await buildHost(t, { on, databases: { ...on.names, backups }, timeouts: { lease: 2000 } })
  let latest = rev
  for (let beat = 1; beat <= 4; beat++) {
    t.match(
      (await apiOf(host).call('POST')).json(),
      { message: 'already_in_progress', id },
      'is respected while it lives'
    )
    await delay(1000)
    latest = (
      await former.insert({
        _id: LEASE,
        _rev: latest,
        type: LEASE,
        ...holder,
        beat: `old:${beat}`,
        notify: ['abc']
      } as never)
    ).rev
  }
  const isFree = async () => ('operation' in (await former.get(LEASE)) ? undefined : true)
  await poll('its end', isFree, 20_000)
  t.match(await apiOf(host).backup(), /^03_ibp/, 'gives way when it is stale')
})

t.test('ids and durations when the clock is set back', async (t) => {
  const on = await seeded(t)
  const gate = await startGate(t, on)
  const host = await buildHost(t, { on, couch: gate.couch })
  const api = apiOf(host)
  const first = await api.backup()
  const real = Date.now
  t.teardown(() => {
    Date.now = real
  })
  const release = gate.hold(/_changes/)
  const running = await host.app.dbBackups.start()
  Date.now = () => real() - HOUR
  release()
  const summary = await running.finished
  t.notMatch(summary.elapsed, /-/, 'no duration is negative')
  t.ok((summary.end_timestamp ?? 0) >= summary.start_timestamp)
  const third = await api.backup()
  t.strictSame(
    (await host.app.dbBackups.list()).ids,
    [first, running.id, third],
    'the last that began is the last'
  )

  await on.couch
    .use(on.names.system)
    .insert({ _id: '03_ibp_db_backup_99999999999999999', type: 'athena_backup', dbs: {} } as never)
  t.equal(await api.backup(), '03_ibp_db_backup_100000000000000000', 'later than every listed one')
  await on.couch
    .use(on.names.system)
    .insert({ _id: `03_ibp_db_backup_${'9'.repeat(20)}`, type: 'athena_backup', dbs: {} } as never)
  t.match(
    await api.backup(),
    /^03_ibp_db_backup_[0-9]{13}$/,
    'nothing is later than this: the time has to do'
  )
})

t.test('a document in place of the lease ends the operation, and nothing else', async (t) => {
  const on = await seeded(t)
  const gate = await startGate(t, on)
  const host = await buildHost(t, { on, couch: gate.couch, timeouts: { lease: 2000 } })
  const system = on.couch.use(on.names.system)
  const release = gate.hold(/_changes/)
  const { finished } = await host.app.dbBackups.start()
  const failed = t.rejects(finished, { message: /the lease could not be renewed in time|taken over/ })
  await poll('a document in its place', async () => {
    const { _rev } = await system.get(LEASE)
    const mine = { _id: LEASE, _rev, type: 'mine' }
    return system.insert(mine as never).catch((error: { statusCode: number }) => {
      if (error.statusCode !== 409) throw error
      return undefined
    })
  })
  await delay(2500)
  release()
  await failed
  t.match((await apiOf(host).call('POST')).json(), { code: 'DB_BACKUPS_RESERVED_ID' })
  t.match(await system.get(LEASE), { type: 'mine' })
})

t.test('a host whose connection fails for a while keeps its process', async (t) => {
  const on = await seeded(t)
  const gate = await startGate(t, on)
  let broken = false
  const couch = () => {
    if (broken) throw new Error('no credentials now')
    return gate.couch
  }
  const host = await buildHost(t, { on, couch, timeouts: { lease: 2000 } })
  const release = gate.hold(/_changes/)
  const { finished } = await host.app.dbBackups.start()
  const failed = t.rejects(finished)
  broken = true
  await delay(2500)
  release()
  await failed
  broken = false
  await poll(
    'the next backup',
    async () => ((await apiOf(host).call('POST')).statusCode === 202 ? true : undefined),
    20_000
  )
})
