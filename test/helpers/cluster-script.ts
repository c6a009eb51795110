/**
 * Races three server processes on a cluster, each on a node of its own, and kills nodes under them. Prints the tables
 * of docs/reliability.md; ends with 1 when a bar is missed.
 */
import { Cluster } from './cluster.js'
import { Kills } from './cluster-kills.js'
import { Lag } from './cluster-lag.js'
import { Races } from './cluster-races.js'
import { figuresTable, missed, type PartResult } from './cluster-table.js'

const USAGE = `COUCHDB_URLS=url1,url2,url3 NODE_KILL=command NODE_START=command npm run test:cluster

  COUCHDB_URLS  the three nodes, with credentials
  NODE_KILL     kills a node: the command gets its number, 1 to 3, appended
  NODE_START    starts it again, and returns when it answers
  ROUNDS        rounds of simultaneous starts (default 300)
  KILLS         rounds in which a node is killed while documents are written (default 20)
  PARTS         races, kills, lag (default all)`

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

const parts: Record<string, (cluster: Cluster) => Promise<PartResult>> = {
  races: (cluster) => new Races(cluster).run(count('ROUNDS', 300)),
  kills: (cluster) => new Kills(cluster).run(),
  lag: (cluster) => new Lag(cluster).run(count('KILLS', 20))
}

async function play(cluster: Cluster): Promise<void> {
  for (const name of setting('PARTS', Object.keys(parts).join()).split(',')) {
    if (!parts[name]) throw new Error(`PARTS knows ${Object.keys(parts)}, not ${name}`)
    report(await parts[name](cluster).finally(() => cluster.cleanUp()))
  }
}

function report({ figures, tables = [], problems }: PartResult): void {
  console.log([...tables, figuresTable(figures), ''].join('\n\n'))
  for (const problem of problems) console.error(problem)
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
