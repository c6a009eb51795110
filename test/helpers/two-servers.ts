import { randomBytes } from 'node:crypto'
import nano, { type DocumentScope } from 'nano'
import type { Test } from 'tap'
import { startEmbeddedCouch } from '../../examples/standalone/embedded-couch.js'
import type { BackupEvent } from '../../types/index.js'
import { type Api, apiOf } from './api.js'
import { deleteDatabase, setupDatabases, type TestDatabases } from './database.js'
import { type FaultProxy, startFaultProxy } from './fault-proxy.js'
import { buildHost, type HostOptions, type TestHost } from './host.js'

/** Time-outs and retries that are soon over. */
export const SOON = {
  timeouts: { lease: 3000, control: 1000, idle: 1500, close: 1000 },
  retry: { attempts: 3, wait: 50, longest: 100 }
} as const

type Documents = DocumentScope<Record<string, unknown>>

/** A server for backups alone. */
export interface Keeper {
  url: string
  database: string
  documents: Documents
}

/** A console whose backups are on a server of their own, each server behind a proxy. */
export interface TwoServerConsole {
  host: TestHost
  api: Api
  on: TestDatabases
  databases: FaultProxy
  backups: FaultProxy
  events: BackupEvent[]
  /** Returns a database of the console, by its real name, without the proxy. */
  use(name: string): Documents
}

/** Starts a server for backups, with no database yet: embedded, or that of `BACKUPS_COUCHDB_URL`. */
export async function startKeeper(t: Test): Promise<Keeper> {
  const embedded = process.env.BACKUPS_COUCHDB_URL ? undefined : await startEmbeddedCouch({ memory: true })
  const url = embedded?.url ?? process.env.BACKUPS_COUCHDB_URL ?? ''
  const database = `t${randomBytes(6).toString('hex')}_kept`
  t.teardown(async () => {
    if (!embedded) await deleteDatabase(nano(url), database)
    await embedded?.close()
  })
  return { url, database, documents: nano(url).use(database) }
}

/** Starts a console that keeps its backups at `keeper`. */
export async function startTwoServerConsole(
  t: Test,
  keeper: Keeper,
  { on: given, ...options }: HostOptions = {}
): Promise<TwoServerConsole> {
  const on = given ?? (await setupDatabases(t))
  const databases = await startFaultProxy(t, on.url)
  const backups = await startFaultProxy(t, keeper.url)
  const events: BackupEvent[] = []
  const host = await buildHost(t, {
    ...SOON,
    onEvent: (event) => void events.push(event),
    ...options,
    on,
    couch: nano(databases.url),
    backups: { couch: nano(backups.url), database: keeper.database, ...options.backups }
  })
  t.teardown(async () => {
    // before the host, which held or stalled requests would keep from closing
    for (const proxy of [databases, backups]) await proxy.close()
  })
  return { host, api: apiOf(host), on, databases, backups, events, use: (name) => on.couch.use(name) }
}

/** Fails every request of a server, until the returned function is called. */
export function failing(proxy: FaultProxy, fault: 'refuse' | 'status_500' | 'stall'): () => Promise<void> {
  proxy.add({ path: /./, fault, times: Number.POSITIVE_INFINITY, refusedFor: Number.POSITIVE_INFINITY })
  return () => proxy.clear()
}
