import { setImmediate as turn } from 'node:timers/promises'
import t from 'tap'
import { RequestsInFlight } from '../lib/restore/bulk-writer.js'

const MIB = 1024 * 1024

/** Starts requests of these bytes one after another, as a writer does. Each ends when it is told to. */
function startAll(inFlight: RequestsInFlight, bytes: readonly number[]) {
  const ends: ((error?: Error) => void)[] = []
  const all = (async () => {
    for (const each of bytes)
      await inFlight.start(
        each,
        () => new Promise((resolve, reject) => ends.push((error) => (error ? reject(error) : resolve())))
      )
  })()
  return { ends, all }
}

t.test('eight requests are made at a time', async (t) => {
  const inFlight = new RequestsInFlight()
  const { ends, all } = startAll(inFlight, Array(10).fill(1000))
  await turn()
  t.equal(ends.length, 8)
  ends[3]!()
  await turn()
  t.equal(ends.length, 9)
  for (const end of ends) end()
  await all
  for (const end of ends) end()
  await inFlight.finish()
  t.equal(ends.length, 10)
})

t.test('no more than 8 MiB are in flight, unless one request has more', async (t) => {
  const inFlight = new RequestsInFlight()
  const { ends, all } = startAll(inFlight, [3 * MIB, 5 * MIB, 1, 20 * MIB, 1])
  const begun = []
  for (let i = 0; i < 5; i++) {
    await turn()
    begun.push(ends.length)
    ends[i]!()
  }
  t.strictSame(begun, [2, 3, 3, 4, 5])
  await all
  await inFlight.finish()
})

t.test('the first failure is told by whatever comes next, and nothing is started after it', async (t) => {
  const inFlight = new RequestsInFlight()
  const { ends, all } = startAll(inFlight, Array(9).fill(1000))
  await turn()
  ends[2]!(new Error('first'))
  await t.rejects(all, { message: 'first' })
  ends[3]!(new Error('second'))
  t.equal(ends.length, 8)
  let settled = false
  const settling = inFlight.settle().then(() => {
    settled = true
  })
  await turn()
  t.notOk(settled, 'the others are waited for')
  for (const end of ends) end()
  await settling
  await t.rejects(inFlight.finish(), { message: 'first' })
})
