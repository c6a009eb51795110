import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { request as httpRequest } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import Fastify from 'fastify'
import nano, { type ServerScope } from 'nano'
import type { Test } from 'tap'
import dbBackups, { createCouchWebhookStore } from '../../lib/index.js'
import type { BackupEvent, DatabaseNames, LogicalDatabase, WebhookTransaction } from '../../types/index.js'
import { DATABASES, type FetchedDocument, isOwn, type Snapshot, type TestDatabases } from './database.js'
import { type Fault, type FaultProxy, type Match, startFaultProxy } from './fault-proxy.js'
import { difference, fingerprintsOf } from './fingerprints.js'
import { poll } from './poll.js'
import { load, seedDocuments } from './seed.js'

const TIMEOUTS = { control: 1500, idle: 1500, lease: 4000, close: 2000 }
const RETRY = { attempts: 4, wait: 20, longest: 80 }
/** Milliseconds after which an operation hangs: more than all attempts of its longest chain of calls take. */
const HANG = 45_000
/** Milliseconds until a stale lease is recovered: seconds on an idle machine, more on one busy with other tests. */
export const TAKEOVER = 2 * TIMEOUTS.lease + 42_000

export interface HttpReply {
  status: number
  /** The parsed body. `undefined` when the reply was cut off. */
  json: unknown
}

/** A test rig: a host behind a proxy of its own, with databases of its own. */
export interface Rig {
  t: Test
  databases: TestDatabases
  /** Names of the three source databases and the backups database. */
  names: Required<DatabaseNames>
  /** The databases, reached without the proxy. */
  direct: ServerScope
  proxy: FaultProxy
  spoolDirectory: string
  events: BackupEvent[]
  call(method: string, path: string, body?: unknown): Promise<HttpReply>
  /**
   * Waits for the event that ends the running operation.
   * @throws when the operation hangs
   */
  ended(): Promise<BackupEvent>
}

/** A request of an operation that a fault strikes. */
export interface Point extends Match {
  name: string
  nth?: number
  /** Plays every fault here. Elsewhere one of each kind is played, unless the whole matrix is written. */
  core?: boolean
  /** Faults that cannot strike here, or change nothing. */
  except?: readonly Fault[]
  /** Faults that are played here. Default: all but `except`. */
  only?: readonly Fault[]
}

/** The outcome of an operation. Any other outcome is thrown. */
export type Outcome = 'recovered' | 'failed'

export interface Operation {
  name: string
  points(names: Required<DatabaseNames>): Point[]
  /** Runs before the fault is set. */
  prepare?(rig: Rig): Promise<void>
  /**
   * Runs the operation while the fault is set. Returns a function that judges the outcome once the fault is cleared.
   * @throws when the operation breaks a promise
   */
  run(rig: Rig): Promise<() => Promise<Outcome>>
}

/** Creates a rig. Its databases are its own, since operations on the same source databases exclude each other. */
export async function createRig(t: Test, databases: TestDatabases): Promise<Rig> {
  const direct = nano(databases.url)
  const prefix = `t${randomBytes(6).toString('hex')}_`
  const names = { ...databases.names, backups: `${prefix}backups` }
  for (const logical of DATABASES) names[logical] = prefix + logical
  const created = Object.values(names)
  for (const name of created) await direct.db.create(name)
  const proxy = await startFaultProxy(t, databases.url)
  t.teardown(async () => {
    if (databases.real) for (const name of created) await direct.db.destroy(name)
  })
  const spoolDirectory = await mkdtemp(join(tmpdir(), 'fault-cells-'))
  t.teardown(() => rm(spoolDirectory, { recursive: true }))
  const events: BackupEvent[] = []
  const couch = nano(proxy.url)
  const app = Fastify()
  t.teardown(() => app.close())
  app.get('/alive', async () => ({ alive: true }))
  app.register(dbBackups, {
    safety: false,
    couch,
    databases: names,
    authorize: () => undefined,
    rebuildWhitelist: () => undefined,
    webhooks: createCouchWebhookStore({ couch, database: names.backups, timeout: TIMEOUTS.control }),
    spoolDirectory,
    timeouts: TIMEOUTS,
    retry: RETRY,
    onEvent: (event) => void events.push(event)
  })
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as AddressInfo
  return {
    t,
    databases,
    names,
    direct,
    proxy,
    spoolDirectory,
    events,
    call: (method, path, body) => call(port, method, path, body),
    async ended() {
      const kind = /^(backup|restore)_(finished|failed)$/
      return poll('an operation', async () => events.find(({ type }) => kind.test(type)), HANG)
    }
  }
}

/** Sends a request, and tells a reply that is cut off from a whole one. */
async function call(port: number, method: string, path: string, body?: unknown): Promise<HttpReply> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      request.destroy()
      reject(new Error(`${method} ${path} hangs`))
    }, HANG)
    const request = httpRequest({
      host: '127.0.0.1',
      port,
      method,
      path,
      agent: false,
      headers: body === undefined ? {} : { 'content-type': 'application/json' }
    })
    request.on('error', (error) => {
      clearTimeout(timer)
      reject(error)
    })
    request.on('response', (response) => {
      const status = response.statusCode ?? 0
      buffer(response)
        .then(
          (bytes) => ({ status, json: JSON.parse(bytes.toString() || 'null') }),
          () => ({ status, json: undefined })
        )
        .then(resolve, reject)
        .finally(() => clearTimeout(timer))
    })
    request.end(body === undefined || Buffer.isBuffer(body) ? body : JSON.stringify(body))
  })
}

