import t from 'tap'
import { documentsOf, FULL, longDocument, prepareBoundedRuns } from '../helpers/bounded-state.js'

const SIZES = FULL
  ? { heads: 60, ids: 170, seven: 100, small: 500_000 }
  : { heads: 24, ids: 34, seven: 12, small: 100_000 }

t.test('restores of any upload stay within a budget in bytes', { timeout: 900_000 }, async (t) => {
  const { databases, upload } = prepareBoundedRuns(t)

  await t.test('documents that are larger than what is held of one', async (t) => {
    const all = documentsOf(SIZES.heads, longDocument(4_200_000))
    const { writes } = await upload(t, await databases(), all, ['head', 'row'])
    t.equal(writes, SIZES.heads)
  })

  await t.test('documents of 7 MB', async (t) => {
    const all = documentsOf(SIZES.seven, longDocument(7_000_000))
    const { writes } = await upload(t, await databases(), all, ['head', 'row'])
    t.equal(writes, SIZES.seven)
  })

  await t.test('ids of megabytes, each twice', async (t) => {
    const id = 'x'.repeat(3_900_000)
    const all = documentsOf(SIZES.ids, (i) => `{"_id":"${id}${i}"}`, 2)
    const { writes } = await upload(t, await databases(), all, ['bodies', 'ids'])
    t.equal(writes, SIZES.ids)
  })

  await t.test('small documents, each twice', async (t) => {
    const all = documentsOf(SIZES.small, (i) => `{"_id":"d${i}"}`, 2)
    const { writes } = await upload(t, await databases(), all, ['versions'], { dryRun: true })
    t.equal(writes, SIZES.small)
  })
})
