import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { onDatabases } from './databases.js'
import { load, newDocuments } from './dataset.js'
import { headOf, type Measured, median, run, seconds } from './jobs.js'
import { writeSection } from './sections.js'

const USAGE = `npm run bench -- verify [options]

  --docs N     documents of the backup (default 100000)
  --rounds N   rounds (default 3)
  --out FILE   file of results, in which one section is written anew (default bench/RESULTS.md)

COUCHDB_URL, with credentials in it, names the server.`

const TITLE = '## Verifications'
/** Verifications before one that is measured in a process that has run for a while. */
const WARM = 3
const MiB = 1024 * 1024
/** What the rows are called. */
const NAMES = {
  structure: '`structure`',
  data: '`data`',
  warm: `\`data\`, after ${WARM} of them in the process`,
  restore: '`restore`',
  rekey: 'rekey'
}

/** Measures verifications, and the sealing of a backup with another key, and writes their section of the results. */
export async function measureVerify(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      docs: { type: 'string', default: '100000' },
      rounds: { type: 'string', default: '3' },
      out: { type: 'string', default: join('bench', 'RESULTS.md') },
      help: { type: 'boolean', default: false }
    }
  })
  if (values.help) return console.log(USAGE)
  const rows: Record<'structure' | 'data' | 'warm' | 'restore' | 'rekey', Measured[]> = {
    structure: [],
    data: [],
    warm: [],
    restore: [],
    rekey: []
  }
  const where = await onDatabases('bench_verify', async ({ server, names, job }) => {
    await load(server, names.components, newDocuments(Number(values.docs)))
    const { id } = await run({ ...job, operation: 'backup', key: 'first' })
    for (let round = 0; round < Number(values.rounds); round++) {
      const key = round % 2 ? 'second' : 'first'
      const verify = { ...job, operation: 'verify', id, key } as const
      for (const depth of ['structure', 'data', 'restore'] as const)
        rows[depth].push(await run({ ...verify, depth }))
      rows.warm.push(await run({ ...verify, depth: 'data', warm: WARM }))
      rows.rekey.push(await run({ ...job, operation: 'rekey', id, key: round % 2 ? 'first' : 'second' }))
    }
    return headOf(server)
  })
  const lines = Object.entries(rows).map(([what, measured]) => {
    const bytes = measured[0].rawBytes
    const rate = (ms: number) => `${(bytes / MiB / (ms / 1000)).toFixed(0)} MiB/s`
    const took = median(measured.map(({ ms }) => ms))
    const used = median(measured.map(({ cpuMs }) => cpuMs))
    const memory = Math.round(Math.max(...measured.map(({ rssGrowth }) => rssGrowth)) / MiB)
    return `| ${NAMES[what as keyof typeof NAMES]} | ${seconds(took)} | ${seconds(used)} | ${rate(took)} | ${rate(used)} | ${memory} MiB |`
  })
  const section = `${TITLE}

${where} A sealed backup of ${values.docs} documents of about 1.2 KB. Each figure is the median of ${values.rounds} rounds, each in a new process; memory is the most above idle. Bars: \`data\` at least 150 MiB/s, 64 MiB.

| depth, or operation | time | processor time | documents' JSON per second | per second of processor time | memory |
| --- | --- | --- | --- | --- | --- |
${lines.join('\n')}`
  await writeSection(values.out, TITLE, section)
}
