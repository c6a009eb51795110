import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { startEmbeddedCouch } from '../examples/standalone/embedded-couch.js'
import { call, load, newDocuments, recreate, type Server, serverOf } from './dataset.js'
import { measureDiffs } from './diff.js'
import { measureHost } from './host.js'
import { measureIncremental } from './incremental.js'
import { type Measured, machine, median, ratioOf, run, versionOf } from './jobs.js'
import { measureProfiles } from './profile.js'
import { couchbackup, couchrestore, rawRead } from './rivals.js'
import { measureSealed } from './sealed.js'
import { writeHead, writeSection } from './sections.js'
import { measureVerify } from './verify.js'
import type { Result } from './worker.js'

const USAGE = `npm run bench -- [options]
       npm run bench -- incremental [options]   incremental backups; \`--help\` tells its options
       npm run bench -- sealed [options]        what sealing adds to a backup's processor time
       npm run bench -- verify [options]        verifications
       npm run bench -- diff [options]          diffs; \`--help\` tells its options
       npm run bench -- host [options]          what a host's requests and many readers notice; \`--help\` tells its options
       npm run bench -- --profile [options]     what takes the time of each operation; \`--help\` tells its options

  --docs N       documents for the comparisons (default 100000; 5000 on the embedded database)
  --sizes A,B,C  documents for the memory figures (default 10000,100000,300000; 2000,5000 embedded)
  --rounds N     rounds of each comparison (default 3)
  --only PART    "shards": only databases of 8 and 64 shards, whose section of the results is written anew
  --out FILE     where to write the results (default bench/RESULTS.md)

COUCHDB_URL, with credentials in it, names the server; without it the embedded database is measured.`

const MiB = 1024 * 1024
const names = { components: 'bench_components', sessions: 'bench_sessions', system: 'bench_system' }
const EMPTY = 'bench_empty'
/** Numbers of shards that large databases have. */
const SHARDS = [8, 64]
const SHARDS_TITLE = '## Databases of many shards'

type Rows = Record<string, number[]>

async function main(): Promise<void> {
  if (process.argv[2] === 'sealed') return measureSealed(process.argv.slice(3))
  if (process.argv[2] === 'incremental') return measureIncremental(process.argv.slice(3))
  if (process.argv[2] === 'verify') return measureVerify(process.argv.slice(3))
  if (process.argv[2] === 'diff') return measureDiffs(process.argv.slice(3))
  if (process.argv[2] === 'host') return measureHost(process.argv.slice(3))
  if (process.argv[2] === '--profile') return measureProfiles(process.argv.slice(3))
  const { values } = parseArgs({
    options: {
      docs: { type: 'string' },
      sizes: { type: 'string' },
      rounds: { type: 'string', default: '3' },
      only: { type: 'string' },
      out: { type: 'string', default: join('bench', 'RESULTS.md') },
      help: { type: 'boolean', default: false }
    }
  })
  const only = values.only === 'shards'
  if (values.help || (values.only !== undefined && !only)) return console.log(USAGE)
  const embedded = process.env.COUCHDB_URL ? undefined : await startEmbeddedCouch({ memory: true })
  const url = (process.env.COUCHDB_URL ?? embedded?.url ?? '').replace(/\/$/, '')
  const docs = Number(values.docs ?? (embedded ? 5000 : 100_000))
  const sizes = (values.sizes ?? (embedded ? '2000,5000' : '10000,100000,300000')).split(',').map(Number)
  const directory = await mkdtemp(join(tmpdir(), 'bench-'))
  const server = serverOf(url)
  try {
    const version = await versionOf(server, !embedded)
    const shards = async () => measureShards(url, server, docs, Number(values.rounds), version)
    if (only) return await writeSection(values.out, SHARDS_TITLE, await shards())
    const results = new Report(version, docs)
    // The rivals do not get on with the embedded database: their batches never return.
    const rivals = embedded ? undefined : join(directory, 'rival.txt')
    await compare(url, server, docs, Number(values.rounds), join(directory, 'backup.json'), rivals, results)
    await measureMemory(url, server, sizes, results)
    const text = results.text()
    console.log(text)
    await writeHead(values.out, text)
    if (!embedded) await writeSection(values.out, SHARDS_TITLE, await shards())
  } finally {
    for (const name of [...Object.values(names), EMPTY]) await call(server, 'DELETE', `/${name}`)
    await rm(directory, { recursive: true, force: true })
    await embedded?.close()
  }
}

