import type { IncomingHttpHeaders } from 'node:http'
import nano from 'nano'
import t, { type Test } from 'tap'
import type { DbBackupsOptions } from '../types/index.js'
import { setupDatabases, type TestDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { observe } from './helpers/observed-host.js'
import { startRelay } from './helpers/relay.js'
import { buildScheduled, HOUR, idle, isGood, MINUTE, summariesOf, TestClock } from './helpers/scheduled.js'
import { fabricate } from './helpers/stored-backups.js'

const DAY = 24 * HOUR
const NIGHTLY = { cron: '0 1 * * *' }

/** Returns the databases as reached on a server whose clock tells `now`. While that is `undefined`, answers have no date. */
async function withServerTime(
  t: Test,
  on: TestDatabases,
  now: () => number | undefined
): Promise<TestDatabases> {
  const headers = ({ date: _date, ...others }: IncomingHttpHeaders) => {
    const time = now()
    return time === undefined ? others : { ...others, date: new Date(time).toUTCString() }
  }
  return { ...on, couch: nano(await startRelay(t, on.url, { headers })) }
}

/** Builds a server at noon whose clock may be set beside the right time, which the database's server tells. */
async function setup(t: Test, options: Partial<DbBackupsOptions>, serverIsWrong = false) {
  const clock = new TestClock('2027-05-01T12:00:00Z')
  let ahead = 0
  const on = await withServerTime(t, await setupDatabases(t), () => clock.now() - (serverIsWrong ? 0 : ahead))
  const host = await buildScheduled(t, { on, clock, schedule: NIGHTLY, ...options })
  await idle(clock)
  const setAhead = (ms: number) => {
    clock.set(ms - ahead)
    ahead = ms
  }
  const refusals = () => host.events.filter(({ type }) => type === 'schedule_pruning_failed')
  return { ...host, setAhead, refusals, nights: (count: number) => host.pass(count * DAY, 10 * MINUTE) }
}

const isIn = (ids: readonly string[]) => (id: string) => ids.includes(id)

t.test('pruning follows each run, also one that another backup does for', async (t) => {
  const { operations, pass, refusals } = await setup(t, {
    schedule: { ...NIGHTLY, unlessYoungerThan: 23 * HOUR },
    keep: { last: 2 }
  })
  for (let night = 0; night < 3; night++) {
    await pass(12 * HOUR + 30 * MINUTE, 10 * MINUTE)
    const { finished } = await operations.start()
    await finished
    await pass(11 * HOUR + 30 * MINUTE, 10 * MINUTE)
  }
  t.match(operations.schedule?.last, { result: 'skipped', pruningError: undefined })
  t.ok((await operations.list()).ids.length <= 3, 'two, and the one of this night')
  t.strictSame(refusals(), [])
})

t.test('a clock that is a year ahead for some runs has nothing pruned, and tells so', async (t) => {
  const { operations, nights, setAhead, refusals } = await setup(t, { keep: { within: '30d' } })
  await nights(4)
  const before = (await operations.list()).ids
  t.equal(before.length, 5)
  setAhead(365 * DAY)
  await nights(2)
  const error = { name: 'ClockAheadError', code: 'DB_BACKUPS_CLOCK_AHEAD', statusCode: 409 }
  // One was missed by the leap.
  t.match(refusals(), [{ error }, { error }, { error }])
  t.match(operations.schedule?.last, {
    result: 'made',
    reason: undefined,
    pruningError: /clock of this host is 52\d\d\d\d minutes ahead .* nothing was pruned/
  })
  t.equal((await operations.list()).ids.filter(isIn(before)).length, 5)

  setAhead(0)
  await nights(3)
  const isAhead = (event: object) => (event as { error?: { code?: string } }).error?.code === error.code
  t.equal(refusals().filter(isAhead).length, 3, 'no other is refused for that')
  const after = await summariesOf({ operations })
  t.equal(after.map(({ id }) => id).filter(isIn(before)).length, 5)
  t.equal(after.filter(isGood).length, after.length)
  t.equal(operations.schedule?.last?.pruningError, undefined)
})

t.test('where clock and server are ahead together, the leap between two backups refuses', async (t) => {
  const { operations, pass, nights, setAhead, refusals } = await setup(t, { keep: { within: '30d' } }, true)
  await nights(4)
  const before = (await operations.list()).ids
  setAhead(200 * DAY)
  await pass(2 * HOUR, 10 * MINUTE)
  t.match(refusals(), [{ error: { code: 'DB_BACKUPS_CLOCK_LEAP' } }])
  setAhead(0)
  await nights(1)
  t.equal((await operations.list()).ids.filter(isIn(before)).length, 5)
})

t.test('pruning by hand, and its preview, compare the clocks; a removal by name does not', async (t) => {
  const raw = await setupDatabases(t)
  let server: number | undefined = Date.now()
  const on = await withServerTime(t, raw, () => server)
  const ids = await fabricate(
    raw,
    [3, 2, 1].map((days) => ({ at: Date.now() - days * DAY }))
  )
  const { dbBackups } = (await buildHost(t, { on })).app
  const both = async (error: { code: string; message?: RegExp; reason?: RegExp }) => {
    for (const dryRun of [true, false]) await t.rejects(dbBackups.prune({ keep: { last: 1 }, dryRun }), error)
    t.strictSame(await dbBackups.list(), { ids })
  }
  server = Date.now() - 6 * MINUTE
  await both({ code: 'DB_BACKUPS_CLOCK_AHEAD', message: /is 6 minutes ahead/ })
  server = undefined
  await both({ code: 'DB_BACKUPS_DATABASE_ERROR', reason: /no Date/ })
  await dbBackups.remove(ids[0]!)
  // A host that is behind keeps more, and a few minutes make no backup old.
  for (const time of [Date.now() + DAY, Date.now() - 4 * MINUTE]) {
    server = time
    await dbBackups.prune({ keep: { last: 1 } })
  }
  t.strictSame(await dbBackups.list(), { ids: ids.slice(2) })
})

t.test('a refused pruning is an error in the log', async (t) => {
  const on = await setupDatabases(t)
  const behind = await withServerTime(t, on, () => Date.now() - DAY)
  const url = behind.couch.config.url
  const host = await observe(t, { on: { ...on, url }, schedule: NIGHTLY, keep: { last: 1 } })
  await host.event('schedule_pruning_failed')
  t.match(
    host.lines.find(({ event }) => event === 'schedule_pruning_failed'),
    { level: 50, err: { message: /clock of this host is 1440 minutes ahead/ } }
  )
})
