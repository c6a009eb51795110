import { setTimeout as delay } from 'node:timers/promises'
import nano from 'nano'
import type { PruneOutcome } from '../../types/index.js'
import type { Cluster, ClusterNames, ClusterNode } from './cluster.js'
import { MERGE, seedSmall } from './cluster-documents.js'
import { backup, digestOf, download, END, leaseIsFree, playRounds } from './cluster-operations.js'
import { WrittenDocuments } from './cluster-written.js'
import type { PartResult } from './figures.js'
import { poll } from './poll.js'
import { randomOf } from './random.js'
import type { ServerProcess, ServerReply } from './server-process.js'
import { StoredBackupsOf } from './stored-backups.js'

const DOCUMENTS = 600
/** Documents that are changed before each backup. */
const CHANGED = 100
/** Backups that are made in each round: the first is a full one. */
const MADE = 4
const KEPT = 2
/** Milliseconds after the start of a pruning within which a node is killed. */
const KILL_WITHIN = 1000

const NOTHING = { prunings: 0, ended: 0, asked: 0, harmed: 0, wrong: 0, left: 0, failed: 0 }

/** Prunes while something happens to nodes, of which the first is that of the server. */
type Play = (prune: () => Promise<ServerReply>, nodes: readonly ClusterNode[]) => Promise<void>

