import { setTimeout as delay } from 'node:timers/promises'
import type { Cluster, ClusterNames } from './cluster.js'
import { conflicts, seedSmall } from './cluster-documents.js'
import { type Accepted, accepted, backup, type Ended, leaseIsFree } from './cluster-operations.js'
import { median, type PartResult, seconds } from './figures.js'
import type { ServerProcess, ServerReply } from './server-process.js'

/** Milliseconds that an operation on small databases may take. The lease of a dead instance ends within them. */
const END = 90_000
/** Milliseconds that replicas have to merge before conflicts are counted. */
const MERGE = 5000
/** A restore races backups in every fifth round. */
const RESTORE_EVERY = 5

const NOTHING = { rounds: 0, holders: 0, nobody: 0, failures: 0, odd: 0, left: 0, inTurn: 0 }

/** Starts operations on three servers at the same time, each on a node of its own, again and again. */
export class Races {
  readonly #cluster: Cluster
  readonly #problems: string[] = []
  readonly #counts = { ...NOTHING }
  readonly #replyTimes: number[] = []
  readonly #roundTimes: number[] = []
  #names!: ClusterNames
  #servers!: ServerProcess[]

  constructor(cluster: Cluster) {
    this.#cluster = cluster
  }

  async run(rounds: number): Promise<PartResult> {
    const cluster = this.#cluster
    const [first] = cluster.nodes
    this.#names = await cluster.createDatabases()
    await seedSmall(first!, this.#names)
    this.#servers = await cluster.startServers(this.#names)
    const id = await backup(cluster, this.#names, this.#servers[0]!)
    for (let round = 1; round <= rounds; round++) await this.#round(round, id)
    return this.#result(await this.#leaves())
  }

  async #round(round: number, id: string): Promise<void> {
    const startedAt = Date.now()
    const { replies, operations } = await this.#start(round, id)
    this.#replyTimes.push(Date.now() - startedAt)
    const ended = await Promise.all(operations.map((operation) => this.#end(round, operation)))
    this.#counts.rounds++
    this.#judge(round, replies, operations, ended)
    this.#roundTimes.push(Date.now() - startedAt)
    if (round % 25 === 0) console.error(`${round} rounds`)
    if (await leaseIsFree(this.#cluster, this.#names)) return
    this.#note('left', round, 'the lease was not given back within 10 s')
    await leaseIsFree(this.#cluster, this.#names, END)
  }

  /** Returns which server restores in this round while the others back up, or -1 when all back up. */
  #restoring(round: number): number {
    return round % RESTORE_EVERY === 0 ? (round / RESTORE_EVERY) % this.#servers.length : -1
  }

  async #start(round: number, id: string): Promise<{ replies: ServerReply[]; operations: Accepted[] }> {
    const operations: Accepted[] = []
    const asked = this.#servers.map(async (server, i) => {
      const reply = await (i === this.#restoring(round) ? server.put(`/${id}`, {}) : server.post(''))
      if (reply.status === 202) operations.push(accepted(this.#cluster, this.#names, reply))
      return reply
    })
    return { replies: await Promise.all(asked), operations }
  }

  async #end(round: number, operation: Accepted): Promise<Ended> {
    const ended = await operation
      .ended(END)
      .catch((error: Error) => ({ at: Date.now(), error: error.message }))
    if (ended.error) this.#note('failures', round, ended.error)
    return ended
  }

  #judge(round: number, replies: ServerReply[], operations: Accepted[], ended: Ended[]): void {
    if (operations.length === 0) this.#note('nobody', round, JSON.stringify(replies.map(({ json }) => json)))
    if (operations.length > 1)
      this.#note(overlap(operations, ended) ? 'holders' : 'inTurn', round, 'two accepted')
    for (const { status, json } of replies) {
      const refusal = status === 400 && /_in_progress$/.test(json.message)
      if (status !== 202 && !refusal) this.#note('odd', round, `${status} ${JSON.stringify(json)}`)
    }
  }

  #note(count: keyof typeof NOTHING, round: number, what: string): void {
    this.#counts[count]++
    const problem = `round ${round}, ${count}: ${what}`
    this.#problems.push(problem)
    console.error(problem)
  }

  async #leaves(): Promise<number> {
    await delay(MERGE)
    return conflicts(this.#cluster, Object.values(this.#names))
  }

  #result(leaves: number): PartResult {
    const { rounds, holders, nobody, failures, odd, left, inTurn } = this.#counts
    return {
      problems: this.#problems,
      figures: [
        { what: 'rounds of three simultaneous starts', value: rounds },
        { what: 'rounds with two holders', value: holders, bar: 0 },
        { what: 'rounds in which nobody was accepted, though nothing ran', value: nobody, bar: 0 },
        { what: 'operations that failed, though no fault was played', value: failures, bar: 0 },
        { what: 'other replies than accepted and in progress', value: odd, bar: 0 },
        { what: 'leases not given back within 10 s', value: left, bar: 0 },
        { what: 'conflicting leaves left, in all databases', value: leaves, bar: 0 },
        { what: 'rounds in which a second operation followed the first', value: inTurn },
        { what: 'time until all three have a reply, median', value: seconds(median(this.#replyTimes)) },
        { what: 'time until all three have a reply, longest', value: seconds(Math.max(...this.#replyTimes)) },
        { what: 'time of a round, median', value: seconds(median(this.#roundTimes)) },
        { what: 'time of a round, longest', value: seconds(Math.max(...this.#roundTimes)) }
      ]
    }
  }
}

/** Tells whether operations overlapped. Each holds the lease at least from its 202 to the end that it records. */
function overlap(operations: readonly Accepted[], ended: readonly Ended[]): boolean {
  const spans = operations.map(({ at }, i) => [at, ended[i]!.at] as const).sort(([a], [b]) => a - b)
  return spans.some(([, end], i) => i + 1 < spans.length && spans[i + 1]![0] < end)
}
