import { once } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { LazyStream } from '../lib/operations/lazy-stream.js'

const IDLE = 150

const streamOf = (read: () => AsyncGenerator<string>) =>
  new LazyStream<string>(read, {
    idle: IDLE,
    stalled: (ms) => new Error(`not read for ${ms} ms`),
    objectMode: true,
    highWaterMark: 1
  })

t.test('what takes long to come is no silence of its reader', async (t) => {
  const read: string[] = []
  const slow = streamOf(async function* () {
    yield 'first'
    await delay(3 * IDLE)
    yield 'second'
  })
  for await (const item of slow) read.push(item)
  t.strictSame(read, ['first', 'second'])
})

t.test('a reader that stops reading is ended', async (t) => {
  const endless = streamOf(async function* () {
    for (;;) yield 'more'
  })
  endless.once('readable', () => endless.read())
  const ended = once(endless, 'error')
  // Waiting for a reader keeps no process alive.
  await delay(4 * IDLE)
  t.match(await ended, [{ message: /not read for 150 ms/ }])
})
