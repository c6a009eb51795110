import { exec } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { promisify } from 'node:util'
import type { DatabaseNames } from '../../types/index.js'
import { poll } from './poll.js'
import { type ServerProcess, startServer } from './server-process.js'

/** Milliseconds that a call to a node, or a command, may take. */
const PATIENCE = 120_000
/** Milliseconds that a server may take to reply. The plugin replies sooner, whatever the database does. */
const REPLY = 200_000

/** Names of all four databases. */
export type ClusterNames = Required<DatabaseNames>

/** One node of the cluster, by its own URL. */
export class ClusterNode {
  readonly number: number
  readonly url: string

  constructor(number: number, url: string) {
    this.number = number
    this.url = url.replace(/\/$/, '')
  }

  /**
   * Sends a request. Tries again when the connection dates from before the node was killed.
   * @throws on a failure of the network, and on a status of 400 and above
   */
  async json<T = unknown>(method: string, path: string, body?: object): Promise<T> {
    try {
      return await this.#send<T>(method, path, body)
    } catch (error) {
      if (!/UND_ERR_SOCKET|ECONNRESET/.test(String((error as { cause?: { code?: string } }).cause?.code)))
        throw error
      return this.#send<T>(method, path, body)
    }
  }

  async #send<T>(method: string, path: string, body?: object): Promise<T> {
    const { origin, pathname, username, password } = new URL(this.url)
    const credentials = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`
    const reply = await fetch(`${origin}${pathname.replace(/\/$/, '')}/${path}`, {
      method,
      signal: AbortSignal.timeout(PATIENCE),
      headers: {
        accept: 'application/json',
        authorization: `Basic ${Buffer.from(credentials).toString('base64')}`,
        ...(body && { 'content-type': 'application/json' })
      },
      body: body && JSON.stringify(body)
    })
    const text = await reply.text()
    if (!reply.ok) throw new Error(`${method} ${path} on node ${this.number}: ${reply.status} ${text}`)
    return JSON.parse(text)
  }

  /** Reads, and tries again after a failure, since the node may just have been killed or started. */
  async read<T>(path: string): Promise<T> {
    return poll(`node ${this.number}`, () => this.json<T>('GET', path).catch(() => undefined), 30_000, 200)
  }
}

/** The cluster under test: its nodes, the commands for them, and what a part of the run has created. */
export class Cluster {
  readonly nodes: ClusterNode[]
  readonly #kill: string
  readonly #start: string
  readonly #down = new Set<ClusterNode>()
  readonly #databases = new Set<string>()
  readonly #teardowns: (() => unknown)[] = []

  constructor(urls: readonly string[], kill: string, start: string) {
    this.nodes = urls.map((url, i) => new ClusterNode(i + 1, url))
    this.#kill = kill
    this.#start = start
  }

  /** Returns the nodes that run. */
  get up(): ClusterNode[] {
    return this.nodes.filter((node) => !this.#down.has(node))
  }

  async kill(node: ClusterNode): Promise<void> {
    this.#down.add(node)
    await command(this.#kill, node)
  }

  /** Starts a node, and waits until it answers. Its replicas may lag. */
  async start(node: ClusterNode): Promise<void> {
    await command(this.#start, node)
    this.#down.delete(node)
  }

  /** Starts the nodes that are down, and waits until the cluster is whole. */
  async allUp(): Promise<void> {
    for (const node of this.nodes) if (!this.up.includes(node)) await this.start(node)
    await this.whole()
  }

  /** Waits until every node is connected to every other one. */
  async whole(): Promise<void> {
    await poll('a whole cluster', async () => ((await this.#isWhole()) ? true : undefined), 60_000, 200)
  }

  async #isWhole(): Promise<boolean> {
    const members = this.nodes.map((node) => node.read<{ all_nodes: string[] }>('_membership'))
    return (await Promise.all(members)).every(({ all_nodes }) => all_nodes.length === this.nodes.length)
  }

  /** Creates three source databases, and a backups database unless `backups` names one. */
  async createDatabases(backups?: string): Promise<ClusterNames> {
    const prefix = `t${randomBytes(6).toString('hex')}_`
    const own = {
      components: `${prefix}components`,
      sessions: `${prefix}sessions`,
      system: `${prefix}system`
    }
    const names = { ...own, backups: backups ?? `${prefix}backups` }
    for (const name of new Set(Object.values(names))) if (name !== backups) await this.#create(name)
    return names
  }

  async #create(name: string): Promise<void> {
    this.#databases.add(name)
    await this.up[0]!.json('PUT', name)
    for (const node of this.up) await node.read(name)
  }

  /** Starts a server process that uses this node. */
  startServer(node: ClusterNode, databases: ClusterNames): Promise<ServerProcess> {
    const teardown = (end?: () => unknown) => void (end && this.#teardowns.push(end))
    return startServer({ teardown } as Parameters<typeof startServer>[0], { url: node.url, databases }, REPLY)
  }

  /** Starts a server process on each node. */
  startServers(databases: ClusterNames): Promise<ServerProcess[]> {
    return Promise.all(this.nodes.map((node) => this.startServer(node, databases)))
  }

  /** Ends the servers, starts the killed nodes, and deletes the databases. */
  async cleanUp(): Promise<void> {
    for (const end of this.#teardowns.splice(0)) await end()
    for (const node of [...this.#down]) await this.start(node)
    for (const name of this.#databases) await this.drop(name)
  }

  async drop(...names: string[]): Promise<void> {
    for (const name of names) {
      await poll(`${name} deleted`, () => this.#destroy(name), 30_000, 200)
      this.#databases.delete(name)
    }
  }

  #destroy(name: string): Promise<true | undefined> {
    return this.up[0]!.json('DELETE', name).then(
      () => true,
      (error: Error) => (/: 404 /.test(error.message) ? true : undefined)
    )
  }
}

async function command(line: string, { number }: ClusterNode): Promise<void> {
  await promisify(exec)(`${line} ${number}`, { timeout: PATIENCE })
}
