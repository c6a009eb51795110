import { setTimeout as delay } from 'node:timers/promises'
import Fastify from 'fastify'
import nano from 'nano'
import t, { type Test } from 'tap'
import { VerifyInterruptedError } from '../lib/errors.js'
import { createMemoryWebhookStore } from '../lib/index.js'
import { DatabaseSet } from '../lib/operations/database-set.js'
import { Instance } from '../lib/operations/instance.js'
import type { Operations } from '../lib/operations/operations.js'
import { Schedule } from '../lib/operations/schedule.js'
import type { VerifyDue } from '../lib/operations/verifies.js'
import { VerifySchedule } from '../lib/operations/verify-schedule.js'
import { resolveOptions } from '../lib/options.js'
import type { BackupEvent, LogicalDatabase } from '../types/index.js'
import { setupDatabases, type TestDatabases } from './helpers/database.js'
import { startGate } from './helpers/gate.js'
import { buildHost } from './helpers/host.js'
import { observe } from './helpers/observed-host.js'
import { poll } from './helpers/poll.js'
import { startRelay } from './helpers/relay.js'
import {
  buildScheduled,
  HOUR,
  idle,
  isGood,
  MINUTE,
  type ScheduledOptions,
  SECOND,
  summariesOf,
  TestClock
} from './helpers/scheduled.js'

const NIGHTLY = { cron: '0 1 * * *' }
const at = (time: string) => Date.parse(`2027-05-${time}Z`)

/** Builds a server at noon, with a backup that was made then. */
async function setup(t: Test, options: Omit<ScheduledOptions, 'clock'> = {}) {
  const clock = new TestClock('2027-05-01T12:00:00Z')
  const host = await buildScheduled(t, { clock, schedule: NIGHTLY, ...options })
  await idle(clock)
  const first = (await summariesOf(host)).at(-1)
  return { ...host, first: first?.id as string }
}

/** Creates a second set of databases on the same server. */
async function moreDatabases(t: Test, { couch, names }: TestDatabases) {
  const more = { ...names }
  for (const [logical, name] of Object.entries(names)) {
    const other = `${name}_more`
    more[logical as LogicalDatabase] = other
    await couch.db.create(other)
    t.teardown(() => couch.db.destroy(other))
  }
  return more
}

const scheduleEvents = (events: readonly BackupEvent[]) =>
  events.filter(({ type }) => type.startsWith('schedule_'))

/** Checks the events of the schedule: these, and no others. */
function isTold(t: Test, events: readonly BackupEvent[], expected: readonly object[]): void {
  const told = scheduleEvents(events)
  t.match(told, expected)
  t.equal(told.length, expected.length)
}

/** Returns versions that fail a start when they are told to. */
const failing = () => {
  const state = { fails: false, calls: 0 }
  const versions = () => {
    state.calls++
    if (state.fails) throw new Error('no versions')
    return {}
  }
  return { state, versions }
}

t.test(
  'a console without a backup gets one when the server starts, and none without the option',
  async (t) => {
    const { app } = await buildHost(t, { schedule: 'athena' })
    t.match(app.dbBackups.schedule, { cron: '0 1 * * *', timezone: 'UTC', last: undefined })
    const { next } = app.dbBackups.schedule!
    t.ok(next >= Date.now() - 5000 && next <= Date.now() + 10 * MINUTE, 'within the jitter')

    const soon = await buildHost(t, { schedule: { cron: '0 1 * * *', timezone: 'Europe/Berlin' } })
    const last = await poll('the backup', () => soon.app.dbBackups.schedule?.last)
    t.match(last, { result: 'made', id: /^03_ibp_db_backup_/ })
    t.match(await soon.app.dbBackups.summary(last.id!), { in_progress: false, error: undefined })
    t.equal((await soon.app.dbBackups.summary(last.id!)).requester, undefined, 'nobody asked for it')

    const { app: none } = await buildHost(t)
    t.equal(none.dbBackups.schedule, undefined)
  }
)

