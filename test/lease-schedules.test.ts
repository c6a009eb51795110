import { setTimeout as delay } from 'node:timers/promises'
import fc from 'fast-check'
import t from 'tap'
import { CouchError } from '../lib/couch/errors.js'
import type { Lease } from '../lib/lease/lease.js'
import { LeaseHeldError, type Leases } from '../lib/lease/leases.js'
import { LEASE } from './helpers/database.js'
import { acquire, LEASE_DATABASE, leasesOn } from './helpers/leases.js'
import { cases, extent } from './helpers/settings.js'
import { type SimulatedCluster, type Strike, startSimulatedCluster } from './helpers/simulated-cluster.js'

const TTL = 300

/** An instance that takes the lease, and a function that ends it. */
const turn = fc.record({
  after: fc.nat({ max: 60 }),
  for: fc.nat({ max: 250 }),
  /** How the instance ends. One that dies stops renewing the lease, and does not release it. */
  end: fc.constantFrom('release' as const, 'release' as const, 'release' as const, 'die' as const)
})
/** Faults that happen to requests about the lease now and then. */
const fault = fc.record({
  after: fc.nat({ max: 400 }),
  times: fc.integer({ min: 1, max: 4 }),
  effect: fc.boolean(),
  path: fc.constantFrom(/athena_backup_lease/, /_bulk_get/),
  answer: fc.constantFrom<Strike['answer']>(
    'never',
    { status: 500, error: 'internal_server_error' },
    { status: 409, error: 'conflict' },
    { status: 412, error: 'nodedown', reason: 'progress not possible' }
  )
})
const schedule = fc.record({
  seed: fc.integer(),
  n: fc.constantFrom(1, 2, 3, 3, 3),
  delay: fc.integer({ min: 1, max: 15 }),
  merge: fc.integer({ min: 1, max: 60 }),
  instances: fc.array(fc.array(turn, { minLength: 1, maxLength: 4 }), { minLength: 2, maxLength: 4 }),
  faults: fc.array(fault, { maxLength: 3 }),
  down: fc.option(fc.record({ after: fc.nat({ max: 300 }), for: fc.nat({ max: 300 }) }))
})

/** The leases that allow writes at present. */
function holding(all: ReadonlySet<Lease>): Lease[] {
  return [...all].filter((lease) => {
    try {
      lease.check()
      return true
    } catch {
      return false
    }
  })
}

async function withCluster<T>(
  options: Parameters<typeof startSimulatedCluster>[0],
  work: (cluster: SimulatedCluster) => Promise<T>
): Promise<T> {
  const cluster = await startSimulatedCluster(options)
  try {
    const { leases, close } = leasesOn(cluster.urls[0]!, TTL)
    await fetch(`${cluster.urls[0]}/${LEASE_DATABASE}`, { method: 'PUT' })
    await (await acquire(leases, 'first')).release()
    await close()
    await cluster.merge()
    return await work(cluster)
  } finally {
    await cluster.close()
  }
}

t.test('two never hold the lease, whatever happens; and it is free again', async (t) => {
  let taken = 0
  await fc.assert(
    fc.asyncProperty(schedule, async ({ instances, faults, down, ...options }) => {
      await withCluster(options, async (cluster) => {
        const held = new Set<Lease>()
        let most = 0
        const watching = setInterval(() => {
          most = Math.max(most, holding(held).length)
        }, 1)
        const places = instances.map((_, i) => leasesOn(cluster.urls[i % cluster.urls.length]!, TTL))
        const live = async (turns: (typeof instances)[number], i: number) => {
          for (const [number, turn] of turns.entries()) {
            await delay(turn.after)
            const lease = await acquire(places[i]!.leases, `${i}.${number}`).catch((error: unknown) => {
              if (error instanceof LeaseHeldError || error instanceof CouchError) return null
              throw error
            })
            if (!lease) continue
            taken++
            held.add(lease)
            most = Math.max(most, holding(held).length)
            await delay(turn.for)
            if (turn.end === 'release') await lease.release()
            else lease.abandon()
          }
        }
        const strike = async ({ after, ...strike }: (typeof faults)[number]) => {
          await delay(after)
          const end = cluster.strike(strike)
          await delay(TTL)
          end()
        }
        const failing = async () => {
          if (!down || options.n < 3) return
          await delay(down.after)
          await cluster.down(2)
          await delay(down.for)
          await cluster.up(2)
        }
        await Promise.all([...instances.map(live), ...faults.map(strike), failing()])
        clearInterval(watching)
        for (const lease of held) lease.abandon()
        await cluster.merge()
        const after = leasesOn(cluster.urls[0]!, TTL)
        const since = performance.now()
        const last = await untilTaken(after.leases)
        if (performance.now() - since > 20 * TTL) throw new Error('it took too long to become free')
        await last.release()
        await cluster.merge()
        for (const { close } of [...places, after]) await close()
        const leaves = cluster.leaves(LEASE_DATABASE, LEASE)
        if (most > 1) throw new Error(`${most} held it`)
        if (leaves.length !== 1) throw new Error(`${leaves.length} leaves`)
      })
    }),
    { numRuns: cases(extent(4, 8)), endOnFailure: true }
  )
  t.ok(taken > cases(extent(2, 4)), 'it was taken')
})

/** Takes the lease as soon as it is free or stale. */
async function untilTaken(leases: Leases): Promise<Lease> {
  for (;;) {
    try {
      return await acquire(leases, 'last')
    } catch (error) {
      if (!(error instanceof LeaseHeldError)) throw error
      await delay(TTL / 10)
    }
  }
}

t.test('one of several simultaneous claims gets the lease, at once', async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.integer(), fc.integer({ min: 1, max: 15 }), async (seed, slowest) => {
      await withCluster({ seed, delay: slowest, merge: 30 }, async (cluster) => {
        const places = [0, 1, 2].map((node) => leasesOn(cluster.urls[node]!, TTL))
        const results = await Promise.all(
          places.map(({ leases }, i) =>
            acquire(leases, `${i}`).catch((error: unknown) => {
              if (error instanceof LeaseHeldError) return null
              throw error
            })
          )
        )
        const winners = results.filter((lease) => lease !== null)
        for (const lease of winners) await lease.release()
        await cluster.merge()
        for (const { close } of places) await close()
        if (winners.length !== 1) throw new Error(`${winners.length} got it`)
        const leaves = cluster.leaves(LEASE_DATABASE, LEASE)
        if (leaves.length !== 1) throw new Error(`${leaves.length} leaves`)
      })
    }),
    { numRuns: cases(extent(5, 10)), endOnFailure: true }
  )
  t.pass()
})

t.test('no claim gets the lease while most replicas are away, and the error says why', async (t) => {
  await withCluster({ delay: 2 }, async (cluster) => {
    const { leases, close } = leasesOn(cluster.urls[0]!, TTL)
    await cluster.down(1)
    await cluster.down(2)
    await t.rejects(acquire(leases, 'alone'), /no_majority/)
    await close()
  })
})

t.test('one of two replicas may be away', async (t) => {
  await withCluster({ n: 2, delay: 2 }, async (cluster) => {
    const { leases, close } = leasesOn(cluster.urls[0]!, 3 * TTL)
    await cluster.down(1)
    const lease = await acquire(leases, 'alone')
    await delay(6 * TTL)
    lease.check()
    await lease.release()
    await close()
  })
  t.pass()
})
