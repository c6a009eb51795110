import { setTimeout as delay } from 'node:timers/promises'
import type { Cluster, ClusterNames, ClusterNode } from './cluster.js'
import { conflicts, readSources, seedLarge, seedSmall, sourcesDiffer } from './cluster-documents.js'
import {
  backup,
  begin,
  contentsOf,
  digestOf,
  download,
  leaseIsFree,
  untilServed
} from './cluster-operations.js'
import { median, type PartResult, seconds, table } from './figures.js'
import { difference, type Fingerprints } from './fingerprints.js'
import { bytesOf } from './seed.js'
import type { ServerProcess } from './server-process.js'

/** Milliseconds that an operation may take while a node is killed. */
const END = 150_000
/** Bytes of the large attachment. */
const LARGE = 30_000_000
/** Bytes of an appended attachment. The plugin's limit is 32 MiB. */
const APPENDED = 32_000_000
/** Bytes per second of a download. A faster one would end before a node can be killed. */
const DOWNLOAD_RATE = 10_000_000
/** Milliseconds until the node that the server uses comes back. */
const BACK_AFTER = 6000
/** Runs with all nodes up, whose median the others are compared with. */
const BASELINE_RUNS = 3
/**
 * Shares of the time that an operation takes with all nodes up, after which the node is killed. When the operation ends
 * before, the next share is tried; a negative one kills the node before the operation begins.
 */
const KILL_AT = [0.3, 0.1, -1]
/** How many times as long an operation may take as with all nodes up. */
const RATIO = 1.5

/** Operations during which nodes are killed. */
export const KILLED = ['backup', 'restore', 'get', 'append'] as const
type KilledOperation = (typeof KILLED)[number]

interface Prepared {
  /** Runs the operation, and returns how often the client had to ask again. */
  run(): Promise<number>
  /** Returns what is wrong, or an empty text. */
  verify(): Promise<string>
}

interface Kill {
  node: ClusterNode
  /** Milliseconds after the start of the operation. A negative number means before the start. */
  after: number
  /** Milliseconds until the node comes back. Default: when the operation has ended. */
  back?: number
}

interface Timed {
  ms: number
  /** Milliseconds during which the killed node did not answer. */
  outage: number
  retries: number
  problem: string
  /** Whether the node was killed before the operation had ended. */
  killed: boolean
}

interface Row {
  operation: string
  node: string
  own: boolean
  ms: number
  ratio: number
  retries: number
  problem: string
}

