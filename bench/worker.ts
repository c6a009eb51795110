import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createReadStream, createWriteStream, readFileSync, statSync } from 'node:fs'
import { connect } from 'node:net'
import { pipeline } from 'node:stream/promises'
import Fastify, { type FastifyInstance } from 'fastify'
import nano from 'nano'
import { createMemoryWebhookStore, dbBackups } from '../lib/index.js'
import type { DatabaseNames } from '../types/index.js'
import { changeSome, serverOf } from './dataset.js'
import { watchLoop } from './idle.js'
import { type FunctionTime, type Turn, TurnWatch } from './turns.js'

/** What to do, and where. */
export interface Job {
  url: string
  databases: DatabaseNames
  operation:
    | 'backup'
    | 'restore'
    | 'get'
    | 'list'
    | 'download'
    | 'upload'
    | 'append'
    | 'diff'
    | 'prune'
    | 'verify'
    | 'rekey'
    /** Nothing, until it is told to stop. */
    | 'serve'
  /** Backup to restore, get, download, or append to; the newest where others are pruned; any where they are listed. */
  id?: string
  /** What a diff compares with. */
  against?: string
  /** Where it verifies. */
  depth?: 'structure' | 'data' | 'restore'
  /** Id of the key that backups are sealed with. */
  key?: string
  /** File to upload, or to download to; the body of a request that appends. */
  file?: string
  /** Reads everything, where it backs up. */
  full?: boolean
  /** Backs up so many times, one after the other; what it took is of the last. */
  times?: number
  /** Runs the operation so many times before it is measured, so that V8 has compiled what it runs. */
  warm?: number
  /** Before each backup, so many components change. */
  changed?: number
  /** Compares only, where it restores. */
  dryRun?: boolean
  /** Ids of components that a restore leaves alone. */
  skip?: readonly string[]
  /** Tells its origin first, where `/ping` answers, and begins when it is told to. */
  serve?: boolean
  /** Collects garbage before each look at the memory, so that only what is used counts. */
  live?: boolean
  /** Tells what long turns of the event loop were made of, and what took the time. */
  profile?: boolean
}

/** Bytes, as `process.memoryUsage` tells them. */
export type Memory = Pick<NodeJS.MemoryUsage, 'rss' | 'heapUsed' | 'external' | 'arrayBuffers'>

/** What it took. */
export interface Result {
  id: string
  ms: number
  /** Milliseconds of processor time of the process. */
  cpuMs: number
  /** Greatest resident memory above that of the idle server. */
  rssGrowth: number
  /** The greatest of each above those of the idle server; garbage that is not collected yet counts, but for `live`. */
  growth: Memory
  /** Milliseconds. */
  loopP99: number
  longestTurn: Turn
  /** With {@link Job.profile}. */
  longTurns: Turn[]
  /** With {@link Job.profile}: what took the time, the most first. */
  functions: FunctionTime[]
  docs: number
  rawBytes: number
  storedBytes: number
  /** What the backup added to the database that keeps it. */
  addedBytes: number
  /** Where it prunes: backups, and chunks and manifests. */
  removed?: { backups: number; parts: number }
  /** Of each backup, where there are several. */
  each?: { ms: number; addedBytes: number }[]
  firstByteMs?: number
  writes?: number
}

/** Backups that are read at a time: more than the default, to measure what many take. */
const MOST_DOWNLOADS = 32

/** Runs one operation of the plugin in this process, and sends what it took to the parent. */
async function main(): Promise<void> {
  // A message may be longer than an argument.
  const job = JSON.parse(process.argv[2] ?? readFileSync(0, 'utf8')) as Job
  const app = Fastify()
  app.get('/ping', async () => ({ ok: true }))
  await app.register(dbBackups, {
    safety: false,
    limits: { downloads: MOST_DOWNLOADS },
    ...(job.key && { encryption: { current: job.key, key: keyOf } }),
    couch: nano(job.url),
    databases: job.databases,
    authorize: () => undefined,
    webhooks: createMemoryWebhookStore(),
    rebuildWhitelist: () => undefined
  })
  await app.ready()
  const byHttp = ['get', 'list', 'append'].includes(job.operation)
  const origin = byHttp || job.serve ? await app.listen({ port: 0, host: '127.0.0.1' }) : ''
  await app.dbBackups.list()
  if (job.serve) {
    process.send?.(origin)
    await once(process, 'message')
  }
  for (let time = 0; time < (job.warm ?? 0); time++) await run(app, job, origin)
  const memory = new MemoryWatch(job.live ?? false)
  const loop = watchLoop()
  const turns = new TurnWatch({ profile: job.profile })
  const [before, startedAt] = [process.cpuUsage(), performance.now()]
  const result = await run(app, job, origin)
  const ms = performance.now() - startedAt
  const { user, system } = process.cpuUsage(before)
  const loopP99 = loop.p99()
  const { longest, long, functions } = turns.stop()
  const growth = memory.stop()
  const summary = await app.dbBackups.summary(result.id)
  const sum = (of: 'raw_bytes' | 'stored_bytes') =>
    Object.values(summary.dbs).reduce((total, db) => total + (db[of] ?? 0), 0)
  process.send?.({
    ...result,
    ms,
    cpuMs: (user + system) / 1000,
    rssGrowth: growth.rss,
    growth,
    loopP99,
    longestTurn: longest,
    longTurns: long,
    functions,
    docs: summary.doc_count,
    rawBytes: sum('raw_bytes'),
    storedBytes: sum('stored_bytes'),
    addedBytes: summary.added_bytes ?? sum('stored_bytes')
  } satisfies Result)
  if (job.serve) await once(process, 'message')
  await app.close()
}

