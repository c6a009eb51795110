import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { Job, Result } from '../../bench/worker.js'
import { writeCompressedUpload } from '../helpers/compressed-upload.js'
import { setupDatabases, type TestDatabases } from '../helpers/database.js'
import { startGate } from '../helpers/gate.js'
import { setupRawDatabases } from '../helpers/raw-databases.js'
import { compileWorker, runInChild } from '../helpers/worker-process.js'

const MiB = 1024 * 1024
/** `BOUNDED_STATE=full` takes the shapes in their whole size. */
const FULL = process.env.BOUNDED_STATE === 'full'
/** A server with little memory, whose heap ends the process when it is full. */
const FLAGS = ['--max-old-space-size=128']

/** What is held at a time, as the code bounds it, for documents of up to 8 MB. */
const PARTS = {
  /** `HeadMemory`: one document, and the memory that it has outgrown. */
  head: 16 * MiB,
  /** `BYTES_IN_FLIGHT` of `bulk-writer.ts`, the two bodies kept there, and one being filled. */
  bodies: 3 * 8.4 * MiB,
  /** One row of an answer, in pieces and put together. */
  row: 16 * MiB,
  /** `CopyIndex` with half a million documents that came twice: 12 MiB, 18 as it grows; `SeenIds`: 6. */
  copies: 24 * MiB,
  /** V8 collects buffers that are dropped when there are so many bytes of them. */
  garbage: 64 * MiB
}
const BUDGET = Object.values(PARTS).reduce((sum, bytes) => sum + bytes, 0)

const long = (length: number) => 'x'.repeat(length)
const { sizes } = {
  sizes: FULL
    ? { heads: 60, ids: 170, documents: 12, seven: 100, small: 500_000, changing: 200_000 }
    : { heads: 30, ids: 40, documents: 12, seven: 20, small: 500_000, changing: 100_000 }
}

function* documents(count: number, of: (i: number) => string, times = 1): Generator<string> {
  for (let time = 0; time < times; time++) for (let i = 0; i < count; i++) yield of(i)
}

t.test(
  'what a client or a database sends is held within a budget in bytes',
  { timeout: 900_000 },
  async (t) => {
    const directory = t.testdir()
    const worker = compileWorker(directory)
    const databases = () => (process.env.COUCHDB_URL ? setupDatabases(t) : setupRawDatabases(t))
    const run = async (
      t: Test,
      { url, names }: TestDatabases,
      job: Pick<Job, 'operation'> & Partial<Job>
    ) => {
      const result = await runInChild(worker, { url, databases: names, ...job }, FLAGS)
      const { rssGrowth, ms } = result
      t.comment(`${job.operation}: ${Math.round(rssGrowth / MiB)} MiB in ${Math.round(ms)} ms`)
      t.ok(rssGrowth <= BUDGET, `${job.operation} takes ${rssGrowth} bytes, at most ${BUDGET}`)
      return result
    }
    /** Uploads a backup, and counts what it writes or would write. */
    const upload = async (
      t: Test,
      on: TestDatabases,
      all: Iterable<string>,
      dryRun = false
    ): Promise<Result> => {
      const file = join(directory, 'upload.json')
      await writeCompressedUpload(file, all)
      const { id } = await run(t, on, { operation: 'backup' })
      return run(t, on, { operation: 'upload', id, file, dryRun })
    }

    await t.test('uploaded documents that are larger than what is held of one', async (t) => {
      const { writes } = await upload(
        t,
        await databases(),
        documents(sizes.heads, (i) => `{"_id":"d${i}","text":"${long(4_200_000)}"}`)
      )
      t.equal(writes, sizes.heads)
    })

    await t.test('ids of megabytes, each twice', async (t) => {
      const { writes } = await upload(
        t,
        await databases(),
        documents(sizes.ids, (i) => `{"_id":"${long(3_900_000)}${i}"}`, 2)
      )
      t.equal(writes, sizes.ids)
    })

    await t.test('documents of 6.6 MB, uploaded and by id', async (t) => {
      const on = await databases()
      const all = () => documents(sizes.documents, (i) => `{"_id":"d${i}","text":"${long(6_600_000)}"}`)
      t.equal((await upload(t, on, all())).writes, sizes.documents)
      t.equal((await upload(t, on, all())).writes, 0, 'compared')
      const { id } = await run(t, on, { operation: 'backup' })
      const file = join(directory, 'download.json')
      await run(t, on, { operation: 'download', id, file })
      t.equal((await run(t, on, { operation: 'restore', id })).writes, 0, 'the same')
      const other = (i: number) => `{"_id":"d${i}","text":"${long(6_600_001)}"}`
      t.equal((await upload(t, on, documents(sizes.documents, other))).writes, sizes.documents)
      t.equal((await run(t, on, { operation: 'restore', id })).writes, sizes.documents, 'written over')
    })

    await t.test('documents of 7 MB', async (t) => {
      const { writes } = await upload(
        t,
        await databases(),
        documents(sizes.seven, (i) => `{"_id":"d${i}","text":"${long(7_000_000)}"}`)
      )
      t.equal(writes, sizes.seven)
    })

    await t.test('half a million documents, each twice', async (t) => {
      const { writes } = await upload(
        t,
        await databases(),
        documents(sizes.small, (i) => `{"_id":"d${i}"}`, 2),
        true
      )
      t.equal(writes, sizes.small)
    })

    await t.test('a database of which every document changes while it is backed up', async (t) => {
      const on = await setupRawDatabases(t)
      const count = sizes.changing
      for (let i = 0; i < count; i += 10_000) {
        const some = [...documents(10_000, (n) => `{"_id":"a document ${i + n}"}`)]
        await on.write(on.names.components, some)
      }
      const gate = await startGate(t, on)
      const last = new RegExp(`/${on.names.components}/_changes\\?since=${count}-`)
      const release = gate.hold(last)
      const url = `${(gate.couch as unknown as { config: { url: string } }).config.url}`
      const backup = run(t, { ...on, url }, { operation: 'backup' })
      await gate.held(last)
      const store = on.raw.store.get(on.names.components)!
      for (const document of store.docs.values()) document.seq = ++store.seq
      release()
      const { id, docs } = await backup
      t.equal(docs, count)
      t.equal((await run(t, on, { operation: 'restore', id, dryRun: true })).writes, 0)
    })
  }
)
