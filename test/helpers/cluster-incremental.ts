import { exec } from 'node:child_process'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { BackupSummary } from '../../types/index.js'
import type { Cluster, ClusterNames, ClusterNode } from './cluster.js'
import { seedSmall } from './cluster-documents.js'
import { backup, begin, download, END, leaseIsFree, playRounds } from './cluster-operations.js'
import { WrittenDocuments } from './cluster-written.js'
import type { PartResult } from './figures.js'
import { randomOf } from './random.js'
import type { ServerProcess } from './server-process.js'

const DOCUMENTS = 2000
const UPDATED = 150
const ADDED = 30
const DELETED = 30
/** Milliseconds after the start of a backup within which a node is killed. */
const KILL_WITHIN = 800

/** A backup as it is sent, with its documents as they are. */
interface Sent extends BackupSummary {
  dbs: Record<string, BackupSummary['dbs'][string] & { docs: { _id: string; _rev: string }[] }>
}

const NOTHING = {
  backups: 0,
  incremental: 0,
  acknowledged: 0,
  lost: 0,
  stale: 0,
  resurrected: 0,
  failed: 0,
  compared: 0,
  different: 0
}

interface Round {
  /** The node of the server that makes the backup. */
  own: ClusterNode
  other: ClusterNode
  third: ClusterNode
}

/**
 * Makes a chain of incremental backups while nodes are killed, lag, or lose their files, and while replicas of shards
 * answer that did not answer for the base. After each, the next backup of the chain is compared with a full one.
 */