const keyOf = (id: string) => createHash('sha256').update(id).digest()

const KINDS = ['rss', 'heapUsed', 'external', 'arrayBuffers'] as const

/** Twice: the bytes of buffers are freed beside the first, and waited for by the second. */
function collectGarbage(): void {
  for (let i = 0; i < 2; i++) (globalThis as { gc?: () => void }).gc?.()
}

/** Milliseconds between two looks at the memory, and between two that collect garbage first, which takes long. */
const LOOK = 20
const LIVE_LOOK = 250

/** Looks at the memory of this process. */
class MemoryWatch {
  readonly #live: boolean
  readonly #idle: Memory
  readonly #peak: Memory
  readonly #timer: NodeJS.Timeout

  /** @param live collects garbage before each look */
  constructor(live: boolean) {
    this.#live = live
    collectGarbage()
    this.#idle = process.memoryUsage()
    this.#peak = { ...this.#idle }
    this.#timer = setInterval(() => this.#look(), live ? LIVE_LOOK : LOOK)
  }

  #look(): void {
    if (this.#live) collectGarbage()
    const now = process.memoryUsage()
    for (const kind of KINDS) this.#peak[kind] = Math.max(this.#peak[kind], now[kind])
  }

  /** @returns the greatest of each above what the idle process had */
  stop(): Memory {
    clearInterval(this.#timer)
    this.#look()
    const growth = { ...this.#peak }
    for (const kind of KINDS) growth[kind] -= this.#idle[kind]
    return growth
  }
}

async function run(
  app: FastifyInstance,
  job: Job,
  origin: string
): Promise<Pick<Result, 'id' | 'each' | 'firstByteMs' | 'writes' | 'removed'>> {
  if (job.operation === 'backup') return backUp(app, job)
  const id = job.id as string
  if (job.operation === 'download') {
    const { body } = await app.dbBackups.get(id)
    await pipeline(body, createWriteStream(job.file as string))
    return { id }
  }
  if (job.operation === 'get') return { id, firstByteMs: await request(origin, `GET /api/v1/backups/${id}`) }
  if (job.operation === 'list') return { id, firstByteMs: await request(origin, 'GET /api/v1/backups') }
  if (job.operation === 'append') {
    const { size } = statSync(job.file as string)
    const head = `PUT /api/v1/backups/${id}/attachments/file`
    const headers = `content-type: application/json\r\ncontent-length: ${size}\r\n`
    return { id, firstByteMs: await request(origin, head, headers, job.file) }
  }
  if (job.operation === 'diff') {
    for await (const _ of app.dbBackups.diff(id, { against: job.against ?? 'now' }));
    return { id }
  }
  if (job.operation === 'verify') {
    const report = await app.dbBackups.verify(id, { depth: job.depth })
    if (!report.good) throw new Error(JSON.stringify(report.problems))
    return { id }
  }
  if (job.operation === 'rekey') {
    await app.dbBackups.rekey()
    return { id }
  }
  if (job.operation === 'serve') {
    await once(process, 'message')
    return { id }
  }
  if (job.operation === 'prune') {
    const { removed, parts } = await app.dbBackups.prune({ keep: { last: 1 } })
    return { id, removed: { backups: removed.length, parts } }
  }
  const source = job.file ? { body: createReadStream(job.file) } : { id }
  const { finished } = await app.dbBackups.restore(source, {
    dryRun: job.dryRun,
    ...(job.skip && { skip: { components: job.skip } })
  })
  const { databases } = await finished
  const writes = Object.values(databases).reduce((sum, { created, changed }) => sum + created + changed, 0)
  return { id, writes }
}

async function backUp(app: FastifyInstance, job: Job): Promise<Pick<Result, 'id' | 'each'>> {
  const each: Result['each'] = []
  let id = ''
  for (let time = 0; time < (job.times ?? 1); time++) {
    if (job.changed)
      await changeSome(serverOf(job.url), (job.databases as DatabaseNames).components, job.changed)
    const startedAt = performance.now()
    const started = await app.dbBackups.start(job.full ? { full: true } : {})
    id = started.id
    const { added_bytes } = await started.finished
    each.push({ ms: performance.now() - startedAt, addedBytes: added_bytes ?? Number.NaN })
  }
  return { id, each }
}

/**
 * Sends a request and reads the reply. The client is another process in life: a raw socket costs this one as little as
 * can be.
 *
 * @returns milliseconds until the first byte of the reply
 */
async function request(origin: string, head: string, headers = '', file?: string): Promise<number> {
  const from = performance.now()
  return new Promise<number>((resolve, reject) => {
    let first: number | undefined
    let status = ''
    const socket = connect(Number(new URL(origin).port), '127.0.0.1', () => {
      socket.write(`${head} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n${headers}\r\n`)
      if (file) createReadStream(file).pipe(socket, { end: false })
    })
    socket.on('data', (piece) => {
      first ??= performance.now() - from
      if (status.length < 12) status += piece.toString('latin1', 0, 12)
    })
    socket.on('error', reject)
    socket.on('close', () => {
      if (status.startsWith('HTTP/1.1 200')) resolve(first ?? Number.NaN)
      else reject(new Error(`${head}: ${status}`))
    })
  })
}

void main()
