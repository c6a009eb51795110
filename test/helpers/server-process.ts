import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import type { Test } from 'tap'
import { compileFile } from './compile.js'
import type { ServerConfig } from './crash-server.js'

export interface ServerProcess {
  child: ChildProcess
  /** URL of the server. */
  origin: string
  /** The process's output on stderr. */
  errors: string
  post(path: string): Promise<ServerReply>
  put(path: string, body?: object): Promise<ServerReply>
  get(path: string): Promise<ServerReply>
  /** Returns peak resident bytes and processor milliseconds of the longest turn, both since the last call. */
  measure(): Promise<{ rss: number; turn: number }>
  signal(signal: NodeJS.Signals): void
  /** Resolves with exit code and signal when the process has ended. */
  exited: Promise<[number | null, NodeJS.Signals | null]>
}

export interface ServerReply {
  status: number
  // biome-ignore lint/suspicious/noExplicitAny: tests know what they asked for
  json: any
}

/**
 * Starts a server in a process of its own. It is killed when the test ends.
 * @param patience milliseconds that a reply may take
 */
export async function startServer(
  t: Pick<Test, 'teardown'>,
  config: ServerConfig,
  patience = 20_000
): Promise<ServerProcess> {
  const child = spawn(process.execPath, [compileFile(join(__dirname, 'crash-server.ts'))], {
    env: { PATH: process.env.PATH, REACHED: process.env.REACHED, SERVER_CONFIG: JSON.stringify(config) },
    stdio: ['ignore', 'pipe', 'pipe']
  })
  const exited = once(child, 'exit') as ServerProcess['exited']
  const running = () => child.exitCode === null && child.signalCode === null
  t.teardown(async () => {
    if (running()) child.kill('SIGKILL')
    await exited
  })
  const server: ServerProcess = {
    child,
    origin: '',
    errors: '',
    post: (path) => call('POST', path),
    put: (path, body) => call('PUT', path, body),
    get: (path) => call('GET', path),
    async measure() {
      const reply = await fetch(`${server.origin}/measure`)
      return (await reply.json()) as { rss: number; turn: number }
    },
    signal: (signal) => void child.kill(signal),
    exited
  }
  child.stderr?.on('data', (text: Buffer) => {
    server.errors += text
  })
  const started = await Promise.race([
    once(child.stdout as NodeJS.ReadableStream, 'data'),
    exited.then(() => null)
  ])
  if (!started) throw new Error(`the server did not start: ${server.errors}`)
  server.origin = `http://127.0.0.1:${Number(String(started[0]))}`

  async function call(method: string, path: string, body?: object): Promise<ServerReply> {
    const reply = await fetch(`${server.origin}/api/v3/backups${path}`, {
      method,
      signal: AbortSignal.timeout(patience),
      ...(body && { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) })
    })
    return { status: reply.status, json: await reply.json() }
  }
  return server
}