t.test('a backup is made each time when one is due', async (t) => {
  const { operations, events, pass, first, ...host } = await setup(t)
  t.match(operations.schedule, {
    next: at('02T01:00'),
    last: { result: 'made', id: first, due: at('01T01:00') }
  })
  await pass(13 * HOUR - MINUTE, 10 * MINUTE)
  t.equal((await operations.list()).ids.length, 1, 'not before')
  await pass(2 * MINUTE)
  const [, second, ...more] = await summariesOf({ operations })
  t.strictSame(more, [])
  t.ok(isGood(second!))
  t.equal(second!.start_timestamp, at('02T01:00'), 'at the very time')
  t.strictSame(operations.schedule, {
    cron: '0 1 * * *',
    timezone: 'UTC',
    next: at('03T01:00'),
    last: { due: at('02T01:00'), at: at('02T01:00'), result: 'made', id: second!.id }
  })
  await pass(24 * HOUR, 10 * MINUTE)
  t.equal((await operations.list()).ids.length, 3)
  t.strictSame(scheduleEvents(events), [])
  await host.close()
})

t.test('jitter makes a run begin later, by less than it says', async (t) => {
  const { operations, pass } = await setup(t, { schedule: { ...NIGHTLY, jitter: 10 * MINUTE } })
  t.strictSame((await operations.list()).ids, [])
  await pass(10 * MINUTE)
  t.equal((await operations.list()).ids.length, 1)
  await pass(13 * HOUR, 10 * SECOND)
  const [, { start_timestamp: start }] = (await summariesOf({ operations })) as [
    unknown,
    { start_timestamp: number }
  ]
  t.ok(start > at('02T01:00') && start <= at('02T01:10'), new Date(start).toISOString())
})

t.test('a run is skipped when a good backup is young enough at its time, and says so', async (t) => {
  const schedule = { ...NIGHTLY, unlessYoungerThan: 12 * HOUR }
  const { operations, events, pass } = await setup(t, { schedule })
  await pass(8 * HOUR, 10 * MINUTE)
  const { id, finished } = await operations.start()
  await finished
  await pass(6 * HOUR, 10 * MINUTE)
  t.strictSame(scheduleEvents(events), [
    { type: 'schedule_skipped', due: at('02T01:00'), reason: 'younger', id }
  ])
  t.match(operations.schedule?.last, { due: at('02T01:00'), result: 'skipped', id })
  t.equal((await operations.list()).ids.length, 2)
  await pass(24 * HOUR, 10 * MINUTE)
  t.match(operations.schedule?.last, { due: at('03T01:00'), result: 'made' })
})

t.test('a failed backup is not young enough, however young', async (t) => {
  const schedule = { ...NIGHTLY, unlessYoungerThan: 12 * HOUR }
  const { operations, on, pass, clock, first } = await setup(t, { schedule })
  const failed = { _id: `03_ibp_db_backup_${clock.now() + 1}`, type: 'athena_backup', error: 'no', dbs: {} }
  await on.couch.use(on.names.system).insert({ ...failed, start_timestamp: at('01T20:00') } as object)
  await pass(14 * HOUR, 10 * MINUTE)
  t.match(operations.schedule?.last, { due: at('02T01:00'), result: 'made' })
  t.not(operations.schedule?.last?.id, first)
})

t.test('a backup that a restore made first is not young enough: the restore came after it', async (t) => {
  const schedule = { ...NIGHTLY, unlessYoungerThan: 12 * HOUR }
  const on = await setupDatabases(t)
  await on.couch.use(on.names.components).insert({ _id: 'peer1' } as never)
  const { operations, pass, first } = await setup(t, { on, schedule })
  await pass(12 * HOUR, 10 * MINUTE)
  const { finished } = await operations.restore({ id: first }, { safety: true })
  const { safety_backup } = await finished
  t.equal((await operations.list()).ids.at(-1), safety_backup)
  await pass(2 * HOUR, 10 * MINUTE)
  t.match(operations.schedule?.last, { due: at('02T01:00'), result: 'made' })
  t.not(operations.schedule?.last?.id, safety_backup)
})

