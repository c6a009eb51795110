import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setImmediate, setTimeout as wait } from 'node:timers/promises'
import nano from 'nano'
import type { Test } from 'tap'
import type { LogicalDatabase } from '../../types/index.js'
import { DATABASES, fetchAll, type TestDatabases } from './database.js'
import { randomOf } from './random.js'
import { type Call, type RawDocument, type Reply, route, serve, withLeaf } from './raw-couch.js'
import { answer, type Messenger } from './simulated-fabric.js'
import { Replica } from './simulated-replicas.js'

export interface Timing {
  /** Number of replicas, one on each node. Default 3. */
  n?: number
  /** Seed of the random delays. */
  seed?: number
  /** Longest delay, in milliseconds, of a request to a replica. Default 0: at once, in the order of the replicas. */
  delay?: number
  /** Longest time, in milliseconds, until a replica passes writes on to the others. Default: only on demand. */
  merge?: number
}

/** A fault that happens to requests. */
export interface Strike {
  method?: string
  /** Tested against the request's target. */
  path: RegExp
  /** Number of requests that the fault happens to. Default 1. */
  times?: number
  /** Lets the request take effect nevertheless. */
  effect?: boolean
  /** The answer. `never` sends none and keeps the connection open. */
  answer: 'never' | { status: number; error: string; reason?: string }
}

/**
 * A cluster of CouchDB nodes in memory, each with a replica of every database, which is one shard. Nodes answer requests
 * as CouchDB's `fabric` does: writes go to all replicas, reads to one replica or to a quorum. Its timing draws what a real
 * cluster leaves to chance.
 */
export interface SimulatedCluster {
  /** URL of each node. */
  urls: string[]
  replicas: readonly Replica[]
  /** Refuses new connections to a node and cuts the open ones. The node's replica keeps what it has. */
  down(node: number): Promise<void>
  /** Accepts connections to a node again. Its replica catches up by merging. */
  up(node: number): Promise<void>
  /** Waits for requests on their way to the replicas, then gives every replica that is up what the others have. */
  merge(): Promise<void>
  /** Lets a node's replica answer reads with what it has now, until the returned function is called. */
  freeze(node: number): () => void
  /** Lets requests fail, until the returned function is called. */
  strike(strike: Strike): () => void
  /** All requests so far, with their node. */
  requests: { node: number; method: string; target: string }[]
  /** Returns the live leaves of a document in all replicas. */
  leaves(database: string, id: string): { rev: string; body: string }[]
  close(): Promise<void>
}

class InMemoryCluster implements SimulatedCluster, Messenger {
  readonly replicas: Replica[]
  readonly requests: SimulatedCluster['requests'] = []
  readonly quorum: number
  urls: string[] = []
  #servers: (Server | undefined)[] = []
  #strikes = new Set<Strike & { left: number }>()
  #merging = new Set<string>()
  #travelling = new Set<Promise<void>>()
  #closed = false
  readonly #draw: () => number

  constructor(
    readonly n: number,
    private readonly timing: Timing
  ) {
    this.replicas = Array.from({ length: n }, (_, node) => new Replica(node))
    this.quorum = (n >> 1) + 1
    this.#draw = randomOf(timing.seed ?? 0)
  }

  async start(): Promise<void> {
    for (const { node } of this.replicas) await this.#listen(node, 0)
    this.urls = this.#servers.map((server) => `http://127.0.0.1:${(server!.address() as AddressInfo).port}`)
  }

  async #listen(node: number, port: number): Promise<void> {
    const server = createServer((request, response) => {
      this.requests.push({ node, method: request.method ?? '', target: request.url ?? '' })
      serve(request, response, (call) => this.#answer(call, request.url ?? ''))
    })
    server.listen(port, '127.0.0.1')
    await once(server, 'listening')
    this.#servers[node] = server
  }

  async down(node: number): Promise<void> {
    const server = this.#servers[node]
    this.#servers[node] = undefined
    server?.close()
    server?.closeAllConnections()
    if (server) await once(server, 'close')
  }

  async up(node: number): Promise<void> {
    if (this.#isUp(node)) return
    await this.#listen(node, Number(new URL(this.urls[node]!).port))
    for (const replica of this.replicas) for (const name of replica.store.keys()) this.written(name, replica)
  }

  async close(): Promise<void> {
    this.#closed = true
    for (const { node } of this.replicas) await this.down(node)
  }

  #isUp = (node: number) => this.#servers[node] !== undefined

  replicaOf(node: number) {
    return { replica: this.replicas[node]!, up: this.#isUp(node) }
  }

  async #answer(call: Call, target: string): Promise<Reply | null> {
    const strike = [...this.#strikes].find(
      ({ method, path, left }) => left > 0 && (method ?? call.method) === call.method && path.test(target)
    )
    if (!strike) return this.#perform(call)
    strike.left--
    if (strike.effect) await this.#perform(call)
    if (strike.answer === 'never') return null
    const { status, ...json } = strike.answer
    return { status, json }
  }

  async #perform(call: Call): Promise<Reply | null> {
    const [name, first] = call.path
    if (name && !first && ['PUT', 'DELETE'].includes(call.method)) return this.#database(name, call)
    const stalls = call.request.headers['content-type']?.startsWith('multipart/related') && this.#anyDown()
    const reply = await answer(this, call)
    return stalls ? null : reply
  }

