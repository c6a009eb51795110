import type { Test } from 'tap'
import type { WebhookTransaction } from '../../types/index.js'
import type { ServerConfig } from './crash-server.js'
import { DATABASES, setupDatabases, type TestDatabases } from './database.js'
import { type Contents, contents, damage, differences, expectTidy, seedSources } from './fault-cells.js'
import { type FaultProxy, startFaultProxy } from './fault-proxy.js'
import { txIdOf } from './host.js'
import { poll } from './poll.js'
import { randomOf } from './random.js'
import { type ServerProcess, type ServerReply, startServer } from './server-process.js'

const timeouts = { lease: Number(process.env.CRASH_LEASE ?? 2000), control: 5000, idle: 10_000 }
/** Milliseconds until the next server recovers a stale lease: seconds on an idle machine, more on a busy one. */
export const TAKEOVER = Number(process.env.CRASH_PATIENCE ?? 2 * timeouts.lease + 46_000)
/** Rigs that run at a time. More than cores, since most of a run is waiting for the lease. */
const JOBS = Number(process.env.CRASH_JOBS ?? 4)
/** The same seed kills at the same requests. */
const SEED = Number(process.env.CRASH_SEED ?? 1)

/** Returns how many crashes to cause: `CRASH_RUNS`, or what fits a test run. */
const crashRuns = (byDefault: number): number => Number(process.env.CRASH_RUNS ?? byDefault)

/** Counts the outcomes of operations whose server was killed. */
class Tally {
  readonly #counts = new Map<string, number>()

  add(outcome: 'interrupted' | 'had ended' | 'had not begun'): void {
    this.#counts.set(outcome, (this.#counts.get(outcome) ?? 0) + 1)
  }

