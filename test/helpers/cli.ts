import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import type { Test } from 'tap'
import { compile } from './compile.js'

interface CliRun {
  code: number | null
  stdout: string
  stderr: string
}

export interface CliOptions {
  env?: NodeJS.ProcessEnv
  cwd?: string
  input?: string | Buffer
  /** Called with the process when it has been started. */
  onStart?: (child: ChildProcess) => void
}

type Cli = (args: readonly string[], options?: CliOptions) => Promise<CliRun & { bytes: Buffer }>

/**
 * Keeps Node.js from compiling the HTTP parser of `fetch` a second time, for speed that a short process has no use for.
 * A call of the client takes 0.29 s of processor time instead of 0.46.
 */
export const SHORT_PROCESS = '--liftoff-only'

/**
 * Compiles the command-line client into a directory, as it is published.
 * @returns the path of its main file
 */
export function compileCli(directory: string): string {
  compile(directory, ['lib', 'lib/bytes', 'lib/cli', 'lib/cli/commands', 'lib/json', 'lib/waits'])
  return join(directory, 'lib', 'cli', 'main.js')
}

/** Compiles the command-line client into the test's directory, and returns a function that runs it as a process. */
export function buildCli(t: Test): Cli {
  const directory = t.testdir()
  const main = compileCli(directory)
  return async (args, { env = {}, cwd = directory, input, onStart } = {}) => {
    const child = spawn(process.execPath, [SHORT_PROCESS, main, ...args], {
      cwd,
      env: { PATH: process.env.PATH, ...env },
      stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe']
    })
    if (input !== undefined) child.stdin!.end(input)
    onStart?.(child)
    const exited = once(child, 'exit')
    const [bytes, errors, [code]] = await Promise.all([buffer(child.stdout!), buffer(child.stderr!), exited])
    return { code, bytes, stdout: bytes.toString(), stderr: errors.toString() }
  }
}
