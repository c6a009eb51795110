import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { serverUrl } from './databases.js'
import { call, changeSome, load, newDocuments, recreate, type Server, serverOf } from './dataset.js'
import { headOf, type Measured, median, ratioOf, run, seconds } from './jobs.js'
import { writeSection } from './sections.js'

const USAGE = `npm run bench -- incremental [options]

  --docs A,B      documents of each comparison (default 100000)
  --changed A,B   documents that change before each incremental backup (default 100)
  --rounds N      rounds of each comparison (default 3)
  --chain N       backups of a long chain; 0: none (default 200)
  --prune A,B     backups of chains that are pruned but for the last one; 0: none (default 20,200)
  --only PART     "prune": only that, whose section of the results is written anew
  --no-replicate  without CouchDB's own _replicate, whose first run takes minutes for a million documents
  --keep          does not delete the databases, and uses those of an earlier run
  --out FILE      file of results, in which one section is written anew (default bench/RESULTS.md)

COUCHDB_URL, with credentials in it, names the server.`

const TITLE = '## Incremental backups'
const PRUNE_TITLE = '## Pruning'
/** What the chains that are pruned are of. */
const PRUNED = { docs: 5000, changed: 100 }
const MiB = 1024 * 1024
const MAIN = 'bench_incremental'
const names = {
  components: `${MAIN}_components`,
  sessions: `${MAIN}_sessions`,
  system: `${MAIN}_system`,
  backups: `${MAIN}_backups`
}
/** Databases that backups are restored into. */
const restored = {
  components: `${MAIN}_components_restored`,
  sessions: `${MAIN}_sessions_restored`,
  system: `${MAIN}_system_restored`,
  backups: names.backups
}
const REPLICA = `${MAIN}_replica`

interface Settings {
  url: string
  server: Server
  rounds: number
  replicate: boolean
  keep: boolean
}

/** Measures incremental backups beside full ones and `_replicate`, and writes their section of the results. */
export async function measureIncremental(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      docs: { type: 'string', default: '100000' },
      changed: { type: 'string', default: '100' },
      rounds: { type: 'string', default: '3' },
      chain: { type: 'string', default: '200' },
      prune: { type: 'string', default: '20,200' },
      only: { type: 'string' },
      'no-replicate': { type: 'boolean', default: false },
      keep: { type: 'boolean', default: false },
      out: { type: 'string', default: join('bench', 'RESULTS.md') },
      help: { type: 'boolean', default: false }
    }
  })
  const only = values.only === 'prune'
  if (values.help || (values.only !== undefined && !only)) return console.log(USAGE)
  const url = serverUrl()
  const settings: Settings = {
    url,
    server: serverOf(url),
    rounds: Number(values.rounds),
    replicate: !values['no-replicate'],
    keep: values.keep
  }
  const head = `${await headOf(settings.server)} Documents of about 1.2 KB; database and server on one machine.`
  const lengths = numbersIn(values.prune).filter((length) => length > 0)
  try {
    if (!only) {
      const sections = await measureBackups(settings, values)
      await writeSection(values.out, TITLE, [TITLE, head, ...sections].join('\n\n'))
    }
    if (lengths.length > 0) {
      const section = await measurePruning(settings, lengths)
      await writeSection(values.out, PRUNE_TITLE, [PRUNE_TITLE, head, section].join('\n\n'))
    }
  } finally {
    const all = new Set([...Object.values(names), ...Object.values(restored), REPLICA])
    if (!values.keep) for (const name of all) await call(settings.server, 'DELETE', `/${name}`)
  }
}

const numbersIn = (list: string) => list.split(',').map(Number)

async function measureBackups(
  settings: Settings,
  values: { docs: string; changed: string; chain: string }
): Promise<string[]> {
  const counts = numbersIn(values.docs)
  const changed = numbersIn(values.changed)
  const sections: string[] = []
  const medians: number[] = []
  for (const [i, docs] of counts.entries()) {
    const { text, incremental } = await compare(settings, docs, changed[i] ?? changed[0])
    medians.push(incremental)
    sections.push(text)
  }
  if (medians.length > 1) {
    const ratio = (medians[medians.length - 1] / medians[0]).toFixed(2)
    sections.push(`The last of these took ${ratio} times as long as the first (bar: at most 3).`)
  }
  const chain = Number(values.chain)
  if (chain > 0) sections.push(await measureChain(settings, counts[0], changed[0], chain))
  return sections
}

