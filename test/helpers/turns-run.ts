import { join } from 'node:path'
import type { Test } from 'tap'
import type { Job, Result } from '../../bench/worker.js'
import { compileWorker, runInChild } from './measured-run.js'
import { setupRawDatabases } from './raw-databases.js'

/**
 * Milliseconds of processor time of one turn; 25 are the aim on a machine that is not busy. Waits for a core do not
 * count, but caches that others use do. Each test says what the turn took when the work was not cut into steps.
 */
const MOST = 60

/**
 * Prepares databases whose server is not in the process that is watched.
 * @param most milliseconds that a turn may take
 */
export async function prepareTurns(t: Test, most = MOST) {
  // First: it takes a while, in which idle connections to the database would be closed.
  const worker = compileWorker(t.testdir())
  const on = await setupRawDatabases(t)
  const job = { url: on.url, databases: on.names }
  return {
    on,
    /** Where a download or an upload may be. */
    file: join(worker, '..', 'backup.json'),
    /** Runs an operation in a process of its own, and checks its longest turn. */
    async run(what: string, rest: Omit<Job, 'url' | 'databases'>): Promise<Result> {
      const result = await runInChild(worker, { ...job, profile: true, ...rest })
      const { cpu, wall, stacks = [] } = result.longestTurn
      const text = `${cpu.toFixed()} ms of processor time, ${wall.toFixed()} ms on the clock`
      t.comment(`${what}: longest turn ${text}`)
      t.ok(cpu <= most, `${what}: ${text}, of ${most}: ${stacks.join('; ')}`)
      return result
    },
    /** Writes documents into an empty database of components, so many at a time. */
    async fill(docs: Iterable<string>, atATime = 1) {
      await fetch(`${on.url}/${on.names.components}`, { method: 'DELETE' })
      await fetch(`${on.url}/${on.names.components}`, { method: 'PUT' })
      const group: string[] = []
      const write = () => on.write(on.names.components, group.splice(0))
      for (const doc of docs) if (group.push(doc) >= atATime) await write()
      if (group.length > 0) await write()
    }
  }
}
