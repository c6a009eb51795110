import t from 'tap'
import { EarlierVersions } from '../lib/lease/earlier-versions.js'
import { LEASE, LEASE_DATABASE, leasesOn } from './helpers/leases.js'
import { startSimulatedCluster } from './helpers/simulated-cluster.js'

t.test('notices that an earlier version left in the lease are handed over once', async (t) => {
  const cluster = await startSimulatedCluster({ n: 1 })
  t.teardown(() => cluster.close())
  const [url] = cluster.urls
  await fetch(`${url}/${LEASE_DATABASE}`, { method: 'PUT' })
  const left = { type: LEASE, claim: 'old', beat: 1, notify: ['first', 2, 'second'] }
  await fetch(`${url}/${LEASE_DATABASE}/${LEASE}`, { method: 'PUT', body: JSON.stringify(left) })
  const { document, close } = leasesOn(url!, 1000, 5000)
  t.teardown(close)
  const kept: (readonly string[])[] = []
  let fails = true
  const earlier = new EarlierVersions(document, undefined, 1000, async (txIds) => {
    if (fails) throw new Error('the notices could not be stored')
    kept.push(txIds)
  })

  await t.rejects(earlier.move(), /could not be stored/)
  fails = false
  await earlier.move()
  t.strictSame(kept, [['first', 'second']], 'again, since the first attempt failed')
  const asked = cluster.requests.length
  await earlier.move()
  t.equal(cluster.requests.length, asked, 'the lease is not read for them any more')
  t.equal(kept.length, 1)
})

t.test('a lease where earlier versions kept it', async (t) => {
  const start = async () => {
    const cluster = await startSimulatedCluster({ n: 1 })
    t.teardown(() => cluster.close())
    const [url] = cluster.urls
    await fetch(`${url}/${LEASE_DATABASE}`, { method: 'PUT' })
    const { document, close } = leasesOn(url!, 1000, 5000)
    t.teardown(close)
    return { url, document }
  }
  const { url, document } = await start()
  const { document: current } = await start()
  const kept: (readonly string[])[] = []
  let fails = false
  const keep = async (txIds: readonly string[]) => {
    if (fails) throw new Error('the notices could not be stored')
    kept.push(txIds)
  }
  /** Writes the former lease, in a database that holds nothing else. */
  const left = async (lease: object) => {
    for (const method of ['DELETE', 'PUT']) await fetch(`${url}/${LEASE_DATABASE}`, { method })
    const body = JSON.stringify({ type: LEASE, ...lease })
    await fetch(`${url}/${LEASE_DATABASE}/${LEASE}`, { method: 'PUT', body })
    kept.length = 0
    return new EarlierVersions(current, document, 1000, keep)
  }
  const isThere = async () => (await document.read()).some(({ deleted }) => !deleted)
  const held = {
    operation: 'backup',
    id: 'b',
    instance: 'x',
    claim: 'old',
    beat: 1,
    notify: ['first']
  } as const
  const ended = { holder: held, claim: 'old', staleIn: 0 } as const

  await t.test('is found, and kept as long as it names an operation', async (t) => {
    const earlier = await left(held)
    t.match(await earlier.inspect(), { former: true, claim: 'old', holder: { id: 'b' } })
    await earlier.move()
    t.ok(await isThere())
    t.strictSame(kept, [[]], 'its notices stay in it')
  })
  await t.test('is removed when nobody has it, and its notices are handed over before', async (t) => {
    const earlier = await left({ claim: 'old', beat: 1, notify: ['first'] })
    t.equal(await earlier.inspect(), null)
    fails = true
    await t.rejects(earlier.move(), /could not be stored/)
    t.ok(await isThere())
    fails = false
    await earlier.move()
    t.notOk(await isThere())
    t.strictSame(kept, [['first'], []])
  })
  await t.test('is removed after its operation was ended, and after no other', async (t) => {
    const earlier = await left(held)
    await earlier.discard(ended)
    t.ok(await isThere(), 'the ended operation had the current lease')
    await earlier.discard({ ...ended, former: true, claim: 'another' })
    t.ok(await isThere(), 'it had another claim')
    await earlier.discard({ ...ended, former: true })
    t.notOk(await isThere())
    t.strictSame(kept, [['first']])
  })
  await t.test('is not looked for in the database of the current one', async (t) => {
    await left(held)
    const earlier = new EarlierVersions(document, undefined, 1000, keep)
    t.equal(await earlier.inspect(), null)
    await earlier.discard()
    t.ok(await isThere())
  })
})