t.test('a backup of another console in the same database does for nobody else', async (t) => {
  const on = await setupDatabases(t)
  const first = await setup(t, { on })
  const databases = { ...(await moreDatabases(t, on)), backups: on.names.system }
  const second = await setup(t, { on, databases })
  t.match(second.operations.schedule?.last, { result: 'made' })
  t.not(second.operations.schedule?.last?.id, first.first)
})

t.test('a backup that somebody else has made since a run was due does for it', async (t) => {
  const { operations, events, pass, clock } = await setup(t, { schedule: { ...NIGHTLY, jitter: HOUR / 2 } })
  await pass(13 * HOUR, 10 * MINUTE)
  const { id, finished } = await operations.start()
  await finished
  t.equal((await operations.summary(id)).start_timestamp, clock.now())
  await pass(HOUR)
  const skipped = { type: 'schedule_skipped', due: at('02T01:00'), reason: 'made_elsewhere', id }
  t.match(scheduleEvents(events).at(-1), skipped)
  t.match(operations.schedule?.last, { due: at('02T01:00'), result: 'made_elsewhere', id })
})

t.test(
  'several missed runs are made up for once, after a restart and after a suspended laptop',
  async (t) => {
    const { operations, clock, on, close, first } = await setup(t)
    clock.pass(5 * 24 * HOUR)
    await idle(clock)
    t.match(operations.schedule?.last, { due: at('06T01:00'), result: 'made' })
    const { ids } = await operations.list()
    t.strictSame(ids, [first, operations.schedule!.last!.id], 'one for five nights')
    await close()
    clock.set(3 * 24 * HOUR)
    const again = await buildScheduled(t, { on, clock, schedule: NIGHTLY })
    await idle(clock)
    t.match(again.operations.schedule?.last, { due: at('09T01:00'), result: 'made' })
    await again.close()
    const gate = await startGate(t, on)
    const third = await buildScheduled(t, { on, couch: gate.couch, clock, schedule: NIGHTLY })
    await idle(clock)
    t.match(third.operations.schedule?.last, { due: at('09T01:00'), result: 'made_elsewhere' })
    t.equal((await third.operations.list()).ids.length, 3, 'nothing was missed')
    const writes = gate.requests.filter((request) => /^(PUT|POST|DELETE) .*athena_backup_lease/.test(request))
    t.strictSame(writes, [], 'which takes no lease to find out')
  }
)

t.test(
  'a failure is tried again after growing waits, one attempt at a time, until it succeeds',
  async (t) => {
    const { state, versions } = failing()
    const { operations, events, pass, clock } = await setup(t, { versions })
    state.fails = true
    await pass(13 * HOUR, 10 * MINUTE)
    t.match(operations.schedule?.last, { due: at('02T01:00'), result: 'failed', reason: /no versions/ })
    await pass(8 * HOUR, 30 * SECOND)
    const failures = scheduleEvents(events)
    const waits = failures.map((event) => {
      if (event.type !== 'schedule_failed') throw new Error(`not ${event.type}`)
      return (event.retryAt! - event.due) / MINUTE
    })
    t.strictSame(waits, [1, 3, 7, 15, 31, 63, 123, 183, 243, 303, 363, 423, 483], 'minutes after it was due')
    t.equal(state.calls, failures.length + 1)
    state.fails = false
    await pass(HOUR)
    t.match(operations.schedule?.last, { due: at('02T01:00'), result: 'made' })
    t.ok(clock.now() < at('02T10:05'))
    t.equal((await operations.list()).ids.length, 2)
  }
)

t.test('a failure gives way to the next run, and the event tells', async (t) => {
  const { state, versions } = failing()
  const { operations, events, pass } = await setup(t, { versions, schedule: { cron: '*/5 * * * *' } })
  state.fails = true
  await pass(5 * MINUTE)
  await pass(4 * MINUTE + 50 * SECOND)
  const due = at('01T12:05')
  const told = scheduleEvents(events)
  isTold(t, events, [
    { type: 'schedule_failed', due, retryAt: at('01T12:06') },
    { type: 'schedule_failed', due, retryAt: at('01T12:08') },
    { type: 'schedule_failed', due }
  ])
  t.notHas(told[2], 'retryAt', 'the next attempt would be at 12:12')
  state.fails = false
  await pass(10 * SECOND)
  t.match(operations.schedule?.last, { due: at('01T12:10'), result: 'made' })
})

