import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setImmediate, setTimeout as wait } from 'node:timers/promises'
import nano from 'nano'
import type { Test } from 'tap'
import type { LogicalDatabase } from '../../types/index.js'
import { fetchAll, type TestDatabases } from './database.js'
import { randomOf } from './random.js'
import { type Call, type RawDocument, type Reply, route, serve, withLeaf } from './raw-couch.js'
import { Copy } from './simulated-copies.js'
import { answer, type Messenger } from './simulated-fabric.js'

export interface Schedule {
  /** Copies, one on each node. Default 3. */
  n?: number
  /** What delays are drawn from. */
  seed?: number
  /** Longest time, in milliseconds, of a request on its way to a copy. Default 0: at once, in the order of the copies. */
  delay?: number
  /** Longest time, in milliseconds, until a copy gives what it was written to the others. Default: only on demand. */
  merge?: number
}

/** What happens to requests instead of their answer. */
export interface Strike {
  method?: string
  /** Part of the request's target. */
  path: RegExp
  /** Requests that it happens to. Default one. */
  times?: number
  /** Whether the request takes effect nevertheless. */
  effect?: boolean
  /** The answer; `never`: none, while the connection stays open. */
  answer: 'never' | { status: number; error: string; reason?: string }
}

/**
 * A cluster of CouchDB nodes in memory, each with a copy of every database, which is one range. Requests to a node are
 * answered as fabric does: writes go to all copies, reads ask one of them or a quorum. What a real cluster leaves to
 * chance, a schedule draws.
 */
export interface SimulatedCluster {
  /** Of each node. */
  urls: string[]
  copies: readonly Copy[]
  /** Refuses connections and cuts those that there are. The node's copy keeps what it has. */
  down(node: number): Promise<void>
  /** Takes connections again. The copy catches up by merging. */
  up(node: number): Promise<void>
  /** Waits for what is on its way to the copies, then gives every copy that is up what the others have. */
  merge(): Promise<void>
  /** Lets a node's copy answer reads with what it has now. Returns what ends it. */
  freeze(node: number): () => void
  /** Lets requests fail. Returns what ends it. */
  strike(strike: Strike): () => void
  /** All requests that came, with their node. */
  requests: { node: number; method: string; target: string }[]
  /** Leaves of a document over all copies, without those that were deleted. */
  leaves(database: string, id: string): { rev: string; body: string }[]
  close(): Promise<void>
}