  #anyDown = () => this.replicas.some(({ node }) => !this.#isUp(node))

  /** Creates or deletes a database on all nodes at once. Each replica has documents and sequences of its own. */
  #database(name: string, call: Call): Reply {
    const first = new Map(this.replicas[0]!.store)
    const reply = route(first, call)
    const made = first.get(name)
    const { n, quorum } = this
    for (const { node, store } of this.replicas) {
      const own = {
        docs: new Map(),
        local: new Map(),
        cluster: { n, w: quorum, r: quorum },
        label: `replica${node}`,
        // a node answers sequences of the others by their numbers
        incarnation: ''
      }
      if (made) store.set(name, { ...made, ...own })
      else store.delete(name)
    }
    return reply
  }

  // squared, since with many short delays requests overtake each other only now and then
  #delay = (longest: number) => Math.floor(this.#draw() ** 2 * (longest + 1))

  async ask<T, A>(
    work: (replica: Replica) => T,
    decide: (answers: readonly T[], waiting: number) => A | undefined
  ): Promise<A> {
    const asked = this.replicas.filter(({ node }) => this.#isUp(node))
    const answers: T[] = []
    let waiting = asked.length
    return new Promise((resolve, reject) => {
      const arrive = async (replica: Replica) => {
        await this.#travel()
        waiting--
        if (this.#isUp(replica.node)) answers.push(work(replica))
        const decision = decide(answers, waiting)
        if (decision !== undefined) resolve(decision)
        else if (waiting === 0) reject(new Error('no replica answered'))
      }
      for (const replica of asked) {
        const arrival = arrive(replica)
          .catch(reject)
          .finally(() => this.#travelling.delete(arrival))
        this.#travelling.add(arrival)
      }
    })
  }

  #travel(): Promise<unknown> {
    const { delay = 0 } = this.timing
    const time = this.#delay(delay)
    return time === 0 ? setImmediate() : wait(time)
  }

  written(name: string, replica: Replica): void {
    const { merge } = this.timing
    if (merge === undefined) return
    for (const other of this.replicas) if (other !== replica) this.#mergeSoon(name, replica, other, merge)
  }

  /** Plans a merge between two replicas, unless one is planned already, which will include the new writes. */
  #mergeSoon(name: string, from: Replica, to: Replica, longest: number): void {
    const key = [name, from.node, to.node].join()
    if (this.#merging.has(key)) return
    this.#merging.add(key)
    setTimeout(() => {
      this.#merging.delete(key)
      this.#replicate(name, from, to)
    }, this.#delay(longest)).unref()
  }

  #replicate(name: string, from: Replica, to: Replica): void {
    if (this.#isUp(from.node) && this.#isUp(to.node) && !this.#closed) from.replicate(name, to)
  }

  async merge(): Promise<void> {
    await Promise.allSettled([...this.#travelling])
    for (const from of this.replicas) {
      for (const to of this.replicas) {
        for (const name of from === to ? [] : from.store.keys()) this.#replicate(name, from, to)
      }
    }
  }

  repair(name: string, documents: readonly RawDocument[]): void {
    for (const replica of this.replicas) if (this.#isUp(replica.node)) replica.add(name, documents)
  }

  freeze(node: number): () => void {
    this.replicas[node]!.freeze()
    return () => this.replicas[node]!.thaw()
  }

  strike(strike: Strike): () => void {
    const active = { ...strike, left: strike.times ?? 1 }
    this.#strikes.add(active)
    return () => this.#strikes.delete(active)
  }

  leaves(database: string, id: string): { rev: string; body: string }[] {
    const all = this.replicas.flatMap(({ store }) => store.get(database)?.docs.get(id)?.leaves ?? [])
    const live = all.reduce(withLeaf, [] as typeof all).filter(({ deleted }) => !deleted)
    return live.map(({ rev, body }) => ({ rev, body: body.toString() }))
  }
}

/** Starts a simulated cluster without databases. */
export async function startSimulatedCluster(timing: Timing = {}): Promise<SimulatedCluster> {
  const cluster = new InMemoryCluster(timing.n ?? 3, timing)
  await cluster.start()
  return cluster
}

export interface ClusterDatabases {
  cluster: SimulatedCluster
  names: Record<LogicalDatabase, string>
  /** Returns the databases as a host sees them through this node. */
  on(node: number): TestDatabases
}

/** Creates three empty databases on a simulated cluster of their own, which closes when the test ends. */
export async function setupCluster(t: Test, timing: Timing = {}): Promise<ClusterDatabases> {
  const cluster = await startSimulatedCluster(timing)
  t.teardown(() => cluster.close())
  const prefix = `t${randomBytes(4).toString('hex')}_`
  const names = Object.fromEntries(
    DATABASES.map((name) => [name, prefix + name])
  ) as ClusterDatabases['names']
  for (const name of Object.values(names)) await nano(cluster.urls[0]!).db.create(name)
  return {
    cluster,
    names,
    on(node) {
      const url = cluster.urls[node % cluster.urls.length]!
      const couch = nano(url)
      return { couch, url, names, real: false, fetchAll: (database) => fetchAll(couch, database) }
    }
  }
}