t.test('a backup that failed after it had begun is named, and tried again', async (t) => {
  const on = await setupDatabases(t)
  const gate = await startGate(t, on)
  const { operations, events, pass, clock } = await setup(t, { on, couch: gate.couch })
  await pass(13 * HOUR - 10 * SECOND, 10 * MINUTE)
  const release = gate.hold(/_changes/)
  clock.pass(10 * SECOND)
  await gate.held(/_changes/)
  const id = (await operations.list()).ids.at(-1)!
  const header = await on.couch.use<{ in_progress: boolean }>(on.names.system).get(id)
  await on.couch.use(on.names.system).destroy(id, header._rev)
  release()
  await idle(clock)
  isTold(t, events, [{ type: 'schedule_failed', id, retryAt: at('02T01:01'), error: Error }])
  t.match(operations.schedule?.last, { result: 'failed', id })
  await pass(MINUTE)
  t.match(operations.schedule?.last, { due: at('02T01:00'), result: 'made' })
})

t.test('a run waits for another operation, and looks again when that is over', async (t) => {
  const on = await setupDatabases(t)
  const gate = await startGate(t, on)
  const other = await buildHost(t, { on, couch: gate.couch })
  const { operations, events, pass, first } = await setup(t, { on })
  const release = gate.hold(/_bulk_docs|_all_docs.*include_docs|_changes/)
  await pass(12 * HOUR, 10 * MINUTE)
  const { finished } = await other.app.dbBackups.start()
  await pass(90 * MINUTE, 10 * SECOND)
  t.equal((await operations.list()).ids.length, 2, 'one of them runs')
  t.strictSame(scheduleEvents(events), [], 'which is no failure')
  release()
  await finished
  await pass(10 * SECOND)
  const { last } = operations.schedule!
  t.match(last, { due: at('02T01:00'), result: 'made' }, 'that one had begun before')
  t.not(last?.id, first)
  t.ok(last!.at >= at('02T01:30'))
})

t.test('a run that another operation kept waiting until the next one has failed', async (t) => {
  const { random } = Math
  Math.random = () => 0.9
  t.teardown(() => {
    Math.random = random
  })
  const on = await setupDatabases(t)
  const gate = await startGate(t, on)
  const other = await buildHost(t, { on, couch: gate.couch })
  const schedule = { cron: '*/2 * * * *', jitter: MINUTE }
  const { operations, events, pass } = await setup(t, { on, schedule })
  await pass(MINUTE)
  const release = gate.hold(/_changes/)
  const { finished } = await other.app.dbBackups.start()
  await pass(4 * MINUTE)
  isTold(t, events, [
    { type: 'schedule_failed', due: at('01T12:02'), error: { code: 'DB_BACKUPS_IN_PROGRESS' } }
  ])
  release()
  await finished
  await pass(MINUTE)
  t.match(operations.schedule?.last, { due: at('01T12:04'), result: 'made' })
})

t.test('a run that waits for another operation has not failed when the clock is set back', async (t) => {
  const on = await setupDatabases(t)
  const gate = await startGate(t, on)
  const other = await buildHost(t, { on, couch: gate.couch })
  const { operations, events, pass, clock } = await setup(t, { on, schedule: { cron: '*/10 * * * *' } })
  const release = gate.hold(/_changes/)
  const { finished } = await other.app.dbBackups.start()
  await pass(10 * MINUTE + 30 * SECOND)
  clock.set(-5 * MINUTE)
  await pass(MINUTE)
  release()
  await finished
  await pass(5 * MINUTE)
  t.match(operations.schedule?.last, { due: at('01T12:10'), result: 'made' })
  t.strictSame(scheduleEvents(events), [])
})

