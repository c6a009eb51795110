/**
 * Measures memory, the longest turn of the event loop and the time of operations on databases of several shapes, each
 * in a process of its own. Prints the table of bench/MEASUREMENTS.md. Exits with 1 when a figure exceeds its bar. An
 * operation with more than the bar of resident memory is run again, with garbage collected and with little room for
 * garbage: then memory in use and resident memory may not exceed the bar.
 */
import { randomBytes } from 'node:crypto'
import { createWriteStream, existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { call, recreate, type Server, serverOf } from '../../bench/dataset.js'
import type { Job, Result } from '../../bench/worker.js'
import { startEmbeddedCouch } from '../../examples/standalone/embedded-couch.js'
import { table } from './figures.js'
import { compileWorker, RunFailure, type RunOptions, runInChild } from './measured-run.js'
import { choices } from './settings.js'
import { SHAPES, type Shape } from './shapes.js'

const OPERATIONS = [
  'backup',
  'get',
  'dry-run',
  'skip',
  'append',
  'upload-dry-run',
  'changed',
  'restore',
  'upload'
] as const
type Operation = (typeof OPERATIONS)[number]

const USAGE = `npm run test:memory

  COUCHDB_URL   URL of a CouchDB, with credentials (default: the embedded database)
  SHAPES        shapes to run, out of ${Object.keys(SHAPES)} (default all)
  OPERATIONS    operations to run, out of ${OPERATIONS} (default all)
  NODE_BINARIES paths of Node.js binaries to run with, separated by commas (default: this one)
  NODE_FLAGS    options of Node.js, separated by spaces, such as --max-old-space-size=128
  PROFILE       1 shows what took the time in turns above 25 ms`

const MiB = 1024 * 1024
/** MiB that an operation may take above the idle process. */
const MEMORY_BAR = 64
/** Milliseconds of processor time that a turn may take. */
const TURN_BAR = 25
/** Number of ids on the skip list. */
const SKIPPED = 50_000
/** Bytes of the appended attachment. */
const APPENDED = 30 * MiB

/** MiB of V8's semi-space. V8 frees young buffers only when they reach twice this size. Its default is 16. */
const SMALL_SEMI_SPACE = 1

interface Measured {
  key: string
  shape: Shape
  operation: Operation
  result: Result | undefined
  /** Bytes of objects and buffers in use. Measured when resident memory exceeds the bar. */
  held?: number
  /**
   * Resident bytes with {@link SMALL_SEMI_SPACE}, which limits garbage. Measured when resident memory exceeds the bar.
   */
  bounded?: number
  failure?: string
}

class MemoryRun {
  readonly #server: Server
  readonly #url: string
  readonly #directory: string
  readonly #worker: string
  readonly #options: RunOptions & { binary: string }
  readonly #names: Job['databases']

  constructor(url: string, directory: string, options: RunOptions & { binary: string }) {
    this.#url = url
    this.#server = serverOf(url)
    this.#directory = directory
    this.#worker = compileWorker(directory)
    this.#options = options
    const prefix = `memory_${randomBytes(4).toString('hex')}_`
    this.#names = {
      components: `${prefix}components`,
      sessions: `${prefix}sessions`,
      system: `${prefix}system`
    }
  }

  async *shape(key: string, operations: readonly Operation[]): AsyncGenerator<Measured> {
    const shape = SHAPES[key]
    for (const name of Object.values(this.#names)) await recreate(this.#server, name)
    await shape.load?.(this.#server, this.#names.components)
    const backup = await this.#measure(key, 'backup', { operation: 'backup' })
    if (operations.includes('backup')) yield await this.#explained(backup, { operation: 'backup' })
    const id = backup.result?.id
    if (id === undefined) return
    const file = join(this.#directory, 'upload.json')
    const appended = join(this.#directory, 'append.json')
    await pipeline(function* () {
      yield `{"attachment":"${'An attachment of text. '.repeat(APPENDED / 23)}"}`
    }, createWriteStream(appended))
    const jobs: Record<Exclude<Operation, 'backup'>, Pick<Job, 'operation' | 'file' | 'dryRun' | 'skip'>> = {
      get: { operation: 'get' },
      'dry-run': { operation: 'restore', dryRun: true },
      skip: { operation: 'restore', dryRun: true, skip: skipped() },
      append: { operation: 'append', file: appended },
      'upload-dry-run': { operation: 'upload', file, dryRun: true },
      changed: { operation: 'restore' },
      restore: { operation: 'restore' },
      upload: { operation: 'upload', file }
    }
    for (const operation of operations) {
      if (operation === 'backup' || (!shape.load && !jobs[operation].file)) continue
      if (operation === 'changed' && !shape.change) continue
      if (jobs[operation].file === file && !existsSync(file)) await this.#write(shape, id, file)
      const prepare = () => this.#prepare(operation, shape)
      const job = { ...jobs[operation], id }
      await prepare()
      yield await this.#explained(await this.#measure(key, operation, job), job, prepare)
    }
    await rm(file, { force: true })
  }

  /** Prepares the database for an operation. */
  async #prepare(operation: Operation, shape: Shape): Promise<void> {
    if (!['changed', 'restore', 'upload'].includes(operation)) return
    await recreate(this.#server, this.#names.components)
    if (operation === 'changed') await shape.change?.(this.#server, this.#names.components)
  }

  /** Measures twice more, when resident memory exceeds the bar: memory in use, and memory with little garbage. */
  async #explained(
    measured: Measured,
    job: Omit<Job, 'url' | 'databases'>,
    prepare = async () => {}
  ): Promise<Measured> {
    if (!measured.result || mib(measured.result.rssGrowth) <= MEMORY_BAR) return measured
    const again = async (about: Partial<Job>, options: readonly string[] = []) => {
      await prepare()
      return this.#measure(measured.key, measured.operation, { ...job, ...about }, options)
    }
    const live = await again({ live: true })
    if (!live.result) return live
    const small = await again({}, [`--max-semi-space-size=${SMALL_SEMI_SPACE}`])
    if (!small.result) return small
    const { heapUsed, external } = live.result.growth
    return { ...measured, held: heapUsed + external, bounded: small.result.rssGrowth }
  }

  async cleanUp(): Promise<void> {
    for (const name of Object.values(this.#names)) await call(this.#server, 'DELETE', `/${name}`)
  }

  async #write(shape: Shape, id: string, file: string): Promise<void> {
    if (shape.upload) await shape.upload(file)
    else
      await runInChild(this.#worker, {
        url: this.#url,
        databases: this.#names,
        operation: 'download',
        id,
        file
      })
  }

  async #measure(
    key: string,
    operation: Operation,
    job: Omit<Job, 'url' | 'databases'>,
    more: readonly string[] = []
  ): Promise<Measured> {
    const about = { key, shape: SHAPES[key], operation }
    const { binary, nodeOptions = [] } = this.#options
    const options = { binary, nodeOptions: [...nodeOptions, ...more] }
    const profile = Boolean(process.env.PROFILE)
    try {
      const whole = { url: this.#url, databases: this.#names, profile, ...job }
      return { ...about, result: await runInChild(this.#worker, whole, options) }
    } catch (error) {
      if (!(error instanceof RunFailure)) throw error
      return { ...about, result: undefined, failure: error.message }
    }
  }
}

const skipped = () => Array.from({ length: SKIPPED }, (_, n) => `an_id_that_is_skipped_${n}`)

const mib = (bytes: number) => Math.round(bytes / MiB)

/** Tells whether an operation failed or a figure exceeds its bar. */
function missed({ result, held = 0, bounded = 0 }: Measured): boolean {
  if (!result) return true
  return Math.max(mib(held), mib(bounded)) > MEMORY_BAR || Math.round(result.longestTurn.cpu) > TURN_BAR
}

const HEAD = [
  'shape',
  'operation',
  'resident, MiB',
  'in use',
  `with --max-semi-space-size=${SMALL_SEMI_SPACE}`,
  'turn, ms',
  'time, s',
  ''
]

function rowOf({ shape, operation, result, held, bounded, failure }: Measured): string[] {
  if (!result) return [shape.name, operation, '', '', '', '', '', `**failed**: ${failure}`]
  const mark = (value: number, bar: number) => (value > bar ? `**${value}**` : String(value))
  const above = (bytes: number | undefined) => (bytes === undefined ? '' : mark(mib(bytes), MEMORY_BAR))
  return [
    shape.name,
    operation,
    String(mib(result.rssGrowth)),
    above(held),
    above(bounded),
    mark(Math.round(result.longestTurn.cpu), TURN_BAR),
    (result.ms / 1000).toFixed(1),
    missed({ key: '', shape, operation, result, held, bounded }) ? '**missed**' : ''
  ]
}

async function main(): Promise<void> {
  if (process.argv.includes('--help')) return console.log(USAGE)
  const shapes = choices('SHAPES', Object.keys(SHAPES))
  const operations = choices('OPERATIONS', OPERATIONS)
  const binaries = process.env.NODE_BINARIES?.split(',') ?? [process.execPath]
  const nodeOptions = process.env.NODE_FLAGS?.split(' ') ?? []
  const embedded = process.env.COUCHDB_URL ? undefined : await startEmbeddedCouch({ memory: true })
  const directory = await mkdtemp(join(tmpdir(), 'memory-'))
  try {
    for (const binary of binaries) {
      const run = new MemoryRun(embedded?.url ?? process.env.COUCHDB_URL ?? '', directory, {
        binary,
        nodeOptions
      })
      const rows: string[][] = []
      try {
        for (const shape of shapes)
          for await (const measured of run.shape(shape, operations)) {
            rows.push(rowOf(measured))
            console.error(rows.at(-1)?.join(' | '))
            for (const { cpu, wall, stacks } of measured.result?.longTurns ?? [])
              console.error(
                `  turn of ${cpu.toFixed()} ms (${wall.toFixed()} ms):\n    ${stacks?.join('\n    ')}`
              )
            if (missed(measured)) process.exitCode = 1
          }
      } finally {
        await run.cleanUp()
      }
      console.log(`${binary} ${nodeOptions}\n\n${table(HEAD, rows)}\n`)
    }
  } finally {
    await rm(directory, { recursive: true, force: true })
    await embedded?.close()
  }
}

void main()
