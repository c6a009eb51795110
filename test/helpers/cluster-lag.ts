import type { SentBackup } from './api.js'
import type { Cluster, ClusterNames, ClusterNode } from './cluster.js'
import { conflicts, newest, seedSmall, sourcesDiffer } from './cluster-documents.js'
import { backup, begin, contentsOf, download, END, type Ended, leaseIsFree } from './cluster-operations.js'
import { WrittenDocuments } from './cluster-written.js'
import type { PartResult } from './figures.js'
import type { ServerProcess } from './server-process.js'

const DOCUMENTS = 400
/** Documents that are changed in each round while a node is down. */
const UPDATED = 300
const ADDED = 100
const DELETED = 50

const NOTHING = {
  rounds: 0,
  acknowledged: 0,
  lost: 0,
  stale: 0,
  failed: 0,
  dryRuns: 0,
  restores: 0,
  unchanged: 0,
  different: 0,
  leaves: 0
}

/**
 * Writes documents while a node is down, and begins an operation through that node as soon as it is back, when its
 * replicas do not have the documents yet.
 */
export class Lag {
  readonly #cluster: Cluster
  readonly #counts = { ...NOTHING }
  readonly #problems: string[] = []
  #names!: ClusterNames
  #servers!: ServerProcess[]
  #written!: WrittenDocuments

  constructor(cluster: Cluster) {
    this.#cluster = cluster
  }

  async backups(rounds: number): Promise<PartResult> {
    await this.#setUp()
    for (let round = 0; round < rounds; round++) await this.#backupRound(round)
    return this.#backupResult()
  }

  async restores(rounds: number): Promise<PartResult> {
    await this.#setUp()
    for (let round = 0; round < rounds; round++) await this.#restoreRound(round)
    return this.#restoreResult()
  }

  async #setUp(): Promise<void> {
    const cluster = this.#cluster
    const [first] = cluster.nodes
    this.#names = await cluster.createDatabases()
    await seedSmall(first!, this.#names, 0)
    this.#written = new WrittenDocuments(this.#names.components)
    await this.#written.write(first!, this.#written.added(DOCUMENTS))
    this.#servers = await cluster.startServers(this.#names)
  }

  /** Kills a node, lets `change` write documents meanwhile, and starts the node again. */
  async #without(node: ClusterNode, change: (up: ClusterNode[]) => Promise<void>): Promise<void> {
    await this.#cluster.whole()
    await this.#cluster.kill(node)
    await change(this.#cluster.up)
    await this.#cluster.start(node)
  }