t.test('whether a backup is needed is looked at again under the lease, without a trace', async (t) => {
  const on = await setupDatabases(t)
  const gate = await startGate(t, on)
  // The call that is held must not be given up before the other backup is made.
  const host = await setup(t, { on, couch: gate.couch, timeouts: { lease: 30_000 } })
  const other = await buildScheduled(t, { on, clock: new TestClock('2027-05-02T00:59:50Z') })
  await host.pass(13 * HOUR - 10 * SECOND, 10 * MINUTE)
  // It has looked, and is about to ask for the lease.
  const release = gate.hold(/athena_backup_lease/)
  host.clock.pass(10 * SECOND)
  await gate.held(/athena_backup_lease/)
  other.clock.set(15 * SECOND)
  const { id, finished } = await other.operations.start()
  await finished
  release()
  await idle(host.clock)
  isTold(t, host.events, [{ type: 'schedule_skipped', reason: 'made_elsewhere', id }])
  t.strictSame((await host.operations.list()).ids, [host.first, id])
  const types = host.events.map(({ type }) => type)
  t.equal(types.filter((type) => type === 'backup_started').length, 1, 'its first one')
  t.notOk(types.includes('backup_failed'))
  await t.resolves(
    other.operations.start().then(({ finished }) => finished),
    'the lease is free'
  )
})

t.test('a backup that no list shows yet is found by the lease', async (t) => {
  const on = await setupDatabases(t)
  let lags = false
  const before = async ({ path }: { path: string }) =>
    lags ? path.replace(/_all_docs\?.*/, '_all_docs?limit=0') : path
  const couch = nano(await startRelay(t, on.url, { before }))
  const { operations, pass } = await setup(t, { on, couch })
  const other = await buildScheduled(t, { on, clock: new TestClock('2027-05-02T01:00:01Z') })
  await pass(13 * HOUR - 10 * SECOND, 10 * MINUTE)
  lags = true
  const { id, finished } = await other.operations.start()
  await finished
  await pass(10 * SECOND)
  t.match(operations.schedule?.last, { due: at('02T01:00'), result: 'made_elsewhere', id })
  t.notOk((await operations.list()).ids.includes(id), 'the list lags')
})

t.test('the schedule goes on with the databases that the host names now', async (t) => {
  const on = await setupDatabases(t)
  const later = await moreDatabases(t, on)
  let { names } = on
  const { operations, pass, first } = await setup(t, { on, databases: () => names })
  names = later
  await operations.list()
  await pass(MINUTE)
  t.match(operations.schedule?.last, { result: 'made' }, 'they have no backup yet')
  t.not(operations.schedule?.last?.id, first)
  t.strictSame((await operations.list()).ids, [operations.schedule?.last?.id])
})

t.test('databases that the host names while a backup runs get theirs after it', async (t) => {
  const on = await setupDatabases(t)
  const gate = await startGate(t, on)
  const later = await moreDatabases(t, on)
  let { names } = on
  const { operations, pass, clock, first } = await setup(t, { on, couch: gate.couch, databases: () => names })
  await pass(13 * HOUR - 10 * SECOND, 10 * MINUTE)
  const release = gate.hold(/_changes/)
  clock.pass(10 * SECOND)
  await gate.held(/_changes/)
  names = later
  t.strictSame((await operations.list()).ids, [])
  release()
  await idle(clock)
  await pass(MINUTE)
  t.equal((await operations.list()).ids.length, 1)
  names = on.names
  t.strictSame((await operations.list()).ids.slice(0, -1), [first])
})

t.test('databases that a run is the first to see are backed up once for it', async (t) => {
  const on = await setupDatabases(t)
  const later = await moreDatabases(t, on)
  let { names } = on
  const { operations, pass, clock } = await setup(t, { on, databases: () => names })
  await pass(13 * HOUR - 10 * SECOND, 10 * MINUTE)
  names = later
  clock.pass(10 * SECOND)
  await idle(clock)
  await pass(10 * MINUTE)
  const { ids } = await operations.list()
  t.equal(ids.length, 1)
  const made = { due: at('02T01:00'), at: at('02T01:00'), result: 'made', id: ids[0] }
  t.strictSame(operations.schedule?.last, made)
})

