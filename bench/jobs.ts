import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { cpus, totalmem } from 'node:os'
import { join } from 'node:path'
import { call, type Server } from './dataset.js'
import type { Job, Result } from './worker.js'

const MiB = 1024 * 1024

/** What a job took, and the event-loop delay of a process that did nothing meanwhile. */
export type Measured = Result & { idleP99: number }

export async function run(job: Job): Promise<Measured> {
  const idle = fork(join(__dirname, 'idle.js'))
  const child = startWorker(job)
  const result = await answerOf<Result>(child, job.operation)
  idle.send('stop')
  return { ...result, idleP99: await answerOf<number>(idle, 'the idle process') }
}

/** A process that serves requests before and while it runs a job. */
export interface Serving {
  origin: string
  /** Has the job begin, or end where it only serves. */
  go(): void
  result: Promise<Result>
  /** Ends the process, after its result. */
  end(): void
}

/** Starts a process that tells its origin, and runs its job when it is told to. */
export async function serve(job: Job): Promise<Serving> {
  const child = startWorker({ ...job, serve: true })
  const [origin] = (await once(child, 'message')) as [string]
  const result = new Promise<Result>((resolve, reject) => {
    child.once('message', (message) => resolve(message as Result))
    child.once('exit', (code) => reject(new Error(`${job.operation} ended with ${code}`)))
  })
  return { origin, go: () => child.send('go'), result, end: () => child.send('end') }
}

const startWorker = (job: Job): ChildProcess =>
  fork(join(__dirname, 'worker.js'), [JSON.stringify(job)], { execArgv: ['--expose-gc'] })

/** The one message of a child process that then ends. */
function answerOf<T>(child: ChildProcess, what: string): Promise<T> {
  return new Promise((resolve, reject) => {
    let answer: { value: T } | undefined
    child.on('message', (message) => {
      answer = { value: message as T }
    })
    child.on('exit', (code) => {
      if (answer) resolve(answer.value)
      else reject(new Error(`${what} ended with ${code}`))
    })
  })
}

export async function versionOf(server: Server, real: boolean): Promise<string> {
  if (!real) return 'the embedded database (express-pouchdb)'
  const { version } = (await call(server, 'GET', '/')) as { version: string }
  return `CouchDB ${version}`
}

export const median = (values: readonly number[]) => [...values].sort((a, b) => a - b)[values.length >> 1]
export const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`

/** Returns the median of the rounds' ratios, each of them, and the medians of both times. */
export function ratioOf(over: readonly number[], under: readonly number[]): string {
  const ratios = over.map((value, index) => value / under[index])
  const rounds = ratios.map((ratio) => ratio.toFixed(2)).join(', ')
  return `**${median(ratios).toFixed(2)}** (${rounds}; ${seconds(median(over))} / ${seconds(median(under))})`
}

/** Returns the date, the server and the machine, for the head of a section. */
export const headOf = async (server: Server): Promise<string> =>
  `${new Date().toISOString().slice(0, 10)}, ${await versionOf(server, true)}, ${machine()}.`

/** Names the machine, for the head of results. */
export function machine(): string {
  const [cpu] = cpus()
  return `Node.js ${process.version}, ${cpus().length} x ${cpu.model}, ${Math.round(totalmem() / 1024 / MiB)} GiB`
}
