/**
 * Races three server processes on a cluster, each on a node of its own, and kills nodes while they work. Prints the
 * tables of bench/MEASUREMENTS.md. Exits with 1 when a figure exceeds its bar.
 */
import { Cluster } from './cluster.js'
import { Incremental } from './cluster-incremental.js'
import { KILLED, Kills } from './cluster-kills.js'
import { Lag } from './cluster-lag.js'
import { ClusterPrunes } from './cluster-prune.js'
import { Races } from './cluster-races.js'
import { figuresTable, missed, type PartResult } from './figures.js'
import { choices, wholeNumber } from './settings.js'

const USAGE = `COUCHDB_URLS=url1,url2,url3 NODE_KILL=command NODE_START=command npm run test:cluster

  COUCHDB_URLS  URLs of the three nodes, with credentials
  NODE_KILL     command that kills a node; the node's number, 1 to 3, is appended
  NODE_START    command that starts the node again, and returns when it answers
  ROUNDS        number of rounds of simultaneous starts (default 300)
  NODE_FORGET   command that deletes a database's files on a node that is down; the node's number and the
                database's name are appended. Without it, no node loses its files
  KILLS         number of rounds in which documents are written while a node is down, and of rounds of the
                parts incremental and prune (default 20)
  DOCUMENTS     number of documents in components while nodes are killed (default 3000)
  PARTS         parts to run: races; backup, restore, get, append (a node is killed meanwhile);
                lag-backup, lag-restore; incremental; prune (default all)`

function required(name: string): string {
  const value = process.env[name]
  if (value) return value
  console.error(`${name} is not set\n\n${USAGE}`)
  process.exit(2)
}

const PARTS = ['races', ...KILLED, 'lag-backup', 'lag-restore', 'incremental', 'prune'] as const

/** Runs the parts that were asked for. Kills of one run share their databases and their table. */
async function play(cluster: Cluster): Promise<void> {
  const parts = choices('PARTS', PARTS)
  const killed = KILLED.filter((name) => parts.includes(name))
  const work: [boolean, () => Promise<PartResult>][] = [
    [parts.includes('races'), () => new Races(cluster).run(wholeNumber('ROUNDS', 300))],
    [killed.length > 0, () => new Kills(cluster, wholeNumber('DOCUMENTS', 3000)).run(killed)],
    [parts.includes('lag-backup'), () => new Lag(cluster).backups(wholeNumber('KILLS', 20))],
    [parts.includes('lag-restore'), () => new Lag(cluster).restores(wholeNumber('KILLS', 20))],
    [
      parts.includes('incremental'),
      () => new Incremental(cluster, process.env.NODE_FORGET).run(wholeNumber('KILLS', 20))
    ],
    [parts.includes('prune'), () => new ClusterPrunes(cluster).run(wholeNumber('KILLS', 20))]
  ]
  for (const [asked, part] of work) if (asked) report(await part().finally(() => cluster.cleanUp()))
}

function report({ figures, tables = [], problems }: PartResult): void {
  console.log([...tables, figuresTable(figures), ''].join('\n\n'))
  if (problems.length > 0) console.log(problems.map((problem) => `- ${problem}\n`).join(''))
  if (figures.some(missed)) process.exitCode = 1
}

async function main(): Promise<void> {
  const urls = required('COUCHDB_URLS').split(',')
  if (urls.length !== 3) throw new Error('COUCHDB_URLS must be three URLs')
  const cluster = new Cluster(urls, required('NODE_KILL'), required('NODE_START'))
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => void cluster.cleanUp().finally(() => process.exit(1)))
  }
  await play(cluster)
}

void main()
