import { mkdtemp, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { Agent, request } from 'undici'
import { onDatabases } from './databases.js'
import { load, newDocuments } from './dataset.js'
import { headOf, run, seconds, serve } from './jobs.js'
import { rawRead } from './rivals.js'
import { writeSection } from './sections.js'
import type { Job } from './worker.js'

const USAGE = `npm run bench -- host [options]

  --docs N       documents of about 1.2 KB (default 100000)
  --large N      documents of 7 MB of a second database (default 10; 0 leaves it out)
  --out FILE     file of results, in which one section is written anew (default bench/RESULTS.md)

COUCHDB_URL, with credentials in it, names the server.`

const TITLE = '## What a host notices'
const MiB = 1024 * 1024
const LARGE = 7_000_000
/** Milliseconds between two requests, and of requests before an operation begins. */
const EVERY = 10
const IDLE = 10_000
/** Downloads that take little and much at a time. */
const READERS = { slow: 20, fast: 5 }
/** Milliseconds that a slow reader pauses after each piece. */
const PAUSE = 200
/** Begins the reply to a download that is not refused. */
const STATUS = 'HTTP/1.1 200'

/** Measures a host's own requests during operations, and many downloads at a time, and writes their section. */
export async function measureHost(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      docs: { type: 'string', default: '100000' },
      large: { type: 'string', default: '10' },
      out: { type: 'string', default: join('bench', 'RESULTS.md') },
      help: { type: 'boolean', default: false }
    }
  })
  if (values.help) return console.log(USAGE)
  const directory = await mkdtemp(join(tmpdir(), 'bench-'))
  const file = join(directory, 'backup.json')
  const shapes = [
    { what: `${values.docs} documents`, bodies: newDocuments(Number(values.docs)) },
    { what: `${values.large} documents of 7 MB`, bodies: largeDocuments(Number(values.large)) }
  ]
  const measured: { where: string; rows: string[]; readers: string }[] = []
  try {
    for (const { what, bodies } of shapes.filter(({ bodies }) => bodies.length > 0))
      measured.push(await measureShape(what, bodies, file))
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
  const rows = measured.flatMap(({ rows }) => rows)
  const readers = measured.map(({ readers }) => readers)
  const section = `${TITLE}

${measured[0].where} A hundred requests a second to a route of the host, timed from when each was due, before and during an operation: median / p99 / longest. Requests, host and database share the machine: the first row of each shape tells what that alone makes of them. Bar: p99 during an operation at most twice that before.

| operation | before | during | p99 during / before | time |
|---|---|---|---|---|
${rows.join('\n')}

${readers.join('\n\n')}`
  await writeSection(values.out, TITLE, section)
}

/** Measures on a database of these bodies of `_bulk_docs`. */
function measureShape(what: string, bodies: readonly string[], file: string) {
  return onDatabases('bench_host', async ({ server, names, job }) => {
    await load(server, names.components, bodies)
    const { id } = await run({ ...job, operation: 'backup', full: true })
    await run({ ...job, operation: 'download', id, file })
    const readers = await measureReaders({ ...job, operation: 'serve', id })
    const operations: Record<string, Job> = {
      backup: { ...job, operation: 'backup', full: true },
      get: { ...job, operation: 'get', id },
      'restore that changes nothing': { ...job, operation: 'restore', id },
      'upload that changes nothing': { ...job, operation: 'upload', id, file }
    }
    const raw = () => rawRead(job.url, names.components)
    const rows = [
      `| nothing; \`curl\` reads the feed, ${what} | ${await measureLoad({ ...job, operation: 'serve' }, raw)} |`
    ]
    for (const [name, operation] of Object.entries(operations))
      rows.push(`| ${name}, ${what} | ${await measureLoad(operation)} |`)
    return { where: await headOf(server), rows, readers }
  })
}

function largeDocuments(count: number): string[] {
  const text = 'x'.repeat(LARGE)
  return Array.from({ length: count }, (_, n) => JSON.stringify({ docs: [{ _id: `large ${n}`, text }] }))
}

/**
 * Returns a row of the table: what requests took before and during an operation.
 * @param beside runs in the place of the operation, in another process, while the server only replies
 */
