import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { onDatabases } from './databases.js'
import { load, newDocuments, recreate } from './dataset.js'
import { headOf, type Measured, median, run } from './jobs.js'
import { writeSection } from './sections.js'
import type { Job } from './worker.js'

const USAGE = `npm run bench -- --profile [options]

  --docs N      documents (default 100000)
  --rounds N    rounds in which the processor time is measured, without the profiler (default 3)
  --out FILE    file of results, in which one section is written anew (default bench/PROFILE.md)

COUCHDB_URL, with credentials in it, names the server.`

const TITLE = '## Profiles'
/** Functions that are told of each operation. */
const FUNCTIONS = 15
/** Frames of the stack that took most of the longest turn. */
const FRAMES = 3
/** Frames of the profiler that are no work. */
const REST = new Set(['(idle)', '(root)'])

/** Measures what takes the time of each operation, and its longest turns, and writes their section of the results. */
export async function measureProfiles(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      docs: { type: 'string', default: '100000' },
      rounds: { type: 'string', default: '3' },
      out: { type: 'string', default: join('bench', 'PROFILE.md') },
      help: { type: 'boolean', default: false }
    }
  })
  if (values.help) return console.log(USAGE)
  const parts: string[] = []
  const measure = async (what: string, job: Job, before?: () => Promise<unknown>) => {
    const rounds: Measured[] = []
    for (let round = 0; round < Number(values.rounds); round++) {
      await before?.()
      rounds.push(await run(job))
    }
    await before?.()
    parts.push(partOf(what, rounds, await run({ ...job, profile: true })))
    return rounds[0]
  }
  const where = await onDatabases('bench_profile', async ({ server, names, job }) => {
    await load(server, names.components, newDocuments(Number(values.docs)))
    const { id } = await measure('Full backup', { ...job, operation: 'backup', full: true })
    await measure('Backup of no changes', { ...job, operation: 'backup' })
    await measure('Get', { ...job, operation: 'get', id })
    await measure('Dry run of a restore that changes nothing', {
      ...job,
      operation: 'restore',
      id,
      dryRun: true
    })
    await measure('Verification of the data', { ...job, operation: 'verify', depth: 'data', id })
    const empty = () => recreate(server, names.components)
    await measure('Restore into an empty database', { ...job, operation: 'restore', id }, empty)
    return headOf(server)
  })
  const head = `${where} ${values.docs} documents of about 1.2 KB. Each run is a new process. Processor time is that of the whole process, the median of ${values.rounds} runs without the profiler. The profile is of one more run, by the clock: where others use the machine, waits for a core count as well.`
  await writeSection(values.out, TITLE, [TITLE, head, ...parts].join('\n\n'))
}

function partOf(what: string, rounds: readonly Measured[], profiled: Measured): string {
  const of = (value: (measured: Measured) => number) => median(rounds.map(value))
  const functions = profiled.functions.filter(({ name }) => !REST.has(name))
  const all = functions.reduce((sum, { ms }) => sum + ms, 0)
  const rows = functions
    .slice(0, FUNCTIONS)
    .map(({ name, ms }) => `| ${((100 * ms) / all).toFixed(1)} % | \`${name}\` |`)
  const { cpu, stacks = [] } = profiled.longestTurn
  const [most] = stacks.map((stack) => stack.split(' < ').slice(0, FRAMES).join(' < '))
  const turn = most === undefined ? '' : `, in which the profiler saw mostly \`${most}\``
  return `### ${what}

Processor time ${of(({ cpuMs }) => cpuMs).toFixed(0)} ms, time ${of(({ ms }) => ms).toFixed(0)} ms, p99 of the event-loop delay ${of(({ loopP99 }) => loopP99).toFixed(1)} ms (a process that did nothing meanwhile: ${of(({ idleP99 }) => idleP99).toFixed(1)} ms). Longest turn ${cpu.toFixed(1)} ms of processor time${turn}.

| share | function |
|---|---|
${rows.join('\n')}`
}
