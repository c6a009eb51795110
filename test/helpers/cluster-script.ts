/**
 * Races three server processes on a cluster, each on a node of its own, and kills nodes under them. Prints the tables
 * of docs/reliability.md; ends with 1 when a bar is missed.
 */
import { Cluster } from './cluster.js'
import { KILLED, Kills } from './cluster-kills.js'
import { Lag } from './cluster-lag.js'
import { Races } from './cluster-races.js'
import { figuresTable, missed, type PartResult } from './cluster-table.js'

const USAGE = `COUCHDB_URLS=url1,url2,url3 NODE_KILL=command NODE_START=command npm run test:cluster

  COUCHDB_URLS  the three nodes, with credentials
  NODE_KILL     kills a node: the command gets its number, 1 to 3, appended
  NODE_START    starts it again, and returns when it answers
  ROUNDS        rounds of simultaneous starts (default 300)
  KILLS         rounds in which documents are written while a node is down (default 20)
  DOCUMENTS     in components, while nodes are killed (default 3000)
  PARTS         races; backup, restore, get, append (a node is killed meanwhile); lag-backup, lag-restore (default all)`

function setting(name: string, usual?: string): string {
  const value = process.env[name] ?? usual
  if (value) return value
  console.error(`${name} is not set\n\n${USAGE}`)
  process.exit(2)
}

function count(name: string, usual: number): number {
  const value = Number(setting(name, String(usual)))
  if (!Number.isInteger(value) || value < 1) throw new Error(`${name} takes a number from 1`)
  return value
}

const PARTS = ['races', ...KILLED, 'lag-backup', 'lag-restore'] as const
type Part = (typeof PARTS)[number]

function askedFor(): Part[] {
  const names = setting('PARTS', PARTS.join()).split(',')
  const unknown = names.find((name) => !PARTS.includes(name as Part))
  if (unknown) throw new Error(`PARTS knows ${PARTS}, not ${unknown}`)
  return names as Part[]
}

/** Kills of one run share their databases and their table. */
async function play(cluster: Cluster): Promise<void> {
  const parts = askedFor()
  const killed = KILLED.filter((name) => parts.includes(name))
  const work: [boolean, () => Promise<PartResult>][] = [
    [parts.includes('races'), () => new Races(cluster).run(count('ROUNDS', 300))],
    [killed.length > 0, () => new Kills(cluster, count('DOCUMENTS', 3000)).run(killed)],
    [parts.includes('lag-backup'), () => new Lag(cluster).backups(count('KILLS', 20))],
    [parts.includes('lag-restore'), () => new Lag(cluster).restores(count('KILLS', 20))]
  ]
  for (const [asked, part] of work) if (asked) report(await part().finally(() => cluster.cleanUp()))
}

function report({ figures, tables = [], problems }: PartResult): void {
  console.log([...tables, figuresTable(figures), ''].join('\n\n'))
  if (problems.length > 0) console.log(problems.map((problem) => `- ${problem}\n`).join(''))
  if (figures.some(missed)) process.exitCode = 1
}

async function main(): Promise<void> {
  const urls = setting('COUCHDB_URLS').split(',')
  if (urls.length !== 3) throw new Error('COUCHDB_URLS takes three URLs')
  const cluster = new Cluster(urls, setting('NODE_KILL'), setting('NODE_START'))
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => void cluster.cleanUp().finally(() => process.exit(1)))
  }
  await play(cluster)
}

void main()
