import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { Job, Result } from '../../bench/worker.js'
import { compileWorker, runInChild } from '../helpers/measured-run.js'
import { setupRawDatabases } from '../helpers/raw-databases.js'
import { documents, many, mixed } from '../helpers/shapes.js'

/**
 * Milliseconds of processor time of one turn; 25 are the aim on a machine that is not busy. Waits for a core do not
 * count, but caches that others use do. Each test says what the turn took when the work was not cut into steps.
 */
const MOST = 60
const MB = 1000 * 1000

/** Databases whose server is not in the process that is watched. */
async function setup(t: Test) {
  const on = await setupRawDatabases(t)
  const worker = compileWorker(t.testdir())
  const job = { url: on.url, databases: on.names }
  const run = async (what: string, rest: Omit<Job, 'url' | 'databases'>): Promise<Result> => {
    const result = await runInChild(worker, { ...job, profile: true, ...rest })
    const { cpu, wall, stacks = [] } = result.longestTurn
    const text = `${cpu.toFixed()} ms of processor time, ${wall.toFixed()} ms on the clock`
    t.comment(`${what}: longest turn ${text}`)
    t.ok(cpu <= MOST, `${what}: ${text}, of ${MOST}: ${stacks.join('; ')}`)
    return result
  }
  const fill = async (docs: Iterable<string>) => {
    await fetch(`${on.url}/${on.names.components}`, { method: 'DELETE' })
    await fetch(`${on.url}/${on.names.components}`, { method: 'PUT' })
    for (const doc of docs) await on.write(on.names.components, [doc])
  }
  return { run, fill, file: join(worker, '..', 'backup.json') }
}

t.test('a document of 7 MB in small values is backed up, compared and restored in short turns', async (t) => {
  const { run, fill, file } = await setup(t)
  await fill(mixed(1))
  const { id } = await run('backup', { operation: 'backup' })
  await run('download', { operation: 'download', id, file })
  await run('dry run of an upload', { operation: 'upload', file, id, dryRun: true })
  await fill(mixed(1, 1))
  // 213 ms.
  const { writes } = await run('restore over another version', { operation: 'restore', id })
  t.equal(writes, 1)
})

t.test('five documents of 7 MB that changed are restored in short turns', async (t) => {
  const { run, fill } = await setup(t)
  await fill(documents(5, 7 * MB))
  const { id } = await run('backup', { operation: 'backup' })
  await fill(documents(5, 7 * MB, 1))
  // 94 ms.
  const { writes } = await run('restore', { operation: 'restore', id })
  t.equal(writes, 5)
})

t.test('a document with 20,000 attachments is backed up, checked and compared in short turns', async (t) => {
  const { run, fill, file } = await setup(t)
  await fill([many(20_000)])
  // 98 ms.
  const { id } = await run('backup', { operation: 'backup' })
  await run('download', { operation: 'download', id, file })
  // 141 ms.
  const { writes } = await run('dry run of an upload', { operation: 'upload', file, id, dryRun: true })
  t.equal(writes, 0)
})
