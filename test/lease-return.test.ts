import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { LeaseLostError } from '../lib/errors.js'
import { LeaseHeldError } from '../lib/lease/leases.js'
import { acquire, startLeases } from './helpers/leases.js'
import { poll } from './helpers/poll.js'

/** Attempts that a release makes before it returns. */
const ATTEMPTS = 5
/** Claims that an instance remembers to have given up. */
const REMEMBERED = 200
const HOUR = 3_600_000

t.test('a lease that could not be given back is given back later, while it lasts', async (t) => {
  const { instance, fail, writes, held } = await startLeases(t, HOUR)
  const lease = await acquire(instance().leases, 'first')
  fail({ times: ATTEMPTS + 1 })
  await lease.release()
  t.equal(held(), 'backup', 'the release has given up')
  await poll('the lease to be free', () => (held() === undefined ? true : undefined), 15_000)
  const written = writes()
  await delay(1500)
  t.equal(writes(), written, 'it is not given back again')
  await acquire(instance().leases, 'second')
})

t.test('a lease that could not be given back is not given back once it is stale', async (t) => {
  const { instance, fail, writes, held } = await startLeases(t, 2000)
  const lease = await acquire(instance().leases, 'first')
  fail({ times: Number.POSITIVE_INFINITY })
  await lease.release()
  await delay(4500)
  const written = writes()
  await delay(1500)
  t.equal(writes(), written, 'nobody tries any more')
  t.equal(held(), 'backup')
})

t.test('a lease that was given back is neither relied on nor renewed', async (t) => {
  const { instance, writes } = await startLeases(t, 2000)
  const lease = await acquire(instance().leases, 'first')
  lease.check()
  await lease.release()
  t.throws(() => lease.check(), LeaseLostError)
  const written = writes()
  await delay(1500)
  t.equal(writes(), written)
})

t.test('an instance need not wait for the lease that it could not give back; others must', async (t) => {
  const { instance, fail } = await startLeases(t, HOUR)
  const [own, other] = [instance().leases, instance().leases]
  const lease = await acquire(own, 'first')
  fail({ times: ATTEMPTS })
  await lease.release()
  await t.rejects(acquire(other, 'other'), LeaseHeldError)
  await acquire(own, 'second')
})

t.test('an instance remembers so many of the claims that it has given up', async (t) => {
  const { instance, put } = await startLeases(t, HOUR)
  const { document, leases } = instance()
  const claims: string[] = []
  for (let i = 0; i <= REMEMBERED; i++) {
    const lease = await acquire(leases, `${i}`)
    claims.push((await document.read())[0]!.claim)
    await lease.release()
  }
  /** Writes a lease with this claim, as a request does that comes late. */
  const comesLate = async (claim: string) => {
    await put({ operation: 'backup', id: 'late', instance: 'x', claim, ttl: HOUR })
    return (await leases.inspect())?.staleIn
  }
  t.equal(await comesLate(claims.at(-1)!), 0, 'the last')
  t.equal(await comesLate(claims[1]!), 0, 'the first that is remembered')
  t.ok((await comesLate(claims[0]!))! > 0, 'one before')
})
