import { createReadStream, createWriteStream } from 'node:fs'
import { pipeline } from 'node:stream/promises'
import Fastify, { type FastifyInstance } from 'fastify'
import nano from 'nano'
import { createMemoryWebhookStore, dbBackups } from '../lib/index.js'
import type { DatabaseNames } from '../types/index.js'
import { watchLoop } from './idle.js'

/** What to do, and where. */
export interface Job {
  url: string
  databases: DatabaseNames
  operation: 'backup' | 'restore' | 'get' | 'download' | 'upload'
  /** Backup to restore, get or download. */
  id?: string
  /** File to upload, or to download to. */
  file?: string
  /** Compares only, where it restores. */
  dryRun?: boolean
}

/** What it took. */
export interface Result {
  id: string
  ms: number
  /** Greatest resident memory above that of the idle server. */
  rssGrowth: number
  /** Milliseconds. */
  loopP99: number
  docs: number
  rawBytes: number
  storedBytes: number
  firstByteMs?: number
  writes?: number
}

/** Runs one operation of the plugin in this process, and sends what it took to the parent. */
async function main(): Promise<void> {
  const job = JSON.parse(process.argv[2]) as Job
  const app = Fastify()
  await app.register(dbBackups, {
    couch: nano(job.url),
    databases: job.databases,
    authorize: () => undefined,
    webhooks: createMemoryWebhookStore(),
    rebuildWhitelist: () => undefined
  })
  await app.ready()
  const origin = job.operation === 'get' ? await app.listen({ port: 0, host: '127.0.0.1' }) : ''
  await app.dbBackups.list()
  ;(globalThis as { gc?: () => void }).gc?.()
  const idle = process.memoryUsage.rss()
  let peak = idle
  const sampler = setInterval(() => {
    peak = Math.max(peak, process.memoryUsage.rss())
  }, 20)
  const loop = watchLoop()
  const startedAt = performance.now()
  const result = await run(app, job, origin)
  const ms = performance.now() - startedAt
  const loopP99 = loop.p99()
  clearInterval(sampler)
  const summary = await app.dbBackups.summary(result.id)
  const sum = (of: 'raw_bytes' | 'stored_bytes') =>
    Object.values(summary.dbs).reduce((total, db) => total + db[of], 0)
  process.send?.({
    ...result,
    ms,
    rssGrowth: peak - idle,
    loopP99,
    docs: summary.doc_count,
    rawBytes: sum('raw_bytes'),
    storedBytes: sum('stored_bytes')
  } satisfies Result)
  await app.close()
}

async function run(
  app: FastifyInstance,
  job: Job,
  origin: string
): Promise<{ id: string; firstByteMs?: number; writes?: number }> {
  if (job.operation === 'backup') {
    const { id, finished } = await app.dbBackups.start()
    await finished
    return { id }
  }
  const id = job.id as string
  if (job.operation === 'download') {
    const { body } = await app.dbBackups.get(id)
    await pipeline(body, createWriteStream(job.file as string))
    return { id }
  }
  if (job.operation !== 'get') {
    const source = job.file ? { body: createReadStream(job.file) } : { id }
    const { finished } = await app.dbBackups.restore(source, { dryRun: job.dryRun ?? false })
    const { databases } = await finished
    const writes = Object.values(databases).reduce((sum, { created, changed }) => sum + created + changed, 0)
    return { id, writes }
  }
  // The reader is another process in life: a raw socket costs this one as little as can be.
  const { connect } = await import('node:net')
  const { port } = new URL(origin)
  const from = performance.now()
  const firstByteMs = await new Promise<number>((resolve, reject) => {
    let first: number | undefined
    const socket = connect(Number(port), '127.0.0.1', () => {
      socket.write(`GET /api/v1/backups/${id} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`)
    })
    socket.on('data', () => {
      first ??= performance.now() - from
    })
    socket.on('error', reject)
    socket.on('close', () => resolve(first ?? Number.NaN))
  })
  return { id, firstByteMs }
}

void main()