async function compare(
  url: string,
  server: Server,
  docs: number,
  rounds: number,
  file: string,
  rivalFile: string | undefined,
  results: Report
): Promise<void> {
  const bodies = newDocuments(docs)
  await fill(server, bodies)
  const read: Rows = { raw: [], ours: [], rival: [] }
  let backup: Measured | undefined
  for (let round = 0; round < rounds; round++) {
    read.raw.push((await rawRead(url, names.components)).ms)
    backup = await run({ url, databases: names, operation: 'backup', full: true })
    read.ours.push(backup.ms)
    results.process('backup', backup)
    if (!rivalFile) continue
    const rival = await couchbackup(url, names.components, rivalFile)
    read.rival.push(rival.ms)
    results.rivalMemory('couchbackup', rival.rss)
  }
  const { id } = backup as Result
  results.stored(backup as Result)
  results.ratio('backup / raw read of the changes feed', read.ours, read.raw, 'at most 1.15')
  results.ratio('couchbackup / backup', read.rival, read.ours, 'at least 1.5')

  await run({ url, databases: names, operation: 'download', id, file })
  const write: Rows = { loader: [], ours: [], rival: [], unchanged: [], again: [], upload: [] }
  for (let round = 0; round < rounds; round++) {
    await recreate(server, EMPTY)
    write.loader.push(await timed(() => load(server, EMPTY, bodies)))
    await recreate(server, names.components)
    const full = await run({ url, databases: names, operation: 'restore', id })
    write.ours.push(full.ms)
    results.process('restore into an empty database', full)
    const unchanged = await run({ url, databases: names, operation: 'restore', id })
    write.unchanged.push(unchanged.ms)
    write.again.push(unchanged.writes ?? Number.NaN)
    results.process('restore of an unchanged database', unchanged)
    const upload = await run({ url, databases: names, operation: 'upload', id, file })
    write.upload.push(upload.ms)
    write.again.push(upload.writes ?? Number.NaN)
    if (!rivalFile) continue
    await recreate(server, EMPTY)
    const rival = await couchrestore(url, EMPTY, rivalFile)
    write.rival.push(rival.ms)
    results.rivalMemory('couchrestore', rival.rss)
  }
  results.ratio('restore / bare _bulk_docs loader', write.ours, write.loader, 'at most 1.15')
  results.ratio('couchrestore / restore', write.rival, write.ours, 'at least 1')
  results.ratio('bare loader / restore of an unchanged database', write.loader, write.unchanged, '-')
  results.ratio('restore / restore of an unchanged database', write.ours, write.unchanged, 'at least 5')
  results.ratio('upload of an unchanged database / restore of it by id', write.upload, write.unchanged, '-')
  results.ratio('restore / upload of an unchanged database', write.ours, write.upload, '-')
  results.line('documents written by a second restore', String(Math.max(...write.again)), '0')

  for (let round = 0; round < rounds; round++) {
    const get = await run({ url, databases: names, operation: 'get', id })
    results.process('get', get)
    results.get(get)
  }
}

async function measureMemory(url: string, server: Server, sizes: number[], results: Report): Promise<void> {
  for (const size of sizes) {
    await fill(server, newDocuments(size))
    const backup = await run({ url, databases: names, operation: 'backup', full: true })
    const get = await run({ url, databases: names, operation: 'get', id: backup.id })
    await recreate(server, names.components)
    const restore = await run({ url, databases: names, operation: 'restore', id: backup.id })
    results.memory(size, { backup, get, restore })
  }
}

/** Returns the section about backups and restores of databases that have {@link SHARDS}. */
async function measureShards(
  url: string,
  server: Server,
  docs: number,
  rounds: number,
  version: string
): Promise<string> {
  const bodies = newDocuments(docs)
  const lines: string[] = []
  for (const q of SHARDS) {
    const rows: Record<'raw' | 'backup' | 'loader' | 'restore', number[]> = {
      raw: [],
      backup: [],
      loader: [],
      restore: []
    }
    await fill(server, bodies, q)
    let id = ''
    for (let round = 0; round < rounds; round++) {
      rows.raw.push((await rawRead(url, names.components)).ms)
      const backup = await run({ url, databases: names, operation: 'backup', full: true })
      rows.backup.push(backup.ms)
      id = backup.id
    }
    for (let round = 0; round < rounds; round++) {
      await recreate(server, EMPTY, q)
      rows.loader.push(await timed(() => load(server, EMPTY, bodies)))
      await recreate(server, names.components, q)
      rows.restore.push((await run({ url, databases: names, operation: 'restore', id })).ms)
    }
    lines.push(`| ${q} | ${ratioOf(rows.backup, rows.raw)} | ${ratioOf(rows.restore, rows.loader)} |`)
  }
  return [
    SHARDS_TITLE,
    '',
    `${new Date().toISOString().slice(0, 10)}, ${version}; ${docs} documents, \`npm run bench -- --only shards --rounds ${rounds}\`.`,
    '',
    '| q | backup / raw read of the changes feed | restore / bare _bulk_docs loader |',
    '|---|---|---|',
    ...lines,
    ''
  ].join('\n')
}