  toString(): string {
    const all = [...this.#counts.values()].reduce((sum, count) => sum + count, 0)
    const each = [...this.#counts].map(([outcome, count]) => `${count} ${outcome}`)
    return `${all} crashes, seed ${SEED}: ${each.join(', ')}`
  }
}

/** A test rig: a set of databases, and a server on them that is killed and started again. */
export class CrashRig {
  readonly #t: Test
  readonly #random: () => number
  readonly databases: TestDatabases
  readonly proxy: FaultProxy
  readonly names: TestDatabases['names'] & { backups: string }
  server!: ServerProcess
  #config: Partial<ServerConfig> = {}
  expected!: Contents

  private constructor(t: Test, databases: TestDatabases, proxy: FaultProxy, random: () => number) {
    this.#t = t
    this.#random = random
    this.databases = databases
    this.proxy = proxy
    this.names = { ...databases.names, backups: databases.names.system }
  }

  static async create(t: Test, seed: number, setup = setupDatabases): Promise<CrashRig> {
    const databases = await setup(t)
    const proxy = await startFaultProxy(t, databases.url)
    const rig = new CrashRig(t, databases, proxy, randomOf(seed))
    await seedSources(databases, databases.names)
    rig.expected = await contents(rig)
    await rig.restart()
    return rig
  }

  async restart(): Promise<void> {
    this.server = await startServer(this.#t, {
      url: this.proxy.url,
      databases: this.databases.names,
      timeouts,
      ...this.#config
    })
  }

  /** Replaces the server by one with other options. */
  async configure(config: Partial<ServerConfig>): Promise<void> {
    this.#config = config
    this.server.signal('SIGKILL')
    await this.server.exited
    await this.restart()
  }

  /** Starts an operation. Tries again while another one runs or the server is not available. */
  async begin(ask: () => Promise<ServerReply>): Promise<ServerReply> {
    return poll(
      'the lease',
      async () => {
        const reply = await ask()
        if (reply.status === 202) return reply
        const later = reply.status === 503 || /_in_progress/.test(reply.json.message)
        if (!later) throw new Error(JSON.stringify(reply))
      },
      TAKEOVER
    )
  }

  /** Returns how many requests an operation sends to the database. */
  async requestsOf(operation: () => Promise<unknown>): Promise<number> {
    this.proxy.seen.length = 0
    await operation()
    return this.proxy.seen.length
  }

  /**
   * Starts an operation, and kills the server when it sends one of its first `requests` requests to the database, but not
   * one of the first `spared`. The database may or may not get that request.
   * @returns a description of the request
   */
  async crash(requests: number, ask: () => Promise<unknown>, spared = 0): Promise<string> {
    const { server } = this
    const at = 1 + spared + Math.floor(this.#random() * (requests - spared))
    const arrives = this.#random() < 0.5
    let count = 0
    let where = ''
    this.proxy.onRequest = ({ method, path }) => {
      if (++count !== at) return count < at
      server.signal('SIGKILL')
      where = `${method} ${path.slice(0, 60)} (${at} of ${requests}${arrives ? '' : ', lost'})`
      return arrives
    }
    const asked = ask().catch(() => undefined)
    // an operation that sends fewer requests than before ends with its server alive
    const late = setTimeout(() => server.signal('SIGKILL'), 5000)
    const [, signal] = await server.exited
    clearTimeout(late)
    if (signal !== 'SIGKILL') throw new Error(`the server ended by itself: ${server.errors}`)
    await asked
    this.proxy.onRequest = undefined
    return where || 'after the end'
  }

  /** Makes a backup, and returns its id. */
  async backup(): Promise<string> {
    for (let attempt = 1; ; attempt++) {
      const { json } = await this.begin(() => this.server.post(''))
      const header = (await this.headers()).find(({ _id }) => _id === json.id)
      if (header && header.error === undefined) return json.id
      if (!heldUp(header?.error) || attempt === ATTEMPTS) throw new Error(`no backup: ${header?.error}`)
    }
  }

  /** Restores a backup, and returns the ended transaction. */
  async restore(id: string): Promise<WebhookTransaction> {
    for (let attempt = 1; ; attempt++) {
      const { json } = await this.begin(() => this.server.put(`/${id}`, {}))
      const txId = txIdOf(json.url)
      const transaction = (await this.endedTransactions()).find(({ tx_id }) => tx_id === txId)
      if (!transaction) throw new Error('the transaction is gone')
      if (!heldUp(transaction.athena_messages.at(-1)) || attempt === ATTEMPTS) return transaction
    }
  }

  headers() {
    return expectTidy({ direct: this.databases.couch, names: this.names }, TAKEOVER)
  }

  async transactions(): Promise<WebhookTransaction[]> {
    const { rows } = await this.databases.couch.use(this.names.system).list({ include_docs: true })
    const docs = rows.map(({ doc }) => doc as unknown as WebhookTransaction)
    return docs.filter(({ type }) => type === 'webhook_tx')
  }

  /** Waits until no transaction is pending, and returns all transactions. */
  endedTransactions(): Promise<WebhookTransaction[]> {
    return poll(
      'the transactions',
      async () => {
        const all = await this.transactions()
        return all.some(({ status }) => status === 'pending') ? undefined : all
      },
      TAKEOVER
    )
  }

  damage(): Promise<void> {
    return damage({ direct: this.databases.couch, names: this.names })
  }

  /** Tells how the download of a backup differs from what the databases held, at first or as given. */
  async differencesOf(id: string, expected = this.expected): Promise<string> {
    const { status, json } = await this.server.get(`/${id}`)
    if (status !== 200) return `${status} ${JSON.stringify(json)}`
    const held = DATABASES.map((logical) => [
      logical,
      new Map(json.dbs[`athena_${logical}`].docs.map((doc: { _id: string }) => [doc._id, doc]))
    ])
    return differences(expected, Object.fromEntries(held))
  }

  /** Tells how the databases differ from what they held at first. Empty when they do not differ. */
  async differences(): Promise<string> {
    return differences(this.expected, await contents(this))
  }
}

/**
 * How often an operation is tried. The databases and all servers share this machine, and a server rightly gives up when
 * it is busy for longer than its lease.
 */
const ATTEMPTS = 10
/** Tells whether a failure was an interruption. The reason of a sealed backup cannot be read. */
const heldUp = (reason: string | undefined) => /^interrupted|the reason is sealed$/.test(reason ?? '')

interface RigOptions {
  setup?: (t: Test) => Promise<TestDatabases>
  /** Rigs at a time. */
  jobs?: number
  /** Milliseconds that a crash that was asked for by `CRASH_RUNS` may take. */
  perCrash?: number
}

/** Spreads so many crashes, or `CRASH_RUNS`, over several rigs, and tells how they ended. */
export async function onRigs(
  t: Test,
  byDefault: number,
  work: (rig: CrashRig, next: () => boolean, tally: Tally) => Promise<void>,
  { setup = setupDatabases, jobs = JOBS, perCrash = 10_000 }: RigOptions = {}
): Promise<void> {
  t.setTimeout(120_000 + crashRuns(0) * perCrash)
  const tally = new Tally()
  let left = crashRuns(byDefault)
  const next = () => left-- > 0
  const rigs = Array.from({ length: Math.min(jobs, left) }, async (_, i) => {
    await work(await CrashRig.create(t, SEED * 1000 + i, setup), next, tally)
  })
  await Promise.all(rigs)
  t.comment(tally.toString())
}