  async #backupRound(round: number): Promise<void> {
    const node = this.#nodeOf(round)
    await this.#without(node, async (up) => {
      const updated = this.#written.updated(UPDATED)
      await this.#written.write(up[0]!, updated.slice(0, UPDATED / 2))
      await this.#written.write(up[1]!, [...updated.slice(UPDATED / 2), ...this.#written.added(ADDED)])
    })
    const started = await this.#begin(node, '')
    const { error } = await started.ended(END)
    this.#counts.rounds++
    if (error) return this.#failed(`backup round ${round}: ${error}`)
    await this.#compare(round, await download(this.#serverOf(node), started.id, END))
    await leaseIsFree(this.#cluster, this.#names)
  }

  async #compare(round: number, bytes: Buffer): Promise<void> {
    const { dbs } = JSON.parse(String(bytes)) as SentBackup
    const { lost, stale } = this.#written.missedIn(dbs.athena_components!.docs)
    this.#counts.acknowledged += this.#written.revisions.size
    this.#counts.lost += lost
    this.#counts.stale += stale
    if (lost + stale > 0) this.#note(`backup round ${round}: ${lost} documents lost, ${stale} stale`)
  }

  /** Plays a dry run or a restore, by turns, of a backup that was made before the node was killed. */
  async #restoreRound(round: number): Promise<void> {
    const node = this.#nodeOf(round)
    // replace the documents that the round before has deleted
    await this.#written.write(node, this.#written.added(DELETED))
    const before = await this.#backedUp(node)
    let differ = 0
    await this.#without(node, async (up) => {
      const deleted = this.#written.updated(DELETED).map((doc) => ({ ...doc, _deleted: true as const }))
      const updated = this.#written.updated(UPDATED + DELETED).slice(DELETED)
      differ = (await this.#written.write(up[0]!, deleted)) + (await this.#written.write(up[1]!, updated))
    })
    const dry = round % 2 === 0
    const started = await this.#begin(node, `/${before.id}${dry ? '/dry-run' : ''}`)
    const ended = await started.ended(END)
    this.#counts[dry ? 'dryRuns' : 'restores']++
    this.#judge(round, ended, before.size - differ)
    if (!dry) await this.#equal(round, before.contents)
    await leaseIsFree(this.#cluster, this.#names)
    await this.#readAgain(before.ids)
  }

  async #backedUp(node: ClusterNode) {
    const server = this.#serverOf(node)
    const id = await backup(this.#cluster, this.#names, server)
    const contents = contentsOf(await download(server, id, END))
    return { id, contents, size: contents[0]!.size, ids: [...contents[0]!.keys()] }
  }

  #judge(round: number, { error, transaction }: Ended, unchanged: number): void {
    if (error) this.#failed(`restore round ${round}: ${error}`)
    const told = transaction?.databases?.components?.unchanged ?? 0
    const tooMany = Math.max(0, told - unchanged)
    this.#counts.unchanged += tooMany
    if (tooMany > 0)
      this.#note(`restore round ${round}: ${tooMany} documents reported as unchanged that were not`)
  }

  async #equal(round: number, contents: Awaited<ReturnType<typeof contentsOf>>): Promise<void> {
    await this.#cluster.whole()
    const problem = await sourcesDiffer(this.#cluster.nodes[0]!, this.#names, contents)
    const leaves = await conflicts(this.#cluster, [this.#names.components])
    if (problem) this.#counts.different++
    this.#counts.leaves += leaves
    if (problem || leaves > 0) this.#note(`restore round ${round}: ${problem}, ${leaves} leaves in conflict`)
  }

  async #readAgain(ids: readonly string[]): Promise<void> {
    await this.#cluster.whole()
    this.#written.revisions.clear()
    const found = await newest(this.#cluster.nodes[0]!, this.#names.components, ids)
    for (const [id, rev] of found) this.#written.revisions.set(id, rev)
  }

  #begin(node: ClusterNode, path: string) {
    const server = this.#serverOf(node)
    return begin(this.#cluster, this.#names, END, () => (path ? server.put(path, {}) : server.post('')))
  }

  #nodeOf(round: number): ClusterNode {
    return this.#cluster.nodes[round % this.#cluster.nodes.length]!
  }

  #serverOf({ number }: ClusterNode): ServerProcess {
    return this.#servers[number - 1]!
  }

  #failed(what: string): void {
    this.#counts.failed++
    this.#note(what)
  }

  #note(problem: string): void {
    this.#problems.push(problem)
    console.error(problem)
  }

  #backupResult(): PartResult {
    const { rounds, acknowledged, lost, stale, failed } = this.#counts
    return {
      problems: this.#problems,
      figures: [
        { what: 'backups through a node that was just back', value: rounds },
        { what: 'documents acknowledged before, in all rounds', value: acknowledged },
        { what: 'of these not in the backup', value: lost, bar: 0 },
        { what: 'of these in the backup at an earlier revision', value: stale, bar: 0 },
        { what: 'of these backups failed', value: failed, bar: 0 }
      ]
    }
  }

  #restoreResult(): PartResult {
    const { dryRuns, restores, unchanged, different, leaves, failed } = this.#counts
    return {
      problems: this.#problems,
      figures: [
        { what: 'dry runs through a node that was just back', value: dryRuns },
        { what: 'restores through a node that was just back', value: restores },
        { what: 'documents told as unchanged that were not', value: unchanged, bar: 0 },
        { what: 'restores after which the databases differ from the backup', value: different, bar: 0 },
        { what: 'conflicting leaves after restores', value: leaves, bar: 0 },
        { what: 'dry runs and restores that failed', value: failed, bar: 0 }
      ]
    }
  }
}
