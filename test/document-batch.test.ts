import fc from 'fast-check'
import t from 'tap'
import { DocumentBatch } from '../lib/restore/document-batch.js'

const MOST_BYTES = 1024 * 1024

t.test('batches are full by number or bytes, keep the order, and leave long documents alone', async (t) => {
  const sizes = fc.array(fc.constantFrom(1, 100, MOST_BYTES / 4, MOST_BYTES / 2, MOST_BYTES), {
    maxLength: 60
  })
  fc.assert(
    fc.property(sizes, fc.integer({ min: 1, max: 8 }), (sizes, most) => {
      const batch = new DocumentBatch<{ n: number; bytes: Buffer }>(most)
      const given: number[] = []
      const shared = Buffer.alloc(MOST_BYTES)
      for (const [n, size] of sizes.entries()) {
        const full = batch.put({ n, bytes: shared.subarray(0, size) })
        if (!full) continue
        given.push(...full.map((item) => item.n))
        const bytes = full.reduce((sum, item) => sum + item.bytes.length, 0)
        if (full.length > most) throw new Error(`${full.length} in a batch`)
        if (full.length < most && bytes < MOST_BYTES) throw new Error('a batch is given that is not full')
        if (size === MOST_BYTES && full.length > 1) throw new Error('a long document is not alone')
      }
      const rest = batch.take()
      const all = [...given, ...rest.map((item) => item.n)]
      const order = (short: boolean) => all.filter((n) => sizes[n]! < MOST_BYTES === short)
      for (const short of [true, false])
        if (order(short).some((n, i, list) => i > 0 && list[i - 1]! > n)) throw new Error('another order')
      if (all.length !== sizes.length) throw new Error(`${all.length} of ${sizes.length}`)
    })
  )
  t.pass('whatever comes')
})

t.test('what is collected stays as it was when its memory is used again', async (t) => {
  const batch = new DocumentBatch<{ bytes: Buffer }>(2)
  const memory = Buffer.from('first')
  batch.put({ bytes: memory })
  memory.write('other')
  const [first] = batch.put({ bytes: memory })!
  t.equal(String(first!.bytes), 'first')
})