t.test('a host that names no databases for a while fails a run, and no more', async (t) => {
  const on = await setupDatabases(t)
  let fails = false
  const databases = () => {
    if (fails) throw new Error('no settings')
    return on.names
  }
  const { operations, events, pass } = await setup(t, { on, databases })
  fails = true
  await pass(13 * HOUR, 10 * MINUTE)
  isTold(t, events, [{ type: 'schedule_failed', error: /no settings/ }])
  fails = false
  await pass(MINUTE)
  t.match(operations.schedule?.last, { result: 'made' })
})

t.test(
  'a host that names no databases after a run that was not needed does not end the schedule',
  async (t) => {
    const on = await setupDatabases(t)
    let operations: Operations | undefined
    const databases = () => {
      if (operations?.schedule?.last?.result === 'made_elsewhere') throw new Error('no settings')
      return on.names
    }
    const schedule = { ...NIGHTLY, jitter: HOUR / 2 }
    const host = await setup(t, { on, databases, schedule })
    await host.pass(13 * HOUR, 10 * MINUTE)
    const { finished } = await host.operations.start()
    await finished
    operations = host.operations
    await host.pass(HOUR)
    t.match(operations.schedule?.last, { due: at('02T01:00'), result: 'made_elsewhere' })
    await host.pass(24 * HOUR, 10 * MINUTE)
    t.match(
      operations.schedule?.last,
      { due: at('03T01:00'), result: 'made' },
      'after an attempt that failed'
    )
    t.notOk(host.events.some(({ type }) => type === 'check_failed'))
  }
)

t.test('closing ends a schedule that waits, and a backup as it does others', async (t) => {
  const on = await setupDatabases(t)
  const gate = await startGate(t, on)
  const waiting = await setup(t, { on })
  await waiting.close()
  t.notOk(waiting.clock.asleep)

  const timeouts = { lease: 2000, close: 1000 }
  const { operations, events, close, pass, clock } = await setup(t, { on, couch: gate.couch, timeouts })
  await pass(13 * HOUR - 10 * SECOND, 10 * MINUTE)
  const release = gate.hold(/_changes/)
  clock.pass(10 * SECOND)
  await gate.held(/_changes/)
  const { ids } = await operations.list()
  events.length = 0
  await close()
  release()
  const [header] = (await on.couch.use<{ error?: string }>(on.names.system).fetch({ keys: [ids.at(-1)!] }))
    .rows
  t.match(header, { doc: { in_progress: false, error: 'interrupted: the server was shut down' } })
  t.strictSame(scheduleEvents(events), [])
  t.equal(events.at(-1)?.type, 'backup_failed')
  t.notOk(clock.asleep)
})

/** Makes what a schedule is made with. */
function instanceOn(t: Test, { couch, names }: TestDatabases, clock: TestClock) {
  const events: BackupEvent[] = []
  const options = resolveOptions({
    couch,
    databases: names,
    authorize: () => undefined,
    webhooks: createMemoryWebhookStore(),
    rebuildWhitelist: () => undefined,
    onEvent: (event) => void events.push(event),
    schedule: { cron: '0 * * * *' }
  })
  const instance = new Instance(options, Fastify().log, clock)
  t.teardown(() => instance.close())
  const set = new DatabaseSet(instance, { ...names, backups: names.system })
  return { instance, options, set, events }
}

t.test('what follows a backup is done after it, and its failure is none of the backup', async (t) => {
  const clock = new TestClock('2027-05-01T12:00:00Z')
  const { instance, options, set, events } = instanceOn(t, await setupDatabases(t), clock)
  const followed: string[] = []
  let pruned = Promise.resolve()
  const after = async (on: DatabaseSet) => {
    const ids = await on.stored.list()
    const { in_progress } = await on.stored.summary(ids.at(-1)!)
    followed.push(`after ${ids.length}, ${in_progress ? 'running' : 'complete'}`)
    if (ids.length === 2) throw new Error('no pruning')
    await pruned
  }
  const databases = { changes: 0, toStart: async () => set }
  const schedule = new Schedule(instance, options.schedule!, databases, after)
  schedule.start()
  await idle(clock)
  t.strictSame(followed, ['after 1, complete'])
  clock.pass(HOUR)
  await idle(clock)
  t.strictSame(followed, ['after 1, complete', 'after 2, complete'])
  const { last } = schedule.state
  t.match(last, { due: at('01T13:00'), result: 'made' })
  isTold(t, events, [{ type: 'schedule_pruning_failed', id: last?.id, error: /no pruning/ }])

  let end = () => {}
  pruned = new Promise<void>((resolve) => {
    end = resolve
  })
  clock.pass(HOUR)
  await poll('the pruning', () => (followed.length === 3 ? true : undefined))
  schedule.stop()
  let settled = false
  const closing = instance.jobs.settled(30_000).then(() => {
    settled = true
  })
  await delay(100)
  t.notOk(settled, 'closing waits for it')
  end()
  await closing
})

