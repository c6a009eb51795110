import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { onDatabases } from './databases.js'
import { changeSome, load, newDocuments } from './dataset.js'
import { headOf, type Measured, median, ratioOf, run } from './jobs.js'
import { writeSection } from './sections.js'

const USAGE = `npm run bench -- diff [options]

  --docs N      documents (default 100000)
  --changed N   documents that change between the two backups (default 100)
  --rounds N    rounds of each comparison (default 3)
  --out FILE    file of results, in which one section is written anew (default bench/RESULTS.md)

COUCHDB_URL, with credentials in it, names the server.`

const TITLE = '## Diffs'
/** Diffs before one that is measured in a process that has run for a while. */
const WARM = 5
const MiB = 1024 * 1024

/** Measures diffs of two backups, and of a backup and the databases, and writes their section of the results. */
export async function measureDiffs(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      docs: { type: 'string', default: '100000' },
      changed: { type: 'string', default: '100' },
      rounds: { type: 'string', default: '3' },
      out: { type: 'string', default: join('bench', 'RESULTS.md') },
      help: { type: 'boolean', default: false }
    }
  })
  if (values.help) return console.log(USAGE)
  const rows: Record<'chain' | 'warm' | 'full' | 'now' | 'restore', Measured[]> = {
    chain: [],
    warm: [],
    full: [],
    now: [],
    restore: []
  }
  const where = await onDatabases('bench_diff', async ({ server, names, job }) => {
    await load(server, names.components, newDocuments(Number(values.docs)))
    const { id: first } = await run({ ...job, operation: 'backup', full: true })
    await changeSome(server, names.components, Number(values.changed))
    const { id: second } = await run({ ...job, operation: 'backup' })
    const { id: third } = await run({ ...job, operation: 'backup', full: true })
    for (let round = 0; round < Number(values.rounds); round++) {
      rows.chain.push(await run({ ...job, operation: 'diff', id: first, against: second }))
      rows.warm.push(await run({ ...job, operation: 'diff', id: first, against: second, warm: WARM }))
      rows.full.push(await run({ ...job, operation: 'diff', id: first, against: third }))
      rows.restore.push(await run({ ...job, operation: 'restore', id: third }))
      rows.now.push(await run({ ...job, operation: 'diff', id: third, against: 'now' }))
    }
    return headOf(server)
  })
  const ms = (measured: readonly Measured[]) => measured.map(({ ms }) => ms)
  const told = (measured: readonly Measured[]) => `${median(ms(measured)).toFixed(0)} ms`
  const memory = (measured: readonly Measured[]) =>
    `${Math.round(Math.max(...measured.map(({ rssGrowth }) => rssGrowth)) / MiB)} MiB`
  const lines = [
    ['two backups of a chain', `${told(rows.chain)}, ${memory(rows.chain)}`, 'at most 300 ms, 64 MiB'],
    [
      `the same, after ${WARM} diffs in the process`,
      `${told(rows.warm)}, ${memory(rows.warm)}`,
      'at most 300 ms, 64 MiB'
    ],
    ['two full backups that share nothing', `${told(rows.full)}, ${memory(rows.full)}`, '64 MiB'],
    ['a backup and the databases', `${told(rows.now)}, ${memory(rows.now)}`, '64 MiB'],
    [
      'a backup and the databases / a restore that changes nothing',
      ratioOf(ms(rows.now), ms(rows.restore)),
      'at most 1.2'
    ]
  ]
  const head = `${where} ${values.docs} documents of about 1.2 KB, of which ${values.changed} change between the backups. Each diff ran in a new process unless it says other: V8 then compiles while it runs. Memory is above idle.`
  const table = [
    '| diff of | measured | bar |',
    '|---|---|---|',
    ...lines.map((line) => `| ${line.join(' | ')} |`)
  ]
  await writeSection(values.out, TITLE, [TITLE, head, table.join('\n')].join('\n\n'))
}