async function fill(server: Server, bodies: readonly string[], q?: number): Promise<void> {
  for (const name of Object.values(names)) await recreate(server, name, q)
  await load(server, names.components, bodies)
}

async function timed(work: () => Promise<void>): Promise<number> {
  const startedAt = performance.now()
  await work()
  return performance.now() - startedAt
}

class Report {
  readonly #head: string
  readonly #lines: string[] = []
  readonly #memory: string[] = []
  readonly #loops = new Map<string, { own: number; idle: number }[]>()
  readonly #firstBytes: number[] = []
  readonly #rates: number[] = []
  readonly #rivals = new Map<string, number>()

  constructor(server: string, docs: number) {
    this.#head = [
      '# Results',
      '',
      `${new Date().toISOString().slice(0, 10)}, ${server}, ${machine()}; ${docs} documents of about 1.2 KB, database and server on one machine.`,
      '',
      '`npm run bench` writes this page. Each ratio compares runs that followed each other, and is the median of all',
      'rounds. Ratios hold where absolute times do not.'
    ].join('\n')
  }

  line(what: string, figure: string, bar: string): void {
    this.#lines.push(`| ${what} | ${figure} | ${bar} |`)
    console.error(`${what}: ${figure}`)
  }

  ratio(what: string, over: readonly number[], under: readonly number[], bar: string): void {
    if (over.length === 0 || under.length === 0) return
    this.line(what, ratioOf(over, under), bar)
  }

  process(what: string, { loopP99: own, idleP99: idle }: Measured): void {
    this.#loops.set(what, [...(this.#loops.get(what) ?? []), { own, idle }])
  }

  get({ firstByteMs, rawBytes, ms }: Result): void {
    this.#firstBytes.push(firstByteMs ?? Number.NaN)
    this.#rates.push(rawBytes / MiB / (ms / 1000))
  }

  stored({ rawBytes, storedBytes }: Result): void {
    this.line('stored / raw bytes', `${((100 * storedBytes) / rawBytes).toFixed(1)} %`, 'at most 25 %')
  }

  rivalMemory(what: string, rss: number): void {
    this.#rivals.set(what, Math.max(rss, this.#rivals.get(what) ?? 0))
  }

  memory(size: number, runs: Record<'backup' | 'get' | 'restore', Result>): void {
    const growth = (result: Result) => `${Math.round(result.rssGrowth / MiB)} MiB`
    const row = `| ${size} | ${growth(runs.backup)} | ${growth(runs.get)} | ${growth(runs.restore)} |`
    this.#memory.push(row)
    console.error(`memory: ${row}`)
  }

  text(): string {
    const loops = [...this.#loops].map(([what, values]) => {
      const own = median(values.map((value) => value.own)).toFixed(1)
      const idle = median(values.map((value) => value.idle)).toFixed(1)
      return `| event-loop delay p99, ${what} | ${own} ms (a process that did nothing meanwhile: ${idle} ms) | at most 20 ms |`
    })
    const rivals = [...this.#rivals].map(([what, rss]) => `${what} ${Math.round(rss / MiB)} MiB`).join(', ')
    return [
      this.#head,
      '',
      '| figure | measured | bar |',
      '|---|---|---|',
      ...this.#lines,
      ...loops,
      `| get, time to first byte | ${median(this.#firstBytes).toFixed(1)} ms | at most 50 ms |`,
      `| get, throughput | ${Math.round(median(this.#rates))} MiB/s | - |`,
      '',
      'The greatest resident memory above that of the idle server (bar: 64 MiB at every size):',
      '',
      '| documents | backup | get | restore |',
      '|---|---|---|---|',
      ...this.#memory,
      '',
      rivals
        ? `For comparison, the peak resident memory of the rivals' processes: ${rivals}.`
        : 'The rivals were not run: they need a CouchDB.',
      ''
    ].join('\n')
  }
}

void main()
