import { createServer } from 'node:http'
import { Writable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import nano from 'nano'
import * as client from 'prom-client'
import type { Test } from 'tap'
import type { BackupEvent } from '../../types/index.js'
import { DATABASES, LEASE, setupDatabases, type TestDatabases } from './database.js'
import { type FaultProxy, startFaultProxy } from './fault-proxy.js'
import { buildHost, type HostOptions, type TestHost } from './host.js'
import { listen } from './listen.js'
import { load, seedDocuments } from './seed.js'

/** A line of the log. */
export interface LogLine {
  level: number
  msg: string
  event?: string
  [field: string]: unknown
}

export interface ObservedHost extends TestHost {
  proxy: FaultProxy
  events: BackupEvent[]
  lines: LogLine[]
  registry: client.Registry
  /** Returns the value of a series, such as `db_backups_in_progress{operation="backup"}`. */
  metric(series: string): Promise<number | undefined>
  /** Waits for the first event of a type. */
  event<Type extends BackupEvent['type']>(type: Type): Promise<Extract<BackupEvent, { type: Type }>>
}

/** Numbers of documents in the databases of {@link seeded}. */
export const COUNTS = { components: 250, sessions: 3, system: 2 } as const

/** Creates databases with {@link COUNTS} documents. */
export async function seeded(t: Test): Promise<TestDatabases> {
  const on = await setupDatabases(t)
  for (const database of DATABASES) {
    const documents = seedDocuments({ count: COUNTS[database], prefix: `secret_${database}` })
    await load(on.couch.use(on.names[database]), documents)
  }
  return on
}

/** Builds a host behind a proxy that can play faults, and collects its events, log and metrics. */
export async function observe(t: Test, { on, ...options }: HostOptions = {}): Promise<ObservedHost> {
  const databases = on ?? (await seeded(t))
  const proxy = await startFaultProxy(t, databases.url)
  const events: BackupEvent[] = []
  const lines: LogLine[] = []
  const stream = new Writable({
    write(line, _encoding, done) {
      lines.push(JSON.parse(String(line)))
      done()
    }
  })
  const registry = options.metrics?.registry ? undefined : new client.Registry()
  const host = await buildHost(t, {
    on: databases,
    couch: nano(proxy.url),
    server: { logger: { level: 'debug', stream } },
    retry: { attempts: 4, wait: 10, longest: 20 },
    onEvent: (event) => void events.push(event),
    ...(registry && { metrics: { client, registry } }),
    ...options
  })
  const used = (registry ?? options.metrics?.registry) as client.Registry
  return {
    ...host,
    proxy,
    events,
    lines,
    registry: used,
    async metric(series) {
      const line = (await used.metrics()).split('\n').find((text) => text.startsWith(`${series} `))
      return line === undefined ? undefined : Number(line.slice(series.length + 1))
    },
    async event(type) {
      for (let i = 0; i < 1500; i++) {
        const found = events.find((event) => event.type === type)
        if (found) return found as never
        await delay(10)
      }
      throw new Error(`no event ${type}, but ${events.map((event) => event.type)}`)
    }
  }
}

/**
 * Writes the header and the lease that an instance leaves when it is killed during a backup. Returns the backup's id.
 */
export async function leaveInterruptedBackup({ couch, names }: TestDatabases): Promise<string> {
  const id = '03_ibp_db_backup_1700000000000'
  const db = couch.use(names.system)
  await db.insert({
    _id: id,
    type: 'athena_backup',
    in_progress: true,
    start_timestamp: 1_700_000_000_000,
    dbs: {},
    doc_count: 0,
    storage: { layout: 1, instance: 'gone', databases: {} }
  } as object)
  await db.insert({
    _id: LEASE,
    type: LEASE,
    operation: 'backup',
    id,
    instance: 'gone',
    claim: 'gone',
    beat: 7,
    ttl: 500
  } as object)
  return id
}

/** Starts a receiver of webhooks that answers with `status`, and returns its URL. */
export async function startReceiver(t: Test, status: number): Promise<string> {
  const server = createServer((request, response) => {
    request.resume()
    response.writeHead(status).end()
  })
  const origin = await listen(t, server)
  return `${origin}/hook?key=hidden`
}