export class Incremental {
  readonly #cluster: Cluster
  /** Command that deletes the files of a database on a node that is down. */
  readonly #forget: string | undefined
  readonly #counts = { ...NOTHING }
  readonly #full = new Map<string, number>()
  readonly #problems: string[] = []
  readonly #random = randomOf(15)
  readonly #rounds: Record<string, (round: Round) => Promise<void>> = {
    'another node is killed meanwhile': (round) => this.#killed(round, round.other),
    'the own node is killed meanwhile': (round) => this.#killed(round, round.own),
    'the own node is just back': (round) => this.#back(round, []),
    'the own node is just back, another one is killed': (round) => this.#back(round, [round.other]),
    'a node is back meanwhile, another one is killed': (round) => this.#exchanged(round),
    'a node is down, another than for the base': (round) => this.#down(round),
    'the own node has lost its files': (round) => this.#rebuilt(round, round.own),
    'another node has lost its files': (round) => this.#rebuilt(round, round.other)
  }
  #names!: ClusterNames
  #servers!: ServerProcess[]
  /** Makes full backups of the same databases into another one. */
  #beside!: { names: ClusterNames; server: ServerProcess }
  #written!: WrittenDocuments

  constructor(cluster: Cluster, forget?: string) {
    this.#cluster = cluster
    this.#forget = forget
    if (!forget)
      for (const name of Object.keys(this.#rounds)) if (/lost/.test(name)) delete this.#rounds[name]
  }

  async run(rounds: number): Promise<PartResult> {
    await this.#setUp()
    this.#counts.failed = await playRounds({
      cluster: this.#cluster,
      names: this.#names,
      rounds,
      kinds: this.#rounds,
      play: (kind, number) => this.#round(kind, number),
      problems: this.#problems
    })
    return this.#result()
  }

  async #setUp(): Promise<void> {
    const cluster = this.#cluster
    const [first] = cluster.nodes
    this.#names = await cluster.createDatabases()
    const { backups } = await cluster.createDatabases()
    await seedSmall(first!, this.#names, 30)
    this.#written = new WrittenDocuments(this.#names.components)
    await this.#written.write(first!, this.#written.added(DOCUMENTS))
    this.#servers = await cluster.startServers(this.#names)
    const names = { ...this.#names, backups }
    this.#beside = { names, server: await cluster.startServer(first!, names) }
    await backup(cluster, this.#names, this.#servers[0]!)
  }

  async #round(play: (round: Round) => Promise<void>, number: number): Promise<void> {
    const { nodes } = this.#cluster
    const [own, other, third] = [0, 1, 2].map((i) => nodes[(number + i) % nodes.length]!)
    await play({ own: own!, other: other!, third: third! })
    await this.#cluster.allUp()
    await this.#compare(third!)
  }

  /** Changes, adds and deletes documents through one node. */
  async #change(node: ClusterNode): Promise<void> {
    const updated = this.#written.updated(UPDATED + DELETED)
    const deleted = updated.splice(0, DELETED).map((doc) => ({ ...doc, _deleted: true as const }))
    await this.#written.write(node, deleted)
    await this.#written.write(node, [...updated, ...this.#written.added(ADDED)])
  }

  /** Makes a backup, plays something meanwhile, and looks for all that was acknowledged before it began. */
  async #backup(node: ClusterNode, meanwhile?: () => Promise<void>): Promise<void> {
    const server = this.#servers[node.number - 1]!
    const started = begin(this.#cluster, this.#names, END, () => server.post(''))
    const played = meanwhile?.()
    const { id, ended } = await started
    const { error } = await ended(END)
    await played
    if (error) throw new Error(error)
    this.#judge(await sent(server, id))
  }

  #judge({ dbs }: Sent): void {
    const { base, full_reason, docs } = dbs.athena_components!
    this.#counts.backups++
    if (base) this.#counts.incremental++
    else this.#full.set(String(full_reason), (this.#full.get(String(full_reason)) ?? 0) + 1)
    const { lost, stale, resurrected } = this.#written.missedIn(docs)
    const { revisions, deleted } = this.#written
    this.#counts.acknowledged += revisions.size + deleted.size
    this.#counts.lost += lost
    this.#counts.stale += stale
    this.#counts.resurrected += resurrected
    if (lost + stale + resurrected > 0)
      this.#problems.push(`${lost} documents lost, ${stale} stale, ${resurrected} deleted ones in the backup`)
  }

  /** Makes the next backup of the chain through this node, and compares it with a full one. */
  async #compare(node: ClusterNode): Promise<void> {
    const { names, server } = this.#beside
    const own = this.#servers[node.number - 1]!
    await leaseIsFree(this.#cluster, this.#names, END)
    const next = await sent(own, await backup(this.#cluster, this.#names, own))
    this.#judge(next)
    const full = await sent(server, await backup(this.#cluster, names, server, '/full'))
    this.#counts.compared++
    for (const [key, { docs }] of Object.entries(full.dbs)) {
      const problem = unequal(docs, next.dbs[key]?.docs ?? [])
      if (!problem) continue
      this.#counts.different++
      this.#problems.push(`${key}: ${problem}`)
    }
  }

  async #killed({ own, third }: Round, victim: ClusterNode): Promise<void> {
    await this.#change(third)
    await this.#backup(own, async () => {
      await delay(this.#random() * KILL_WITHIN)
      await this.#cluster.kill(victim)
      // the server can do nothing without the only node that it knows
      if (victim === own) await this.#cluster.start(own)
    })
  }

  /** Changes documents while the own node is down, and kills others as soon as it is back. */
  async #back({ own, other, third }: Round, victims: readonly ClusterNode[]): Promise<void> {
    await this.#cluster.kill(own)
    await this.#change(other)
    await this.#change(third)
    await this.#cluster.start(own)
    for (const victim of victims) await this.#cluster.kill(victim)
    await this.#backup(own)
  }

  /** Has a node come back during the backup, and kills another one as soon as it answers. */
  async #exchanged({ own, other, third }: Round): Promise<void> {
    await this.#cluster.kill(other)
    await this.#change(own)
    await this.#backup(own, async () => {
      await this.#cluster.start(other)
      await this.#cluster.kill(third)
    })
  }

  /** Makes one backup without one node, and the next without another. */
  async #down({ own, other, third }: Round): Promise<void> {
    await this.#cluster.kill(other)
    await this.#change(third)
    await this.#backup(own)
    await this.#cluster.start(other)
    await this.#cluster.kill(third)
    await this.#change(other)
    await this.#backup(own)
  }

  /** Deletes the files of the components on a node, and changes documents while it copies them from the others. */
  async #rebuilt({ own, other, third }: Round, victim: ClusterNode): Promise<void> {
    await this.#cluster.kill(victim)
    await promisify(exec)(`${this.#forget} ${victim.number} ${this.#names.components}`)
    await this.#change(victim === third ? other : third)
    await this.#cluster.start(victim)
    await this.#change(third)
    await this.#backup(own)
  }

  #result(): PartResult {
    const { backups, incremental, acknowledged, lost, stale, resurrected, failed, compared, different } =
      this.#counts
    const reasons = [...this.#full].map(([reason, count]) => `${count} ${reason}`).join(', ')
    return {
      problems: this.#problems,
      figures: [
        { what: 'backups over a base', value: backups },
        { what: 'of these incremental', value: incremental },
        { what: 'of these full', value: reasons || 0 },
        { what: 'documents and deletions acknowledged before, in all backups', value: acknowledged },
        { what: 'documents not in the backup', value: lost, bar: 0 },
        { what: 'documents in the backup at an earlier revision', value: stale, bar: 0 },
        { what: 'deleted documents in the backup', value: resurrected, bar: 0 },
        { what: 'backups that failed', value: failed, bar: 0 },
        { what: 'backups compared with a full one of the same moment', value: compared },
        { what: 'databases of these that differ in any byte', value: different, bar: 0 }
      ]
    }
  }
}

async function sent(server: ServerProcess, id: string): Promise<Sent> {
  return JSON.parse(String(await download(server, id, END)))
}

/** Tells how documents differ, in any byte. Empty when they do not. */
function unequal(expected: readonly { _id: string }[], found: readonly { _id: string }[]): string {
  const texts = new Map(found.map((doc) => [doc._id, JSON.stringify(doc)]))
  const missing = expected.filter(({ _id }) => !texts.has(_id)).length
  const other = expected.filter(
    (doc) => texts.has(doc._id) && texts.get(doc._id) !== JSON.stringify(doc)
  ).length
  const extra = found.length - (expected.length - missing)
  return missing + other + extra > 0 ? `${missing} missing, ${other} different, ${extra} too many` : ''
}
