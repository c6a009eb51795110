import t, { type Test } from 'tap'
import type { Result } from '../../bench/worker.js'
import { documents, many, wide } from '../helpers/shapes.js'
import { prepareTurns } from '../helpers/turns-run.js'

const KB = 1000
const MB = 1000 * KB
/** Documents of each request that fills a database. */
const AT_A_TIME = 1000

async function prepare(t: Test) {
  const { on, run, fill } = await prepareTurns(t)
  const { components } = on.names
  return {
    fill,
    /** Writes new versions of documents that are there, and others as they are. */
    async change(docs: Iterable<string>, atATime = AT_A_TIME) {
      const stored = on.raw.store.get(components)!.docs
      const group: string[] = []
      const write = () => on.write(components, group.splice(0))
      for (const doc of docs) {
        const rev = stored.get(/"_id":"([^"]*)"/.exec(doc)![1]!)?.leaves[0]?.rev
        if (group.push(rev ? `{"_rev":"${rev}",${doc.slice(1)}` : doc) >= atATime) await write()
      }
      if (group.length > 0) await write()
    },
    /** Makes a backup over the one before. */
    async incremental(t: Test, what: string): Promise<Result> {
      const result = await run(what, { operation: 'backup' })
      t.ok(result.addedBytes < result.storedBytes, `${what}: not a full backup`)
      return result
    },
    full: () => run('full backup', { operation: 'backup', full: true })
  }
}

/** Yields so many of each hundred documents. */
function* some(docs: Iterable<string>, ofHundred: number): Generator<string> {
  let n = 0
  for (const doc of docs) if (n++ % 100 < ofHundred) yield doc
}

t.test('of 100,000 documents those that changed are backed up in short turns', async (t) => {
  const { fill, full, change, incremental } = await prepare(t)
  await fill(documents(100_000, KB), AT_A_TIME)
  await full()
  await change(some(documents(100_000, KB, 1), 1))
  await incremental(t, '1,000 changed')
  await change(some(documents(100_000, KB, 2), 40))
  const { addedBytes, storedBytes } = await incremental(t, '40,000 changed, wasteful chunks written anew')
  t.ok(addedBytes > 0.45 * storedBytes, `more than what changed is written: ${addedBytes} of ${storedBytes}`)
})

t.test('large documents that changed are backed up in short turns', async (t) => {
  const { fill, full, change, incremental } = await prepare(t)
  await fill([...documents(5, 7 * MB), wide(600_000), many(20_000)])
  await change(documents(10_000, KB))
  await full()
  await change([...documents(1, 7 * MB, 1), wide(600_000, 1)], 1)
  await incremental(t, 'one of 7 MB and one of 600,000 members')
  await change([many(20_000)], 1)
  await incremental(t, 'one with 20,000 attachments')
})

t.test('many small chunks are put together in short turns', async (t) => {
  const { fill, full, change, incremental } = await prepare(t)
  const small = [...documents(100_000, 100)]
  await fill(small.slice(0, 1000), AT_A_TIME)
  await full()
  const added: number[] = []
  for (let step = 1; step <= 11; step++) {
    await change(small.slice(step * 8000, (step + 1) * 8000))
    added.push((await incremental(t, `step ${step}`)).addedBytes)
  }
  t.ok(Math.max(...added) > 3 * added[0]!, `some step puts chunks together: ${added}`)
})