class Cluster implements SimulatedCluster, Messenger {
  readonly copies: Copy[]
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
    private readonly schedule: Schedule
  ) {
    this.copies = Array.from({ length: n }, (_, node) => new Copy(node))
    this.quorum = (n >> 1) + 1
    this.#draw = randomOf(schedule.seed ?? 0)
  }

  async start(): Promise<void> {
    for (const { node } of this.copies) await this.#listen(node, 0)
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
    for (const copy of this.copies) for (const name of copy.store.keys()) this.written(name, copy)
  }

  async close(): Promise<void> {
    this.#closed = true
    for (const { node } of this.copies) await this.down(node)
  }

  #isUp = (node: number) => this.#servers[node] !== undefined

  copyOf(node: number) {
    return { copy: this.copies[node]!, up: this.#isUp(node) }
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

  #anyDown = () => this.copies.some(({ node }) => !this.#isUp(node))

  /** Creates or deletes a database on all nodes, at once. Copies differ in what they hold and in how they count. */
  #database(name: string, call: Call): Reply {
    const first = new Map(this.copies[0]!.store)
    const reply = route(first, call)
    const made = first.get(name)
    const { n, quorum } = this
    for (const { node, store } of this.copies) {
      const own = {
        docs: new Map(),
        local: new Map(),
        cluster: { n, w: quorum, r: quorum },
        label: `copy${node}`
      }
      if (made) store.set(name, { ...made, ...own })
      else store.delete(name)
    }
    return reply
  }

  // Short delays are frequent, so that requests overtake each other now and then and not always.
  #delay = (longest: number) => Math.floor(this.#draw() ** 2 * (longest + 1))

  async ask<T, A>(
    work: (copy: Copy) => T,
    decide: (answers: readonly T[], waiting: number) => A | undefined
  ): Promise<A> {
    const asked = this.copies.filter(({ node }) => this.#isUp(node))
    const answers: T[] = []
    let waiting = asked.length
    return new Promise((resolve, reject) => {
      const arrive = async (copy: Copy) => {
        await this.#travel()
        waiting--
        if (this.#isUp(copy.node)) answers.push(work(copy))
        const decision = decide(answers, waiting)
        if (decision !== undefined) resolve(decision)
        else if (waiting === 0) reject(new Error('no copy answered'))
      }
      for (const copy of asked) {
        const arrival = arrive(copy)
          .catch(reject)
          .finally(() => this.#travelling.delete(arrival))
        this.#travelling.add(arrival)
      }
    })
  }

  #travel(): Promise<unknown> {
    const { delay = 0 } = this.schedule
    const time = this.#delay(delay)
    return time === 0 ? setImmediate() : wait(time)
  }

  written(name: string, copy: Copy): void {
    const { merge } = this.schedule
    if (merge === undefined) return
    for (const other of this.copies) if (other !== copy) this.#mergeSoon(name, copy, other, merge)
  }

  /** One merge at a time between two copies: what comes until it begins goes with it. */
  #mergeSoon(name: string, from: Copy, to: Copy, longest: number): void {
    const key = [name, from.node, to.node].join()
    if (this.#merging.has(key)) return
    this.#merging.add(key)
    setTimeout(() => {
      this.#merging.delete(key)
      this.#replicate(name, from, to)
    }, this.#delay(longest)).unref()
  }

  #replicate(name: string, from: Copy, to: Copy): void {
    if (this.#isUp(from.node) && this.#isUp(to.node) && !this.#closed) from.replicate(name, to)
  }

  async merge(): Promise<void> {
    await Promise.allSettled([...this.#travelling])
    for (const from of this.copies) {
      for (const to of this.copies) {
        for (const name of from === to ? [] : from.store.keys()) this.#replicate(name, from, to)
      }
    }
  }

  repair(name: string, documents: readonly RawDocument[]): void {
    for (const copy of this.copies) if (this.#isUp(copy.node)) copy.add(name, documents)
  }

  freeze(node: number): () => void {
    this.copies[node]!.freeze()
    return () => this.copies[node]!.thaw()
  }

  strike(strike: Strike): () => void {
    const active = { ...strike, left: strike.times ?? 1 }
    this.#strikes.add(active)
    return () => this.#strikes.delete(active)
  }

  leaves(database: string, id: string): { rev: string; body: string }[] {
    const all = this.copies.flatMap(({ store }) => store.get(database)?.docs.get(id)?.leaves ?? [])
    const live = all.reduce(withLeaf, [] as typeof all).filter(({ deleted }) => !deleted)
    return live.map(({ rev, body }) => ({ rev, body: body.toString() }))
  }
}

export async function startSimulatedCluster(schedule: Schedule = {}): Promise<SimulatedCluster> {
  const cluster = new Cluster(schedule.n ?? 3, schedule)
  await cluster.start()
  return cluster
}

const LOGICAL: readonly LogicalDatabase[] = ['components', 'sessions', 'system']

export interface ClusterDatabases {
  cluster: SimulatedCluster
  names: Record<LogicalDatabase, string>
  /** The databases as a host sees them that talks to this node. */
  on(node: number): TestDatabases
}

/** Three empty databases on a simulated cluster of their own, which ends with the test. */
export async function setupCluster(t: Test, schedule: Schedule = {}): Promise<ClusterDatabases> {
  const cluster = await startSimulatedCluster(schedule)
  t.teardown(() => cluster.close())
  const prefix = `t${randomBytes(4).toString('hex')}_`
  const names = Object.fromEntries(LOGICAL.map((name) => [name, prefix + name])) as ClusterDatabases['names']
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