t.test('a verification goes on where it was interrupted, but not on other databases', async (t) => {
  const clock = new TestClock('2027-05-01T12:00:00Z')
  const { instance } = instanceOn(t, await setupDatabases(t), clock)
  const resumed: (string | undefined)[] = []
  const interruptedSet = () => ({
    verifyRun: async ({ resume }: VerifyDue) => {
      resumed.push(resume?.from)
      if (resumed.length === 2) {
        set = interruptedSet()
        databases.changes++
        t.ok(schedule.state.next, 'somebody sees the change before the attempt ends')
      }
      throw new VerifyInterruptedError('a backup', `position ${resumed.length}`, new Error('not now'))
    }
  })
  let set = interruptedSet()
  const databases = { changes: 0, toStart: async () => set as unknown as DatabaseSet }
  const options = { cron: '0 * * * *', depth: 'data', timezone: 'UTC' } as const
  const schedule = new VerifySchedule(instance, options, databases)
  schedule.start()
  for (let hour = 0; hour < 3; hour++) {
    await idle(clock)
    clock.pass(HOUR)
  }
  await idle(clock)
  schedule.stop()
  t.strictSame(resumed.slice(0, 3), [undefined, 'position 1', undefined])
})

t.test('nothing follows a backup that a closing server lets end', async (t) => {
  const on = await setupDatabases(t)
  const gate = await startGate(t, on)
  const clock = new TestClock('2027-05-01T12:00:00Z')
  const { instance, options, set } = instanceOn(t, { ...on, couch: gate.couch }, clock)
  const followed: unknown[] = []
  const schedule = new Schedule(
    instance,
    options.schedule!,
    { changes: 0, toStart: async () => set },
    async (on) => followed.push(on)
  )
  const release = gate.hold(/_changes/)
  schedule.start()
  await gate.held(/_changes/)
  schedule.stop()
  release()
  await instance.jobs.settled(30_000)
  t.match(schedule.state.last, { result: 'made' })
  t.strictSame(followed, [])
})

t.test('the schedule is in the metrics and in the log', async (t) => {
  const { state, versions } = failing()
  state.fails = true
  const host = await observe(t, { schedule: { cron: '0 1 * * *' }, versions })
  await host.event('schedule_failed')
  t.equal(await host.metric('db_backups_schedule_failures_total'), 1)
  const next = () => host.metric('db_backups_schedule_next_timestamp_seconds{operation="backup"}')
  await poll('the next attempt', async () => ((await next()) ? true : undefined))
  t.ok(Math.abs((await next())! * 1000 - Date.now() - MINUTE) < 10 * SECOND)
  t.match(
    host.lines.find(({ event }) => event === 'schedule_failed'),
    { level: 50, msg: 'schedule: a backup failed; will try again', due: /T01:00:00.000Z$/, retryAt: String }
  )
  const worked = 'db_backups_schedule_last_success_timestamp_seconds{operation="backup"}'
  t.equal(await host.metric(worked), undefined)
  const good = await observe(t, { schedule: { cron: '0 1 * * *' } })
  await poll('the backup', () => good.app.dbBackups.schedule?.last)
  t.ok(Math.abs((await good.metric(worked))! * 1000 - Date.now()) < 30 * SECOND)
  t.equal(await good.metric('db_backups_schedule_failures_total'), 0)
})