async function measureLoad(job: Job, beside?: () => Promise<{ ms: number }>): Promise<string> {
  const { origin, go, result, end } = await serve(job)
  const before = new Requests(origin)
  await sleep(IDLE)
  const idle = await before.stop()
  const meanwhile = new Requests(origin)
  go()
  const { ms } = await (beside?.() ?? result)
  const busy = await meanwhile.stop()
  if (beside) go()
  await result
  end()
  const ratio = percentile(busy, 0.99) / percentile(idle, 0.99)
  return [told(idle), told(busy), `**${ratio.toFixed(2)}**`, seconds(ms)].join(' | ')
}

const percentile = (sorted: readonly number[], part: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))]

const told = (sorted: readonly number[]): string =>
  `${[0.5, 0.99, 1].map((part) => percentile(sorted, part).toFixed(1)).join(' / ')} ms`

/** Sends a request each {@link EVERY} milliseconds, whether those before were answered or not. */
class Requests {
  readonly #origin: string
  readonly #agent = new Agent({ connections: 64 })
  readonly #pending = new Set<Promise<void>>()
  readonly #took: number[] = []
  readonly #timer: NodeJS.Timeout
  #due = performance.now()

  constructor(origin: string) {
    this.#origin = origin
    this.#timer = setInterval(() => this.#sendDue(), 1)
  }

  #sendDue(): void {
    for (; this.#due <= performance.now(); this.#due += EVERY) {
      const sent = this.#send(this.#due).finally(() => this.#pending.delete(sent))
      this.#pending.add(sent)
    }
  }

  async #send(due: number): Promise<void> {
    const { body } = await request(`${this.#origin}/ping`, { dispatcher: this.#agent })
    await body.dump()
    this.#took.push(performance.now() - due)
  }

  /** Ends the requests. @returns what each took, in milliseconds, the least first */
  async stop(): Promise<number[]> {
    clearInterval(this.#timer)
    await Promise.all(this.#pending)
    await this.#agent.close()
    return this.#took.sort((a, b) => a - b)
  }
}

/** Returns a sentence on what fast downloads get beside slow ones, and what all take. */
async function measureReaders(job: Job): Promise<string> {
  const { origin, go, result, end } = await serve(job)
  go()
  const slow = Array.from({ length: READERS.slow }, () => download(origin, job.id as string, PAUSE))
  const from = performance.now()
  const sizes = await Promise.all(
    Array.from({ length: READERS.fast }, () => download(origin, job.id as string, 0).finished)
  )
  const took = performance.now() - from
  go()
  const { rssGrowth, loopP99 } = await result
  for (const { stop } of slow) stop()
  end()
  const all = sizes.reduce((sum, size) => sum + size, 0)
  return `${READERS.slow} downloads that pause ${PAUSE} ms after each piece, and ${READERS.fast} that do not, of a backup of ${Math.round(sizes[0] / MiB)} MiB: the fast ones got ${Math.round(all / MiB / (took / 1000))} MiB/s together (bar: 100); the server took ${Math.round(rssGrowth / MiB)} MiB more than idle, ${(rssGrowth / MiB / (READERS.slow + READERS.fast)).toFixed(1)} MiB for each; the p99 of its event-loop delay was ${loopP99.toFixed(1)} ms.`
}

/** Downloads a backup through a raw socket. @param pause milliseconds after each piece */
function download(
  origin: string,
  id: string,
  pause: number
): { finished: Promise<number>; stop: () => void } {
  const socket = connect(Number(new URL(origin).port), '127.0.0.1')
  socket.write(`GET /api/v1/backups/${id} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`)
  let size = 0
  let status = ''
  socket.on('data', (piece) => {
    size += piece.length
    if (status.length < STATUS.length) status += piece.toString('latin1', 0, STATUS.length)
    if (pause === 0) return
    socket.pause()
    setTimeout(() => socket.resume(), pause)
  })
  const finished = new Promise<number>((resolve, reject) => {
    socket.on('close', () => {
      if (status.startsWith(STATUS)) resolve(size)
      else reject(new Error(`GET of ${id}: ${status}`))
    })
    socket.on('error', reject)
  })
  finished.catch(() => undefined)
  return { finished, stop: () => socket.destroy() }
}