/** Loads the source databases, unless they are there with as many documents. */
async function fill({ server, keep }: Settings, docs: number): Promise<void> {
  if (keep && (await documentsIn(server, names.components)) === docs) {
    await recreate(server, names.backups)
    return
  }
  for (const name of [...Object.values(names), REPLICA]) await recreate(server, name)
  await load(server, names.components, newDocuments(docs))
}

async function documentsIn(server: Server, database: string): Promise<number> {
  try {
    return ((await call(server, 'GET', `/${database}`)) as { doc_count: number }).doc_count
  } catch {
    return -1
  }
}

/** Lets CouchDB replicate one database into another. @returns milliseconds */
async function replicate({ server }: Settings, source: string, target: string): Promise<number> {
  const { origin, authorization } = server
  const end = (name: string) => ({
    url: `${origin}/${name}`,
    ...(authorization && { headers: { authorization } })
  })
  const startedAt = performance.now()
  const body = JSON.stringify({ source: end(source), target: end(target) })
  const { ok } = (await call(server, 'POST', '/_replicate', body)) as { ok?: boolean }
  if (!ok) throw new Error('it was not replicated')
  return performance.now() - startedAt
}

async function compare(settings: Settings, docs: number, changed: number) {
  const { url, server, rounds } = settings
  await fill(settings, docs)
  if (settings.replicate) await replicate(settings, names.components, REPLICA)
  const backUp = (more: object = {}) => run({ url, databases: names, operation: 'backup', ...more })
  const rows: Record<
    'full' | 'incremental' | 'replicate' | 'nothing' | 'nothingWarm' | 'nothingReplicate',
    number[]
  > = {
    full: [],
    incremental: [],
    replicate: [],
    nothing: [],
    nothingWarm: [],
    nothingReplicate: []
  }
  const memory = { full: 0, incremental: 0, nothing: 0 }
  const shares: number[] = []
  const note = (what: keyof typeof memory, measured: Measured) => {
    rows[what].push(measured.ms)
    memory[what] = Math.max(memory[what], measured.rssGrowth)
  }
  for (let round = 0; round < rounds; round++) {
    const full = await backUp({ full: true })
    note('full', full)
    await changeSome(server, names.components, changed)
    const ours = async () => {
      const measured = await backUp()
      note('incremental', measured)
      shares.push(measured.addedBytes / full.storedBytes)
    }
    const theirs = async () => {
      if (settings.replicate) rows.replicate.push(await replicate(settings, names.components, REPLICA))
    }
    for (const one of round % 2 ? [theirs, ours] : [ours, theirs]) await one()
    note('nothing', await backUp())
    const { each = [] } = await backUp({ times: 5 })
    rows.nothingWarm.push(median(each.slice(1).map(({ ms }) => ms)))
    if (settings.replicate) rows.nothingReplicate.push(await replicate(settings, names.components, REPLICA))
  }
  const precise = (values: readonly number[]) =>
    `**${median(values).toFixed(0)} ms** (${values.map((ms) => ms.toFixed(0)).join(', ')})`
  const lines = [
    ['full backup / incremental backup', ratioOf(rows.full, rows.incremental), 'at least 20'],
    ['incremental backup', precise(rows.incremental), '-'],
    ['incremental backup of no changes, in a new process', precise(rows.nothing), 'at most 200 ms'],
    [
      'incremental backup of no changes, in a process that has made one',
      precise(rows.nothingWarm),
      'at most 200 ms'
    ],
    [
      'bytes added / stored bytes of the full backup',
      `${(100 * Math.max(...shares)).toFixed(2)} %`,
      'at most 2 %'
    ],
    ...Object.entries(memory).map(([what, bytes]) => [
      `resident memory above idle: ${what === 'nothing' ? 'no changes' : what}`,
      `${Math.round(bytes / MiB)} MiB`,
      'at most 64 MiB'
    ])
  ]
  if (settings.replicate) {
    lines.splice(
      2,
      0,
      [
        'incremental backup / `_replicate` of the same changes',
        ratioOf(rows.incremental, rows.replicate),
        'at most 1'
      ],
      ['`_replicate` of the same changes', precise(rows.replicate), '-']
    )
    lines.push(['`_replicate` of no changes', precise(rows.nothingReplicate), '-'])
  }
  const text = [
    `${docs} documents, of which ${changed} change before each incremental backup; full backups take ${seconds(median(rows.full))}.`,
    table(lines)
  ].join('\n\n')
  return { text, incremental: median(rows.incremental) }
}

