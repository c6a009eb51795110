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
import type { FetchedDocument, Snapshot, TestDatabases } from './database.js'
import { type Fault, type FaultProxy, type Match, startFaultProxy } from './fault-proxy.js'
import { poll } from './poll.js'
import { load, seedDocuments } from './seed.js'

const TIMEOUTS = { control: 1500, idle: 1500, lease: 4000, close: 2000 }
const RETRY = { attempts: 4, wait: 20, longest: 80 }
/** Nothing may take longer: attempts of the longest chain of calls, each ended by its time-out. */
const HANG = 45_000
/** A lease becomes stale, and is found so: seconds, but for a machine that is busy with other tests. */
export const TAKEOVER = 2 * TIMEOUTS.lease + 42_000
export const LOGICAL: readonly LogicalDatabase[] = ['components', 'sessions', 'system']

export interface HttpReply {
  status: number
  /** Parsed where it is JSON; `undefined` when the reply was cut. */
  json: unknown
}

/** One host behind a proxy of its own, with databases of its own. */
export interface Lane {
  t: Test
  databases: TestDatabases
  /** Names that the host uses: the three source databases and its own for backups. */
  names: Required<DatabaseNames>
  direct: ServerScope
  proxy: FaultProxy
  spoolDirectory: string
  events: BackupEvent[]
  call(method: string, path: string, body?: unknown): Promise<HttpReply>
  /** The event that ends the operation at hand. @throws when it hangs */
  ended(): Promise<BackupEvent>
}

/** Where a fault strikes: a request that the operation sends. */
export interface Point extends Match {
  name: string
  nth?: number
  /** Every fault is played there; elsewhere one of each kind, unless the whole matrix is written. */
  core?: boolean
  /** Faults that cannot strike there, or change nothing: a reply without a body cannot be cut. */
  except?: readonly Fault[]
  /** Faults that are played there, when not all are. */
  only?: readonly Fault[]
}

/** What came of an operation; anything else is thrown. */
export type Outcome = 'recovered' | 'failed'

export interface Operation {
  name: string
  points(names: Required<DatabaseNames>): Point[]
  /** Runs before the fault. */
  prepare?(lane: Lane): Promise<void>
  /** Runs into the fault. @throws when what it promised is not true */
  run(lane: Lane): Promise<() => Promise<Outcome>>
}

