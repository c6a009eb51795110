import t from 'tap'
import { Notices } from '../lib/lease/notices.js'
import { LEASE } from './helpers/database.js'
import { LEASE_DATABASE, leasesOn } from './helpers/leases.js'
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
  const earlier = new Notices(document, async (txIds) => {
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
