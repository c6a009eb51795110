import { setImmediate as turn } from 'node:timers/promises'
import fc from 'fast-check'
import t from 'tap'
import { Places } from '../lib/waits/places.js'
import { cases } from './helpers/settings.js'

const FULL = new Error('full')

t.test(
  'whatever ends first, no more are at work than have a place, and every place comes back',
  async (t) => {
    const job = fc.record({ ms: fc.integer({ min: 0, max: 6 }), fails: fc.boolean() })
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 3 }),
        fc.integer({ min: 0, max: 3 }),
        fc.integer({ min: 0, max: 4 }),
        fc.array(job, { minLength: 1, maxLength: 12 }),
        async (most, waiting, patience, jobs) => {
          const places = new Places({ most, waiting, patience })
          let working = 0
          let peak = 0
          const work = (ms: number, fails: boolean) => async () => {
            peak = Math.max(peak, ++working)
            await new Promise((resolve) => setTimeout(resolve, ms))
            working--
            if (fails) throw new Error('failed')
          }
          const full = () => FULL
          const ended = await Promise.allSettled(
            jobs.map(({ ms, fails }) => places.run(full, work(ms, fails)))
          )
          if (peak > most) throw new Error(`${peak} at work`)
          if (jobs.length <= most && ended.some((end) => end.status === 'rejected' && end.reason === FULL))
            throw new Error('refused, though there was a place')
          const again = Array.from({ length: most }, () => places.run(full, () => turn()))
          await Promise.all(again)
        }
      ),
      { numRuns: cases(50) }
    )
    t.pass('in 150 schedules')
  }
)

t.test('beyond those that may wait each is refused at once, and who waits too long in time', async (t) => {
  const places = new Places({ most: 1, waiting: 1, patience: 50 })
  let end = () => {}
  const first = places.run(
    () => FULL,
    () => new Promise<void>((resolve) => (end = resolve))
  )
  const second = places.run(() => FULL, turn)
  await t.rejects(
    places.run(() => FULL, turn),
    FULL,
    'a third'
  )
  await t.rejects(second, FULL, 'the second, after its patience')
  end()
  await first
  await t.resolves(places.run(() => FULL, turn))
})