/** Makes a host with databases of its own: what runs on the same sources excludes each other. */
export async function makeLane(t: Test, databases: TestDatabases): Promise<Lane> {
  const direct = nano(databases.url)
  const prefix = `t${randomBytes(6).toString('hex')}_`
  const names = { ...databases.names, backups: `${prefix}backups` }
  for (const logical of LOGICAL) names[logical] = prefix + logical
  const created = Object.values(names)
  for (const name of created) await direct.db.create(name)
  const proxy = await startFaultProxy(databases.url)
  t.teardown(async () => {
    await proxy.close()
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

/** A request whose cut reply is told from a whole one. */
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

/** Small databases like a console's. */
export async function seedSources(on: Pick<TestDatabases, 'couch'>, names: DatabaseNames): Promise<void> {
  const components = seedDocuments({ count: 30, prefix: 'component', attachmentEvery: 10 })
  await load(on.couch.use(names.components), components)
  await load(on.couch.use(names.sessions), seedDocuments({ count: 5, prefix: 'user', size: 300 }))
  await load(on.couch.use(names.system), seedDocuments({ count: 10, prefix: 'setting', size: 500 }))
  await on.couch.use(names.system).insert({ _id: '_design/views', views: {} })
}

const OWN = /^(athena_backup|webhook_tx)/

const sorted = (documents: Iterable<FetchedDocument>) =>
  [...documents]
    .filter(({ type }) => !OWN.test(String(type)))
    .sort((a, b) => (a._id < b._id ? -1 : 1))
    .map((document) => plain(document))

/** Without revisions, and without members of attachments that depend on when they were written. */
function plain({ _rev, _attachments, ...document }: FetchedDocument): object {
  const attachments = Object.entries(_attachments ?? {}).map(([name, { content_type, data }]) => [
    name,
    content_type,
    data
  ])
  return { ...document, attachments }
}

function difference(expected: Iterable<FetchedDocument>, found: Iterable<FetchedDocument>): string {
  const [one, other] = [sorted(expected), sorted(found)].map((all) => all.map((each) => JSON.stringify(each)))
  const missing = one.filter((each) => !other.includes(each)).map((each) => each.slice(0, 60))
  const extra = other.filter((each) => !one.includes(each)).map((each) => each.slice(0, 60))
  if (missing.length === 0 && extra.length === 0 && one.length === other.length) return ''
  return `${missing.length} missing (${missing[0]}), ${extra.length} too many (${extra[0]})`
}

export type Contents = Record<LogicalDatabase, Snapshot>

export async function contents(lane: Pick<Lane, 'databases' | 'names'>): Promise<Contents> {
  const all = LOGICAL.map(async (logical) => [logical, await lane.databases.fetchAll(lane.names[logical])])
  return Object.fromEntries(await Promise.all(all))
}

/** Deletes and changes documents. */
export async function damage({ direct, names }: Pick<Lane, 'direct' | 'names'>): Promise<void> {
  for (const logical of LOGICAL) {
    const { rows } = await direct.use(names[logical]).list({ include_docs: true })
    const docs = rows.flatMap(({ id, doc }, i): object[] => {
      if (id.startsWith('_design/') || i % 3 === 2 || OWN.test(String((doc as { type?: unknown }).type)))
        return []
      if (i % 3 === 0) return [{ _id: id, _rev: doc?._rev, _deleted: true }]
      return [{ ...doc, damaged: true }]
    })
    await direct.use(names[logical]).bulk({ docs })
  }
}

/** How databases differ, this package's own documents aside; empty when they do not. */
export function differences(expected: Contents, found: Contents): string {
  const problems = LOGICAL.map((logical) => {
    const problem = difference(expected[logical].values(), found[logical].values())
    return problem && `${logical}: ${problem}`
  })
  return problems.filter(Boolean).join('; ')
}

/** @throws when a backup, read through the API, is not what the databases hold */
export async function expectBackup(lane: Lane, id: string, expected: Contents): Promise<void> {
  const { status, json } = await lane.call('GET', `/api/v3/backups/${id}`)
  const { dbs } = (json ?? {}) as { dbs?: Record<string, { docs: FetchedDocument[] }> }
  if (status !== 200 || !dbs) throw new Error(`FALSE SUCCESS: backup ${id} cannot be read (${status})`)
  for (const logical of LOGICAL) {
    const problem = difference(expected[logical].values(), dbs[`athena_${logical}`]?.docs ?? [])
    if (problem) throw new Error(`FALSE SUCCESS: backup ${id}, ${logical}: ${problem}`)
  }
}

interface Header {
  _id: string
  in_progress: boolean
  error?: string
  storage: { databases: Record<string, { chunks: { id: string }[]; superseded: { id: string }[] }> }
}

/** Waits until no backup is in progress and no part is without a backup that needs it. */
export async function expectTidy(
  { direct, names }: Pick<Lane, 'direct' | 'names'>,
  patience = TAKEOVER
): Promise<Header[]> {
  let problem = ''
  return poll(
    'tidying',
    async () => {
      const rows = async (from: string, include_docs: boolean) =>
        (await direct.use(names.backups).list({ startkey: from, endkey: `${from}\ufff0`, include_docs })).rows
      const headers = (await rows('03_ibp_db_backup_', true)).map(({ doc }) => doc as unknown as Header)
      const parts = (await rows('backup_', false)).map(({ id }) => id)
      const needed = headers.flatMap(({ storage }) =>
        Object.values(storage.databases).flatMap(({ chunks, superseded }) =>
          [...chunks, ...superseded].map(({ id }) => id)
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
 * The lease is free, or becomes free: a backup without faults succeeds. Not always at once: the database, and many
 * servers, share one process here, and a server that is held up for longer than its lease rightly gives up.
 */
export async function expectWorking(lane: Lane): Promise<void> {
  let last: unknown
  await poll(
    'a backup without faults',
    async () => {
      lane.events.length = 0
      const reply = await lane.call('POST', '/api/v3/backups')
      last = reply.json
      if (reply.status !== 202) return undefined
      const ended = await lane.ended()
      last = ended
      return ended.type === 'backup_finished' ? true : undefined
    },
    2 * TAKEOVER
  ).catch((error: Error) => {
    throw new Error(`${error.message}: ${JSON.stringify(last)}`)
  })
}

/** The transaction, once it has ended. */
export async function transaction(
  { direct, names }: Lane,
  id: string
): Promise<WebhookTransaction | undefined> {
  const found = (await direct.use(names.backups).get(id)) as unknown as WebhookTransaction
  return found.status === 'pending' ? undefined : found
}

/** A refusal tells why. @throws when it does not */
export function expectClear({ status, json }: HttpReply): void {
  const { message } = (json ?? {}) as { message?: unknown }
  if (status < 400 || typeof message !== 'string' || message.length < 5) {
    throw new Error(`not a clear failure: ${status} ${JSON.stringify(json)}`)
  }
}
