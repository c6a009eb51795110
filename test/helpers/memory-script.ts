/**
 * Measures memory, the longest turn of the event loop and the time of operations on databases of several shapes, each in
 * a process of its own. Prints the table of docs/reliability.md; ends with 1 when a bar is missed without a reason. What
 * has more than the bar resident is run again, with garbage collected: nothing may be in use beyond the bar, whatever the
 * reason.
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
import { table } from './cluster-table.js'
import { compileWorker, RunFailure, type RunOptions, runInChild } from './measured-run.js'
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

  COUCHDB_URL   server, with credentials (default: the embedded database)
  SHAPES        of ${Object.keys(SHAPES)} (default all)
  OPERATIONS    of ${OPERATIONS} (default all)
  NODE_BINARIES paths of the Node.js binaries to run with (default: this one)
  NODE_FLAGS    options of Node.js with spaces between them, such as --max-old-space-size=128
  PROFILE       1: tells what turns above 25 ms were made of`

const MiB = 1024 * 1024
/** MiB above the idle process. */
const MEMORY_BAR = 64
/** Milliseconds of processor time. */
const TURN_BAR = 25
/** Ids of the skip list. */
const SKIPPED = 50_000
const APPENDED = 30 * MiB

const GARBAGE =
  'garbage that V8 has not collected: buffers by `--max-semi-space-size`, objects by `--max-old-space-size`'
/** Why a bar is missed: what it is, and the option that bounds it. By shape and operation. */
const REASONS: Record<string, { memory?: string; turn?: string }> = {
  // With Node.js 24.
  'large/backup': { memory: GARBAGE },
  '20k/upload': { memory: GARBAGE },
  // With Node.js 22.
  'large/upload-dry-run': { memory: GARBAGE },
  'attachments/backup': { memory: GARBAGE },
  'attachment/upload-dry-run': { memory: GARBAGE },
  'mixed/upload-dry-run': { memory: GARBAGE },
  'mixed/upload': { memory: GARBAGE },
  'wide/upload-dry-run': { memory: GARBAGE }
}

interface Measured {
  key: string
  shape: Shape
  operation: Operation
  result: Result | undefined
  /** Bytes of objects and buffers that are in use, measured where more than the bar is resident. */
  held?: number
  failure?: string
  reasons: { memory?: string; turn?: string }
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

  /** Makes the database what an operation is to find. */
  async #prepare(operation: Operation, shape: Shape): Promise<void> {
    if (!['changed', 'restore', 'upload'].includes(operation)) return
    await recreate(this.#server, this.#names.components)
    if (operation === 'changed') await shape.change?.(this.#server, this.#names.components)
  }

  /** Runs what has more than the bar resident once more, to tell what of that is in use. */
  async #explained(
    measured: Measured,
    job: Omit<Job, 'url' | 'databases'>,
    prepare = async () => {}
  ): Promise<Measured> {
    if (!measured.result || mib(measured.result.rssGrowth) <= MEMORY_BAR) return measured
    await prepare()
    const { result, failure } = await this.#measure(measured.key, measured.operation, { ...job, live: true })
    if (!result) return { ...measured, result, failure }
    return { ...measured, held: result.growth.heapUsed + result.growth.external }
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

  async #measure(key: string, operation: Operation, job: Omit<Job, 'url' | 'databases'>): Promise<Measured> {
    const about = {
      key,
      shape: SHAPES[key],
      operation,
      reasons: REASONS[`${key}/${operation}`] ?? {}
    }
    const profile = Boolean(process.env.PROFILE)
    try {
      const whole = { url: this.#url, databases: this.#names, profile, ...job }
      return { ...about, result: await runInChild(this.#worker, whole, this.#options) }
    } catch (error) {
      if (!(error instanceof RunFailure)) throw error
      return { ...about, result: undefined, failure: error.message }
    }
  }
}

const skipped = () => Array.from({ length: SKIPPED }, (_, n) => `an_id_that_is_skipped_${n}`)

const mib = (bytes: number) => Math.round(bytes / MiB)

function missed({ result, held = 0, reasons }: Measured): boolean {
  if (!result) return true
  const { rssGrowth, longestTurn } = result
  return (
    mib(held) > MEMORY_BAR ||
    (mib(rssGrowth) > MEMORY_BAR && !reasons.memory) ||
    (Math.round(longestTurn.cpu) > TURN_BAR && !reasons.turn)
  )
}

const HEAD = ['shape', 'operation', 'resident, MiB', 'heap', 'buffers', 'in use', 'turn, ms', 'time, s', '']

function rowOf(measured: Measured): string[] {
  const { shape, operation, result, held, failure, reasons } = measured
  if (!result) return [shape.name, operation, '', '', '', '', '', '', `**failed**: ${failure}`]
  const { growth, longestTurn, ms } = result
  const mark = (value: number, bar: number) => (value > bar ? `**${value}**` : String(value))
  const notes = [
    mib(growth.rss) > MEMORY_BAR ? (reasons.memory ?? '**memory: missed**') : '',
    Math.round(longestTurn.cpu) > TURN_BAR ? (reasons.turn ?? '**turn: missed**') : ''
  ]
  return [
    shape.name,
    operation,
    mark(mib(growth.rss), MEMORY_BAR),
    String(mib(growth.heapUsed)),
    String(mib(growth.arrayBuffers)),
    held === undefined ? '' : mark(mib(held), MEMORY_BAR),
    mark(Math.round(longestTurn.cpu), TURN_BAR),
    (ms / 1000).toFixed(1),
    notes.filter(Boolean).join('; ')
  ]
}

function askedFor<T extends string>(name: string, known: readonly T[]): T[] {
  const names = (process.env[name] ?? known.join()).split(',')
  const unknown = names.find((one) => !known.includes(one as T))
  if (unknown !== undefined) throw new Error(`${name} knows ${known}, not ${unknown}\n\n${USAGE}`)
  return names as T[]
}

async function main(): Promise<void> {
  const shapes = askedFor('SHAPES', Object.keys(SHAPES))
  const operations = askedFor('OPERATIONS', OPERATIONS)
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