/** Kills each node in turn while one server, on the first node, backs up, restores, reads and appends. */
export class Kills {
  readonly #cluster: Cluster
  readonly #node: ClusterNode
  readonly #rows: Row[] = []
  readonly #operations: Record<KilledOperation, () => Promise<Prepared>> = {
    backup: () => this.#backup(),
    restore: () => this.#restore(),
    get: () => this.#get(),
    append: () => this.#append()
  }
  #names!: ClusterNames
  #server!: ServerProcess
  /** A second, small set of databases, for the backups that are appended to. */
  #small!: { names: ClusterNames; server: ServerProcess }
  #expected!: Fingerprints[]
  /** Id of a backup of the first set, with the large attachment. */
  #id!: string

  /** Number of documents in the components database. */
  readonly #documents: number

  constructor(cluster: Cluster, documents: number) {
    this.#cluster = cluster
    this.#documents = documents
    this.#node = cluster.nodes[0]!
  }

  async run(names: readonly KilledOperation[]): Promise<PartResult> {
    await this.#setUp()
    for (const name of names) await this.#operation(name, this.#operations[name])
    return this.#result()
  }

  async #setUp(): Promise<void> {
    const cluster = this.#cluster
    this.#names = await cluster.createDatabases()
    await seedSmall(this.#node, this.#names, this.#documents)
    await seedLarge(this.#node, this.#names.components, LARGE)
    this.#expected = await readSources(this.#node, this.#names)
    this.#server = await cluster.startServer(this.#node, this.#names)
    this.#id = await backup(cluster, this.#names, this.#server)
    const names = await cluster.createDatabases()
    await seedSmall(this.#node, names)
    this.#small = { names, server: await cluster.startServer(this.#node, names) }
  }

  async #operation(name: string, prepare: () => Promise<Prepared>): Promise<void> {
    const times: number[] = []
    for (let run = 0; run < BASELINE_RUNS; run++) {
      const { ms, retries, problem } = await this.#timed(await prepare())
      times.push(ms)
      if (problem) this.#add({ operation: name, node: 'none', own: false, ms, ratio: 1, retries, problem })
    }
    const baseline = median(times)
    this.#add({ operation: name, node: 'none', own: false, ms: baseline, ratio: 1, retries: 0, problem: '' })
    // kill the server's own node last
    for (const node of [...this.#cluster.nodes].reverse()) await this.#killed(name, prepare, node, baseline)
  }

  async #killed(
    operation: string,
    prepare: () => Promise<Prepared>,
    node: ClusterNode,
    baseline: number
  ): Promise<void> {
    const own = node === this.#node
    for (const share of KILL_AT) {
      const { killed, ...timed } = await this.#timed(await prepare(), {
        node,
        after: baseline * share,
        back: own ? BACK_AFTER : undefined
      })
      if (!killed && !timed.problem) continue
      // the server can do nothing while the only node that it knows is down
      const ratio = (timed.ms - (own ? timed.outage : 0)) / baseline
      this.#add({ operation, node: String(node.number), own, ratio, ...timed })
      if (timed.problem) await this.#renew()
      return
    }
  }

  /**
   * Kills the node, and starts it again after its time or when the operation has ended.
   * @returns whether it was killed before the operation ended, and the milliseconds until it answered again
   */
  async #play(
    { node, after, back }: Kill,
    running: Promise<unknown>
  ): Promise<Pick<Timed, 'killed' | 'outage'>> {
    let ended = false
    const end = running.then(() => {
      ended = true
    })
    await delay(Math.max(0, after))
    // the node is gone before the command that kills it has ended
    const killedAt = performance.now()
    if (after >= 0) await this.#cluster.kill(node)
    const killed = after < 0 || !ended
    await (back === undefined ? end : delay(back))
    await this.#cluster.start(node)
    return { killed, outage: performance.now() - killedAt }
  }

  /** Runs an operation, kills a node meanwhile, and verifies what the operation did. */
  async #timed({ run, verify }: Prepared, kill?: Kill): Promise<Timed> {
    if (kill && kill.after < 0) await this.#cluster.kill(kill.node)
    const startedAt = performance.now()
    const running = run().then(
      (retries) => ({ retries, problem: '', ms: performance.now() - startedAt }),
      ({ message }: Error) => ({ retries: 0, problem: message, ms: performance.now() - startedAt })
    )
    const played = kill ? await this.#play(kill, running) : { killed: false, outage: 0 }
    const ended = await running
    await this.#cluster.whole()
    const verified = await verify().catch(({ message }: Error) => message)
    return { ...ended, ...played, problem: [ended.problem, verified].filter(Boolean).join('; ') }
  }

  #add(row: Row): void {
    this.#rows.push(row)
    console.error(line(row).join(', '))
  }

  /** Restarts the servers, so that an operation that hangs or failed does not affect the next one. */
  async #renew(): Promise<void> {
    for (const server of [this.#server, this.#small.server]) {
      server.signal('SIGKILL')
      await server.exited
    }
    this.#server = await this.#cluster.startServer(this.#node, this.#names)
    this.#small.server = await this.#cluster.startServer(this.#node, this.#small.names)
    for (const names of [this.#names, this.#small.names]) {
      if (!(await leaseIsFree(this.#cluster, names, END))) throw new Error('the lease does not become free')
    }
  }

  async #backup(): Promise<Prepared> {
    let id = ''
    return {
      run: async () => {
        const started = await begin(this.#cluster, this.#names, END, () => this.#server.post(''))
        id = started.id
        await succeeds(started)
        return started.retries
      },
      verify: async () => {
        const found = contentsOf(await download(this.#server, id, END))
        await leaseIsFree(this.#cluster, this.#names)
        return found.map((prints, i) => difference(this.#expected[i]!, prints)).join('')
      }
    }
  }

  /** Creates new databases, and starts a server for them, to restore into. */
  async #restore(): Promise<Prepared> {
    const cluster = this.#cluster
    const names = await cluster.createDatabases(this.#names.backups)
    const server = await cluster.startServer(this.#node, names)
    const sources = [names.components, names.sessions, names.system]
    return {
      run: async () => {
        const started = await begin(cluster, names, END, () => server.put(`/${this.#id}`, {}))
        await succeeds(started)
        return started.retries
      },
      verify: async () => {
        server.signal('SIGTERM')
        const differ = await sourcesDiffer(this.#node, names, this.#expected)
        const leaves = await conflicts(cluster, sources)
        await cluster.drop(...sources)
        await leaseIsFree(cluster, this.#names)
        return [differ, leaves > 0 && `${leaves} leaves in conflict`].filter(Boolean).join('; ')
      }
    }
  }

  async #get(): Promise<Prepared> {
    const expected = digestOf(await download(this.#server, this.#id, END))
    let found = ''
    return {
      run: async () => {
        const { value, retries } = await untilServed(END, () =>
          download(this.#server, this.#id, END, DOWNLOAD_RATE)
        )
        found = digestOf(value)
        return retries
      },
      verify: async () => (found === expected ? '' : 'the bytes differ from those before')
    }
  }

  async #append(): Promise<Prepared> {
    const { names, server } = this.#small
    const id = await backup(this.#cluster, names, server)
    const attachment = bytesOf(id, APPENDED).toString('base64').slice(0, APPENDED)
    return {
      run: async () => {
        const { retries } = await untilServed(END, async () => {
          const { status, json } = await server.put(`/${id}/attachments/appended`, { attachment })
          if (status >= 400 && status < 500) throw new Error(JSON.stringify(json))
          return status === 200 ? true : undefined
        })
        return retries
      },
      verify: async () => {
        const { _attachments } = JSON.parse(String(await download(server, id, END)))
        const found = Buffer.from(_attachments?.appended ?? '', 'base64').toString()
        return found === attachment ? '' : 'the attachment is not there'
      }
    }
  }

  #result(): PartResult {
    const killed = this.#rows.filter(({ node }) => node !== 'none')
    const largest = (of: readonly Row[]) => Math.max(...of.map(({ ratio }) => ratio)).toFixed(2)
    const wrong = this.#rows.filter(({ problem }) => problem)
    const head = ['operation', 'node killed', 'time', 'ratio', 'asked again', 'outcome']
    return {
      tables: [table(head, this.#rows.map(line))],
      problems: wrong.map((row) => line(row).join(', ')),
      figures: [
        { what: 'operations during which a node was killed', value: killed.length },
        { what: 'of these with a wrong outcome', value: wrong.length, bar: 0 },
        {
          what: 'largest ratio of times, node left down',
          value: largest(killed.filter(({ own }) => !own)),
          bar: RATIO
        },
        {
          what: "largest ratio of times, the server's own node, without the time that it was away",
          value: largest(killed.filter(({ own }) => own)),
          bar: RATIO
        }
      ]
    }
  }
}

async function succeeds(started: Awaited<ReturnType<typeof begin>>): Promise<void> {
  const { error } = await started.ended(END)
  if (error) throw new Error(error)
}

function line({ operation, node, own, ms, ratio, retries, problem }: Row): string[] {
  const which = own ? `${node}, the server's own, back after ${BACK_AFTER / 1000} s` : node
  return [operation, which, seconds(ms), ratio.toFixed(2), String(retries), problem || 'right']
}
