import { fork } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join, relative } from 'node:path'
import type { Job, Result } from '../../bench/worker.js'
import { compile } from './compile.js'

/**
 * Compiles the worker of the benchmarks, as a host runs it: the loader of TypeScript takes memory of its own.
 * @returns its path
 */
export function compileWorker(directory: string): string {
  compile(directory, ['bench', ...libraryFolders()])
  return join(directory, 'bench', 'worker.js')
}

/** Returns `lib` and the folders in it. */
function libraryFolders(): string[] {
  const lib = join(__dirname, '..', '..', 'lib')
  const inside = readdirSync(lib, { recursive: true, withFileTypes: true })
  const folders = inside.filter((entry) => entry.isDirectory())
  return ['lib', ...folders.map((entry) => join('lib', relative(lib, join(entry.parentPath, entry.name))))]
}

/**
 * Runs a job in a process of its own.
 * @param flags for Node.js, beside `--expose-gc`
 * @throws when the process dies
 */
export function runInChild(worker: string, job: Job, flags: readonly string[] = []): Promise<Result> {
  return new Promise((resolve, reject) => {
    const child = fork(worker, [JSON.stringify(job)], {
      execArgv: ['--expose-gc', ...flags],
      env: { ...process.env, NODE_OPTIONS: '' }
    })
    let result: Result | undefined
    child.on('message', (message) => {
      result = message as Result
    })
    child.on('exit', (code, signal) => {
      if (result) resolve(result)
      else reject(new Error(`the child ended with ${signal ?? code}`))
    })
  })
}
