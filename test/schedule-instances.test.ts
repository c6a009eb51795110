import t, { type Test } from 'tap'
import { setupDatabases } from './helpers/database.js'
import { startGate } from './helpers/gate.js'
import { poll } from './helpers/poll.js'
import { buildScheduled, HOUR, isGood, MINUTE, SECOND, summariesOf, TestClock } from './helpers/scheduled.js'

const ROUNDS = 20
const EVERY = HOUR
const FIRST = Date.parse('2027-05-01T12:00Z')

/**
 * Builds three servers on the same databases, whose clocks differ by seconds, each behind a gate of its own.
 * @param lease milliseconds, of real time, after which a lease is stale
 */
async function setup(t: Test, lease: number) {
  const on = await setupDatabases(t)
  const hosts = []
  for (const ahead of [0, 3, -4]) {
    const clock = new TestClock(new Date(FIRST + (20 + ahead) * SECOND).toISOString())
    const gate = await startGate(t, on)
    const schedule = { cron: '0 * * * *', jitter: 20 * SECOND }
    hosts.push({
      ...(await buildScheduled(t, { clock, schedule, on, couch: gate.couch, timeouts: { lease } })),
      gate
    })
  }
  return { on, hosts }
}

type Host = Awaited<ReturnType<typeof setup>>['hosts'][number]

/** Lets time pass for all at once, slowly while one is at work, until each is through with its run of this time. */
async function runDue(hosts: readonly Host[], due: number, step = 2 * SECOND): Promise<void> {
  const isThrough = ({ operations }: Host) => {
    const last = operations.schedule?.last
    return last?.due === due && last.result !== 'failed'
  }
  const passes = async () => {
    if (hosts.every(isThrough)) return true
    const ms = hosts.every(({ clock }) => clock.asleep) ? step : 100
    for (const { clock } of hosts) if (clock.now() < due + EVERY - MINUTE) clock.pass(ms)
    return undefined
  }
  await poll(`all to be through with ${new Date(due).toISOString()}`, passes, 60_000, 5).catch(
    (error: Error) => {
      const states = hosts.map(({ clock, operations }) => [new Date(clock.now()), operations.schedule?.last])
      throw new Error(`${error.message}: ${JSON.stringify(states)}`)
    }
  )
}

/** Moves all clocks to shortly before the next due time. */
function passTo(hosts: readonly Host[], time: number): void {
  const [{ clock }] = hosts as [Host]
  const ms = time - clock.now()
  for (const host of hosts) host.clock.pass(ms)
}

const madeFor = async (host: Host, due: number) =>
  (await summariesOf(host)).filter(
    (summary) => isGood(summary) && summary.start_timestamp >= due && summary.start_timestamp < due + EVERY
  )

t.test(`three instances make exactly one backup for each of ${ROUNDS} due times`, async (t) => {
  // A lease that a busy machine renews late would fail attempts, and clocks pass an hour in seconds.
  const { hosts } = await setup(t, 30_000)
  const makers = new Set<number>()
  for (let round = 0; round < ROUNDS; round++) {
    const due = FIRST + round * EVERY
    await runDue(hosts, due)
    const made = await madeFor(hosts[0]!, due)
    t.equal(made.length, 1, new Date(due).toISOString())
    const results = hosts.map(({ operations }) => operations.schedule?.last)
    t.strictSame(
      results.map((last) => last?.id),
      hosts.map(() => made[0]?.id),
      'all know it'
    )
    t.equal(results.filter((last) => last?.result === 'made').length, 1)
    makers.add(results.findIndex((last) => last?.result === 'made'))
    passTo(hosts, due + EVERY - 10 * SECOND)
  }
  t.equal((await summariesOf(hosts[0]!)).length, ROUNDS, 'and none that failed')
  t.ok(makers.size > 1, 'more than one of them makes backups')
})

t.test('when the instance that makes a backup dies, another one makes it', async (t) => {
  const { hosts } = await setup(t, 2000)
  await runDue(hosts, FIRST)
  const due = FIRST + EVERY
  passTo(hosts, due - 10 * SECOND)
  const releases = hosts.map(({ gate }) => gate.hold(/_changes/))
  let dead: Host | undefined
  for (const host of hosts) void host.gate.held(/_changes/).then(() => (dead ??= host))
  await poll('one to begin', async () => {
    if (dead) return true
    for (const { clock } of hosts) clock.pass(SECOND)
    return undefined
  })
  const frozen = dead!.gate.hold(/./)
  const alive = hosts.filter((host) => host !== dead)
  for (const [i, release] of releases.entries()) if (hosts[i] !== dead) release()
  // A lease becomes stale in real time.
  await runDue(alive, due, 100)
  const made = await madeFor(alive[0]!, due)
  t.equal(made.length, 1)
  const failed = (await summariesOf(alive[0]!)).filter((summary) => !isGood(summary))
  t.match(failed, [{ error: /^interrupted: the server stopped while the backup was running/ }])
  t.equal(failed.length, 1)

  // The dead one was only frozen: it has lost the lease, and finds the backup.
  frozen()
  releases[hosts.indexOf(dead!)]!()
  await runDue(hosts, due)
  t.match(dead!.operations.schedule?.last, { due, result: 'made_elsewhere', id: made[0]?.id })
  t.equal((await madeFor(alive[0]!, due)).length, 1)
})
