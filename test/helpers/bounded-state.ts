import { join } from 'node:path'
import type { Test } from 'tap'
import type { Job, Result } from '../../bench/worker.js'
import { writeCompressedUpload } from './compressed-upload.js'
import { setupDatabases, type TestDatabases } from './database.js'
import { compileWorker, runInChild } from './measured-run.js'
import { setupRawDatabases } from './raw-databases.js'

const MiB = 1024 * 1024
/** Options of Node.js that end the process when its heap exceeds 128 MiB. */
const FLAGS = ['--max-old-space-size=128']
/** Whether tests use all their documents: `BOUNDED_STATE=full`. */
export const FULL = process.env.BOUNDED_STATE === 'full'

/**
 * Bytes that an operation may hold at a time above an idle server, as the code bounds them, for documents up to 8 MB.
 */
const PARTS = {
  /** Dropped buffers, which V8 collects when they reach so many bytes, and what any operation holds. */
  garbage: 64 * MiB,
  /** One document: `HeadMemory` of `large-document.ts`. */
  head: 8 * MiB,
  /** One row of an answer, in pieces and put together. */
  row: 16 * MiB,
  /** `BYTES_IN_FLIGHT` of `bulk-writer.ts`, and the next body. */
  bodies: 16 * MiB,
  /** The lines of a chunk that is being stored, their compressed form, and the lines of the next chunk. */
  chunks: 24 * MiB,
  /** Ids of 4 MB of two documents: as texts, and as JSON in the requests of {@link PARTS.bodies} and in answers. */
  ids: 48 * MiB,
  /** The table of `VersionIndex` while it grows to half a million entries, and its filters. */
  versions: 24 * MiB
}

type HeldPart = keyof typeof PARTS

interface BoundedRuns {
  databases(): Promise<TestDatabases>
  /** Runs a job in a process of its own, and checks the memory that it takes against the sum of `held`. */
  run(t: Test, on: Pick<TestDatabases, 'url' | 'names'>, job: Partial<Job>, held: HeldPart[]): Promise<Result>
  /** Runs an upload of these documents as {@link run} does, after a backup that the upload is compared with. */
  upload(
    t: Test,
    on: TestDatabases,
    documents: Iterable<string>,
    held: HeldPart[],
    job?: Partial<Job>
  ): Promise<Result>
}

/** Prepares operations on documents whose number or length could take memory. */
export function prepareBoundedRuns(t: Test): BoundedRuns {
  const directory = t.testdir()
  const worker = compileWorker(directory)
  const run: BoundedRuns['run'] = async (t, { url, names }, job, held) => {
    const operation = job.operation ?? 'backup'
    const result = await runInChild(
      worker,
      { url, databases: names, ...job, operation },
      { nodeOptions: FLAGS }
    )
    const budget = ['garbage' as const, ...held].reduce((sum, part) => sum + PARTS[part], 0)
    t.comment(`${operation}: ${Math.round(result.rssGrowth / MiB)} MiB in ${Math.round(result.ms)} ms`)
    t.ok(result.rssGrowth <= budget, `${operation} takes ${result.rssGrowth} bytes, at most ${budget}`)
    return result
  }
  return {
    run,
    databases: () => (process.env.COUCHDB_URL ? setupDatabases(t) : setupRawDatabases(t)),
    async upload(t, on, documents, held, job) {
      const file = join(directory, 'upload.json')
      await writeCompressedUpload(file, documents)
      const { id } = await run(t, on, { operation: 'backup' }, ['row', 'chunks'])
      return run(t, on, { operation: 'upload', id, file, ...job }, held)
    }
  }
}

/** Yields `count` documents that `of` makes, and repeats all of them until each came `times` times. */
export function* documentsOf(count: number, of: (i: number) => string, times = 1): Generator<string> {
  for (let time = 0; time < times; time++) for (let i = 0; i < count; i++) yield of(i)
}

/** Returns a maker of documents that have about so many bytes each. */
export const longDocument = (bytes: number) => (i: number) => `{"_id":"d${i}","text":"${'x'.repeat(bytes)}"}`
