import { join } from 'node:path'
import type { Test } from 'tap'
import type { Job, Result } from '../../bench/worker.js'
import { compileWorker, runInChild } from './measured-run.js'
import { setupRawDatabases } from './raw-databases.js'

/**
 * Milliseconds of processor time that a turn may take. On an idle machine the aim is 25. Waits for a core do not count,
 * but other processes slow a turn down through the caches. Each test notes how long its turn was before work was divided.
 */
const MOST = 60

/**
 * Prepares databases on a server outside the measured process.
 * @param most milliseconds that a turn may take
 */
export async function prepareTurns(t: Test, most = MOST) {
  // compile first: it takes so long that idle connections to the database would close meanwhile
  const worker = compileWorker(t.testdir())
  const on = await setupRawDatabases(t)
  const job = { url: on.url, databases: on.names }
  return {
    on,
    /** Path for a download or an upload. */
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
    /** Writes documents into an emptied components database, `atATime` per request. */
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