async function measureChain(
  settings: Settings,
  docs: number,
  changed: number,
  length: number
): Promise<string> {
  const { url, server, rounds } = settings
  await fill({ ...settings, keep: true }, docs)
  const backUp = (more: object) => run({ url, databases: names, operation: 'backup', ...more })
  const first = await backUp({ full: true })
  const chain = await backUp({ times: length, changed })
  const each = chain.each ?? []
  const full = await backUp({ full: true })
  const rows: Record<'getLast' | 'getFull' | 'restoreLast' | 'restoreFull', number[]> = {
    getLast: [],
    getFull: [],
    restoreLast: [],
    restoreFull: []
  }
  const restore = async (id: string) => {
    for (const name of [restored.components, restored.sessions, restored.system]) await recreate(server, name)
    return (await run({ url, databases: restored, operation: 'restore', id })).ms
  }
  const get = async (id: string) => (await run({ url, databases: names, operation: 'get', id })).ms
  for (let round = 0; round < rounds; round++) {
    for (const kind of round % 2 ? (['Full', 'Last'] as const) : (['Last', 'Full'] as const)) {
      const { id } = kind === 'Last' ? chain : full
      rows[`get${kind}`].push(await get(id))
      rows[`restore${kind}`].push(await restore(id))
    }
  }
  const added = each.map(({ addedBytes }) => addedBytes)
  const times = each.map(({ ms }) => ms)
  const sum = added.reduce((all, bytes) => all + bytes, 0)
  const lines = [
    ['get of the last backup / of a full one', ratioOf(rows.getLast, rows.getFull), 'at most 1.34'],
    [
      'restore of the last backup / of a full one',
      ratioOf(rows.restoreLast, rows.restoreFull),
      'at most 1.34'
    ],
    ['time of a backup, median / longest', `${seconds(median(times))} / ${seconds(Math.max(...times))}`, '-'],
    [
      'bytes that a backup adds, median / most',
      `${mebibytes(median(added))} / ${mebibytes(Math.max(...added))}`,
      '-'
    ],
    ['bytes added by all backups / by the full one before', (sum / first.storedBytes).toFixed(2), '-'],
    [
      'resident memory above idle, over all backups',
      `${Math.round(chain.rssGrowth / MiB)} MiB`,
      'at most 64 MiB'
    ]
  ]
  return [
    `A chain of ${length} backups of ${docs} documents, of which ${changed} change before each.`,
    table(lines)
  ].join('\n\n')
}

/** Prunes chains of these lengths but for their last backup, each in a process of its own. */
async function measurePruning(settings: Settings, lengths: readonly number[]): Promise<string> {
  const lines: string[] = []
  for (const length of lengths) {
    await fill({ ...settings, keep: false }, PRUNED.docs)
    const job = { url: settings.url, databases: names }
    const { id } = await run({ ...job, operation: 'backup', times: length, changed: PRUNED.changed })
    const { ms, rssGrowth, removed } = await run({ ...job, operation: 'prune', id })
    lines.push(
      `| ${removed?.backups} | ${removed?.parts} | ${seconds(ms)} | ${Math.round(rssGrowth / MiB)} MiB |`
    )
  }
  return [
    `Chains of backups of ${PRUNED.docs} documents, of which ${PRUNED.changed} change before each. All but the last are pruned at once (bar: 200 in seconds, at most 64 MiB above idle at every length).`,
    [
      '| backups removed | parts deleted | time | resident memory above idle |',
      '|---|---|---|---|',
      ...lines
    ].join('\n')
  ].join('\n\n')
}

const mebibytes = (bytes: number) => `${(bytes / MiB).toFixed(1)} MiB`

const table = (lines: readonly (readonly string[])[]): string =>
  ['| figure | measured | bar |', '|---|---|---|', ...lines.map((line) => `| ${line.join(' | ')} |`)].join(
    '\n'
  )
