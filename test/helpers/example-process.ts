import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import nano, { type ServerScope } from 'nano'
import type { Test } from 'tap'
import { compileFile, targetOf } from './compile.js'
import { DATABASES, deleteDatabase } from './database.js'

const ROOT = join(__dirname, '..', '..')

export interface Example {
  url: string
  couch: ServerScope
  /** URL of the database, with credentials if it has any. */
  couchUrl: string
  /** Prefix of the database names. */
  prefix: string
  /** `key:secret` of the manager's API key, and of the reader's. */
  manager: string
  reader: string
  /** Password of the manager's login. */
  password: string
  /** The output of the server. */
  printed: string
  child: ChildProcess
  call(method: string, path: string, options?: { as?: string; body?: string }): Promise<Response>
}

/** Returns a prefix for database names. Databases with it are deleted when the test ends. */
export function prefixFor(t: Test): string {
  const prefix = `t${randomBytes(6).toString('hex')}`
  t.teardown(async () => {
    if (!process.env.COUCHDB_URL) return
    const couch = nano(process.env.COUCHDB_URL)
    for (const database of DATABASES) await deleteDatabase(couch, `${prefix}_${database}`)
  })
  return prefix
}

/** Compiles the example. @returns the path of its main file */
function compileExample(): string {
  const page = join(ROOT, 'lib/operator/page')
  const main = compileFile(join(ROOT, 'examples/standalone/main.ts'))
  try {
    symlinkSync(page, targetOf(page))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
  return main
}

/** Runs the example as a process, without a schedule unless the options have one. It is killed when the test ends. */
function spawnExample(t: Test, env: NodeJS.ProcessEnv, options: string[], stderr: 'inherit' | 'pipe') {
  const args = [compileExample(), '--port', '0', '--schedule', 'none', ...options]
  const child = spawn(process.execPath, args, {
    cwd: ROOT,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', stderr]
  })
  t.teardown(async () => {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGKILL')
      await once(child, 'exit')
    }
  })
  return child
}

/** Runs the example to its end. @returns its exit code, and what it wrote to stderr */
export async function refusedExample(
  t: Test,
  env: NodeJS.ProcessEnv,
  ...options: string[]
): Promise<{ code: number | null; errors: string }> {
  const child = spawnExample(t, env, options, 'pipe')
  child.stdout!.resume()
  const [errors] = await Promise.all([text(child.stderr!), once(child, 'exit')])
  return { code: child.exitCode, errors }
}

/** Starts the example as a process, without a schedule unless the options have one. It is killed when the test ends. */
export async function startExample(t: Test, ...options: string[]): Promise<Example> {
  return startExampleWith(t, {}, ...options)
}

/** Starts the example with more variables in its environment. */
export async function startExampleWith(
  t: Test,
  env: NodeJS.ProcessEnv,
  ...options: string[]
): Promise<Example> {
  const child = spawnExample(t, env, options, 'inherit')
  let printed = ''
  for await (const piece of child.stdout!.setEncoding('utf8').iterator({ destroyOnReturn: false })) {
    printed += piece
    if (printed.includes('Ctrl-C stops the server')) break
  }
  child.stdout!.resume()
  const find = (pattern: RegExp) => pattern.exec(printed)?.[1] ?? ''
  const url = find(/^Console +(\S+)/m)
  const manager = find(/manager +key (\S+)/)
  const couchUrl = process.env.COUCHDB_URL ?? find(/^Database +(\S+)/m)
  return {
    url,
    couch: nano(couchUrl),
    couchUrl,
    prefix: find(/^Database .*?(\w+)_components/m),
    manager,
    reader: find(/reader +key (\S+)/),
    password: find(/admin@example\.com \/ (\S+)/),
    printed,
    child,
    call: (method, path, { as = manager, body } = {}) =>
      fetch(url + path, {
        method,
        body,
        headers: {
          ...(as ? { authorization: `Basic ${Buffer.from(as).toString('base64')}` } : {}),
          ...(body === undefined ? {} : { 'content-type': 'application/json' })
        }
      })
  }
}
