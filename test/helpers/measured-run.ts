import { spawn } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join, relative } from 'node:path'
import type { Job, Result } from '../../bench/worker.js'
import { compile } from './compile.js'

export interface RunOptions {
  /** Path of a Node.js binary. Default: the one that runs the test. */
  binary?: string
  /** Options of Node.js. */
  nodeOptions?: readonly string[]
}

/** Reports that an operation in a process of its own did not end as it should. */
export class RunFailure extends Error {
  override readonly name = 'RunFailure'
}

/**
 * Compiles the library, since a loader of TypeScript would add to the memory that is measured.
 * @returns the path of the worker
 */
export function compileWorker(directory: string): string {
  compile(directory, ['bench', ...libraryFolders()])
  return join(directory, 'bench', 'worker.js')
}

/** Returns `lib` and all folders in it. */
function libraryFolders(): string[] {
  const lib = join(__dirname, '..', '..', 'lib')
  const inside = readdirSync(lib, { recursive: true, withFileTypes: true })
  const folders = inside.filter((entry) => entry.isDirectory())
  return ['lib', ...folders.map((entry) => join('lib', relative(lib, join(entry.parentPath, entry.name))))]
}

/**
 * Runs one operation of the plugin in a process of its own.
 * @throws RunFailure with the error that the process wrote
 */
export function runInChild(
  worker: string,
  job: Job,
  { binary = process.execPath, nodeOptions = [] }: RunOptions = {}
): Promise<Result> {
  return new Promise((resolve, reject) => {
    const child = spawn(binary, ['--expose-gc', ...nodeOptions, worker], {
      stdio: ['pipe', 'ignore', 'pipe', 'ipc'],
      // the directory of the worker need not have node_modules above it
      env: { ...process.env, NODE_OPTIONS: '', NODE_PATH: join(__dirname, '..', '..', 'node_modules') }
    })
    let result: Result | undefined
    let errors = ''
    child.on('message', (message) => {
      result = message as Result
    })
    child.stderr?.on('data', (text: Buffer) => {
      errors = (errors + text).slice(-4000)
    })
    child.on('error', reject)
    child.on('close', (code, signal) => {
      if (result && code === 0) resolve(result)
      else reject(new RunFailure(`the process ended with ${signal ?? code}: ${reasonOf(errors)}`))
    })
    child.stdin?.end(JSON.stringify(job))
  })
}

/** Returns the line that names an error, or else the last line. */
const reasonOf = (errors: string): string =>
  /^(?:FATAL )?\w*(?:Error|ERROR)\b.*/m.exec(errors)?.[0] ?? errors.trim().split('\n').at(-1) ?? ''