/** Prunes a chain of incremental backups while nodes are killed, lag, or come back. */
export class ClusterPrunes {
  readonly #cluster: Cluster
  readonly #counts = { ...NOTHING }
  readonly #problems: string[] = []
  readonly #random = randomOf(15)
  /** Digests of what each backup was sent as. */
  readonly #digests = new Map<string, string>()
  readonly #rounds: Record<string, Play> = {
    'another node is killed meanwhile': (prune, [, other]) => this.#killed(prune, other!, false),
    'the own node is killed meanwhile': (prune, [own]) => this.#killed(prune, own!, true),
    'the own node is just back': (prune, [own]) => this.#back(prune, own!),
    'a node is back meanwhile, another one is killed': (prune, [, other, third]) =>
      this.#exchanged(prune, other!, third!),
    'a node is killed meanwhile and comes back': (prune, [, other]) => this.#killed(prune, other!, true)
  }
  #names!: ClusterNames
  #servers!: ServerProcess[]
  #written!: WrittenDocuments
  #before = 0

  constructor(cluster: Cluster) {
    this.#cluster = cluster
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
    await seedSmall(first!, this.#names, 0)
    this.#written = new WrittenDocuments(this.#names.components)
    await this.#written.write(first!, this.#written.added(DOCUMENTS))
    this.#servers = await cluster.startServers(this.#names)
  }

  async #round(play: Play, number: number): Promise<void> {
    const { nodes } = this.#cluster
    const turned = nodes.map((_, i) => nodes[(number + i) % nodes.length]!)
    const server = this.#servers[turned[0]!.number - 1]!
    await this.#make(server)
    await this.#tidy()
    let reply: ServerReply | undefined
    const pruneOnce = async () => {
      reply = await server.post(`/prune-to/${KEPT}`)
      return reply
    }
    await play(pruneOnce, turned)
    this.#counts.prunings++
    await this.#cluster.allUp()
    await this.#judge(server, reply!)
    await this.#askAgain(server, reply!.status === 202)
  }

  /** Makes a full backup, and incremental ones that list its chunks. */
  async #make(server: ServerProcess): Promise<void> {
    const [first] = this.#cluster.nodes
    for (let i = 0; i < MADE; i++) {
      await this.#written.write(first!, this.#written.updated(CHANGED))
      const id = await backup(this.#cluster, this.#names, server, i === 0 ? '/full' : '')
      this.#digests.set(id, digestOf(await download(server, id, END)))
    }
  }

  #stored(node: ClusterNode): StoredBackupsOf {
    const { backups } = this.#names
    return new StoredBackupsOf({ couch: nano(node.url), names: this.#names } as never, backups)
  }

  /** Counts the parts before a pruning, through a node that has all. */
  async #count(node: ClusterNode): Promise<void> {
    this.#before = (await this.#stored(node).parts()).length
  }

  /** Waits until every node shows nothing that is wrong with what is stored. */
  async #tidy(): Promise<void> {
    let flaws: string[] = []
    const look = async () => {
      flaws = []
      for (const node of this.#cluster.nodes)
        flaws.push(
          ...(await this.#stored(node)
            .flaws()
            .catch((error: Error) => [error.message]))
        )
      return flaws.length === 0 ? true : undefined
    }
    await poll('nothing left', look, MERGE, 500).catch(() => {
      throw new Error(`${flaws.length} flaws, the first: ${flaws[0]}`)
    })
  }

  /** Compares what a pruning has told with what is there, and reads what stays. */
  async #judge(server: ServerProcess, { status, json }: ServerReply): Promise<void> {
    const ids = await this.#listed(server)
    const newest = [...this.#digests.keys()].sort().slice(-KEPT)
    if (newest.some((id) => !ids.includes(id))) this.#harmed(`${newest} of ${ids}`)
    for (const id of ids) await this.#read(server, id)
    if (status !== 202) return
    this.#counts.ended++
    const { kept, removed, parts } = json as PruneOutcome
    if (
      kept
        .map(({ id }) => id)
        .sort()
        .join() !== ids.join()
    )
      this.#wrong('kept', [kept, ids])
    if (removed.some(({ id }) => ids.includes(id))) this.#wrong('removed', [removed, ids])
    await this.#tidy()
    const gone = this.#before - (await this.#stored(this.#cluster.nodes[0]!).parts()).length
    if (parts !== gone) this.#wrong('parts', [parts, gone])
  }

  async #listed(server: ServerProcess): Promise<string[]> {
    const { json } = await server.get('')
    return [...json.ids].sort()
  }

  async #read(server: ServerProcess, id: string): Promise<void> {
    const digest = await download(server, id, END).then(digestOf, ({ message }: Error) => message)
    if (digest !== this.#digests.get(id)) this.#harmed(`${id}: ${digest}`)
  }

  /** Prunes again. All leftovers of the pruning before must be gone then. */
  async #askAgain(server: ServerProcess, hadEnded: boolean): Promise<void> {
    await leaseIsFree(this.#cluster, this.#names, END)
    if (!hadEnded) this.#counts.asked++
    const { status, json } = await server.post(`/prune-to/${KEPT}`)
    if (status !== 202) throw new Error(`pruning again: ${status} ${JSON.stringify(json)}`)
    const ids = await this.#listed(server)
    if (ids.length !== KEPT) this.#wrong('kept in the end', ids)
    for (const id of ids) await this.#read(server, id)
    await this.#tidy().catch((error: Error) => {
      this.#counts.left++
      this.#problems.push(`left in the end: ${error.message}`)
    })
    for (const id of this.#digests.keys()) if (!ids.includes(id)) this.#digests.delete(id)
  }

  async #killed(prune: () => Promise<ServerReply>, victim: ClusterNode, back: boolean): Promise<void> {
    await this.#count(victim)
    const pruned = prune()
    await delay(this.#random() * KILL_WITHIN)
    await this.#cluster.kill(victim)
    if (back) await this.#cluster.start(victim)
    await pruned
  }

  /** Makes further backups while the own node is down, and prunes through it as soon as it is back. */
  async #back(prune: () => Promise<ServerReply>, own: ClusterNode): Promise<void> {
    const other = this.#cluster.nodes.find((node) => node !== own)!
    await this.#cluster.kill(own)
    await this.#make(this.#servers[other.number - 1]!)
    await this.#count(other)
    await this.#cluster.start(own)
    await prune()
  }

  /** Has a node come back during the pruning that missed backups, and kills another one as soon as it answers. */
  async #exchanged(prune: () => Promise<ServerReply>, back: ClusterNode, victim: ClusterNode): Promise<void> {
    const own = this.#cluster.nodes.find((node) => node !== back && node !== victim)!
    await this.#cluster.kill(back)
    await this.#make(this.#servers[own.number - 1]!)
    await this.#count(own)
    const started = this.#cluster.start(back)
    const pruned = prune()
    await started
    await this.#cluster.kill(victim)
    await pruned
  }

  #harmed(what: string): void {
    this.#counts.harmed++
    this.#problems.push(`harmed: ${what}`)
  }

  #wrong(what: string, seen: unknown): void {
    this.#counts.wrong++
    this.#problems.push(`told wrongly, ${what}: ${JSON.stringify(seen)}`)
  }

  #result(): PartResult {
    const { prunings, ended, asked, harmed, wrong, left, failed } = this.#counts
    return {
      problems: this.#problems,
      figures: [
        { what: 'prunings during which a node was killed or came back', value: prunings },
        { what: 'of these ended with a success', value: ended },
        { what: 'of these failed, and were asked for again', value: asked },
        { what: 'backups harmed or gone that were to stay', value: harmed, bar: 0 },
        { what: 'successes that told of something else than what is there', value: wrong, bar: 0 },
        { what: 'rounds after which a second pruning left something', value: left, bar: 0 },
        { what: 'rounds that failed otherwise', value: failed, bar: 0 }
      ]
    }
  }
}
