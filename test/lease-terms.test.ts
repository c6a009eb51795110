import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { LeaseGoneError, LeaseHeldError, Leases } from '../lib/lease/leases.js'
import { acquire, startLeases } from './helpers/leases.js'
import { poll } from './helpers/poll.js'

const TTL = 2000
const HOUR = 3_600_000
const LEFT = { operation: 'backup', id: 'left', instance: 'x', claim: 'left', beat: 1 }

t.test(
  'a lease lasts as long as it says, or as long as those of this instance where that makes no sense',
  async (t) => {
    const { instance, put } = await startLeases(t, TTL)
    const { leases } = instance()
    for (const [ttl, lasts] of [
      [500, 500],
      [HOUR, HOUR],
      [HOUR + 1, TTL],
      [0, TTL],
      [-5, TTL],
      ['500', TTL]
    ] as const) {
      await put({ ...LEFT, ttl })
      const { staleIn = 0 } = (await leases.inspect()) ?? {}
      t.ok(staleIn >= lasts && staleIn < lasts + 1000, `${ttl}: ${staleIn}`)
    }
  }
)

t.test('a lease is renewed some times while it lasts, and tried more often after a fault', async (t) => {
  const { instance, writes, fail } = await startLeases(t, TTL)
  const lost: Error[] = []
  const lease = await acquire(instance().leases, 'held', (error) => lost.push(error))
  let before = writes()
  await delay(TTL)
  t.ok(writes() - before >= 2 && writes() - before <= 5, `${writes() - before} renewals`)
  lease.check()
  const end = fail({ times: Number.POSITIVE_INFINITY })
  before = writes()
  await delay(TTL)
  end()
  t.ok(writes() - before >= 4 && writes() - before <= 16, `${writes() - before} attempts`)
  t.equal(lost.length, 1)
  t.throws(() => lease.check(), { message: /renewed in time/ })
})

t.test('a renewal whose answer was lost counts, and the next one follows it', async (t) => {
  const { instance, fail } = await startLeases(t, TTL)
  const { document, leases } = instance()
  const lease = await acquire(leases, 'held')
  const newest = async () => (await document.read())[0] as { rev: string; beat: number }
  const { beat } = await newest()
  fail({ effect: true })
  const lost = await poll('the renewal', async () => ((await newest()).beat > beat ? newest() : undefined))
  const next = await poll('the next one', async () =>
    (await newest()).rev !== lost.rev ? newest() : undefined
  )
  t.equal(next.beat, lost.beat + 1)
  await lease.release()
})

t.test('a lease is kept when its database is deleted and created again', async (t) => {
  const { instance, recreate, held } = await startLeases(t, TTL)
  const lease = await acquire(instance().leases, 'held')
  await recreate()
  await delay(1.5 * TTL)
  t.equal(held(), 'backup')
  lease.check()
  await lease.release()
  t.equal(held(), undefined)
})

t.test('a lease keeps no process from ending', async (t) => {
  const timers = () => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length
  const { instance, fail } = await startLeases(t, HOUR)
  const { leases, document } = instance()
  await document.read()
  const before = timers()
  const lease = await acquire(leases, 'held')
  t.equal(timers(), before, 'while it is held')
  fail({ times: 5 })
  await lease.release()
  t.equal(timers(), before, 'while it waits to be given back')
})

t.test('instead of one stale lease no other is taken over, and no free one', async (t) => {
  const { instance, put } = await startLeases(t, TTL)
  const { leases } = instance()
  const holder = { operation: 'backup', id: 'next', instance: 'y' } as const
  const insteadOf = (claim: string) =>
    leases.acquire({ insteadOf: claim, holder: (carried) => ({ holder, carried }), onLost() {} })
  const isStale = async () => (await leases.inspect())?.staleIn === 0
  await put({ ...LEFT, ttl: 1 })
  await isStale()
  await delay(20)
  t.ok(await isStale())
  await t.rejects(insteadOf('another'), LeaseGoneError)
  await put({ ...LEFT, operation: undefined })
  await t.rejects(insteadOf('left'), LeaseGoneError)
  await put({ ...LEFT, ttl: 1 })
  await isStale()
  await delay(20)
  const lease = await insteadOf('left')
  t.match(await leases.inspect(), { holder })
  await lease.release()
})

t.test('a claim keeps others away for some seconds, however long leases last', async (t) => {
  const { instance, fail, writes } = await startLeases(t, HOUR)
  const { document } = instance()
  const claiming = instance().leases.acquire({
    holder(carried) {
      // the claim is written, and its instance learns nothing more
      fail({ method: 'POST', path: /_bulk_get/, answer: 'never' })
      return { holder: { operation: 'backup', id: 'slow', instance: 'slow' }, carried }
    },
    onLost() {}
  })
  claiming.catch(() => undefined)
  await poll('the claim', () => (writes() > 0 ? true : undefined))
  await delay(100)
  t.match(await document.read(), [{ operation: 'backup', settled: false, ttl: 10_000 }])
})

t.test('an instance whose claims meet others waits before each next one', async (t) => {
  const { instance, fail, writes } = await startLeases(t, TTL)
  const end = fail({ times: Number.POSITIVE_INFINITY, answer: { status: 409, error: 'conflict' } })
  const acquiring = acquire(instance().leases, 'met')
  await delay(1500)
  t.ok(writes() > 2 && writes() <= 18, `${writes()} claims`)
  end()
  await (await acquiring).release()
})

t.test('a lease that comes to light beside a claim is kept, and the claim is taken back', async (t) => {
  const { instance, put } = await startLeases(t, TTL)
  const { document, leases: other } = instance()
  await put({ claim: 'free', beat: 1 })
  let overwrites = 0
  const leases = new Leases(document, document, TTL, async () => {
    const hidden = { ...LEFT, _rev: '2-0', over: '1-0', settled: true, ttl: HOUR }
    if (overwrites++ === 0) await put(hidden, '?new_edits=false')
  })
  await t.rejects(acquire(leases, 'claiming'), LeaseHeldError)
  t.equal(overwrites, 1)
  t.match(await other.inspect(), { claim: 'left' })
  const live = (await document.read()).filter(({ deleted }) => !deleted)
  t.strictSame(
    live.map(({ rev }) => rev),
    ['2-0'],
    'nothing else is left'
  )
})