/** Fills the source databases like those of a small console. */
export async function seedSources(on: Pick<TestDatabases, 'couch'>, names: DatabaseNames): Promise<void> {
  const components = seedDocuments({ count: 30, prefix: 'component', attachmentEvery: 10 })
  await load(on.couch.use(names.components), components)
  await load(on.couch.use(names.sessions), seedDocuments({ count: 5, prefix: 'user', size: 300 }))
  await load(on.couch.use(names.system), seedDocuments({ count: 10, prefix: 'setting', size: 500 }))
  await on.couch.use(names.system).insert({ _id: '_design/views', views: {} })
}

export type Contents = Record<LogicalDatabase, Snapshot>

/** Reads the source databases. */
export async function contents(rig: Pick<Rig, 'databases' | 'names'>): Promise<Contents> {
  const all = DATABASES.map(async (logical) => [logical, await rig.databases.fetchAll(rig.names[logical])])
  return Object.fromEntries(await Promise.all(all))
}

/** Deletes one third of the documents of the source databases, and changes another. */
export async function damage({ direct, names }: Pick<Rig, 'direct' | 'names'>): Promise<void> {
  for (const logical of DATABASES) {
    const { rows } = await direct.use(names[logical]).list({ include_docs: true })
    const docs = rows.flatMap(({ id, doc }, i): object[] => {
      if (id.startsWith('_design/') || i % 3 === 2 || isOwn(doc as { type?: unknown })) return []
      if (i % 3 === 0) return [{ _id: id, _rev: doc?._rev, _deleted: true }]
      return [{ ...doc, damaged: true }]
    })
    await direct.use(names[logical]).bulk({ docs })
  }
}

/** Tells how databases differ, apart from the plugin's own documents. Empty when they do not differ. */
export function differences(expected: Contents, found: Contents): string {
  const problems = DATABASES.map((logical) => {
    const problem = difference(
      fingerprintsOf(expected[logical].values()),
      fingerprintsOf(found[logical].values())
    )
    return problem && `${logical}: ${problem}`
  })
  return problems.filter(Boolean).join('; ')
}

/** Reads a backup through the API, and throws when it does not hold what the databases hold. */
export async function expectBackup(rig: Rig, id: string, expected: Contents): Promise<void> {
  const { status, json } = await rig.call('GET', `/api/v3/backups/${id}`)
  const { dbs } = (json ?? {}) as { dbs?: Record<string, { docs: FetchedDocument[] }> }
  if (status !== 200 || !dbs) throw new Error(`FALSE SUCCESS: backup ${id} cannot be read (${status})`)
  for (const logical of DATABASES) {
    const problem = difference(
      fingerprintsOf(expected[logical].values()),
      fingerprintsOf(dbs[`athena_${logical}`]?.docs ?? [])
    )
    if (problem) throw new Error(`FALSE SUCCESS: backup ${id}, ${logical}: ${problem}`)
  }
}

interface Header {
  _id: string
  in_progress: boolean
  error?: string
  storage: { databases: Record<string, { chunks: { id: string }[]; index: { id: string }[] }> }
}

/** Waits until no backup is in progress and every chunk and manifest belongs to a backup. Returns the headers. */
export async function expectTidy(
  { direct, names }: Pick<Rig, 'direct' | 'names'>,
  patience = TAKEOVER
): Promise<Header[]> {
  let problem = ''
  return poll(
    'a tidy backups database',
    async () => {
      const rows = async (from: string, include_docs: boolean) =>
        (await direct.use(names.backups).list({ startkey: from, endkey: `${from}\ufff0`, include_docs })).rows
      const headers = (await rows('03_ibp_db_backup_', true)).map(({ doc }) => doc as unknown as Header)
      const parts = (await rows('backup_', false)).map(({ id }) => id)
      const needed = headers.flatMap(({ storage }) =>
        Object.values(storage.databases).flatMap(({ chunks, index }) =>
          [...chunks, ...index].map(({ id }) => id)
        )
      )
      const running = headers.filter((header) => header.in_progress).map(({ _id }) => _id)
      const orphans = parts.filter((id) => !needed.includes(id))
      problem = `in progress: ${running}; orphans: ${orphans}`
      return running.length === 0 && orphans.length === 0 ? headers : undefined
    },
    patience,
    100
  ).catch(() => {
    throw new Error(`not tidy within ${patience} ms: ${problem}`)
  })
}

/**
 * Waits until a backup succeeds, which shows that the lease is free or becomes free. Some attempts may fail: the
 * database and many servers share this process, and a server rightly gives up when it is busy for longer than its
 * lease.
 */
export async function expectWorking(rig: Rig): Promise<void> {
  let last: unknown
  await poll(
    'a backup without faults',
    async () => {
      rig.events.length = 0
      const reply = await rig.call('POST', '/api/v3/backups')
      last = reply.json
      if (reply.status !== 202) return undefined
      const ended = await rig.ended()
      last = ended
      return ended.type === 'backup_finished' ? true : undefined
    },
    2 * TAKEOVER
  ).catch((error: Error) => {
    throw new Error(`${error.message}: ${JSON.stringify(last)}`)
  })
}

/** Returns a transaction once it has ended, and `undefined` before. */
export async function transaction(
  { direct, names }: Rig,
  id: string
): Promise<WebhookTransaction | undefined> {
  const found = (await direct.use(names.backups).get(id)) as unknown as WebhookTransaction
  return found.status === 'pending' ? undefined : found
}

/** Throws unless a reply is a refusal that tells why. */
export function expectClear({ status, json }: HttpReply): void {
  const { message } = (json ?? {}) as { message?: unknown }
  if (status < 400 || typeof message !== 'string' || message.length < 5) {
    throw new Error(`not a clear failure: ${status} ${JSON.stringify(json)}`)
  }
}
