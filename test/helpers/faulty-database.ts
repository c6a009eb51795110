import nano from 'nano'
import type { Test } from 'tap'
import { CouchClient } from '../../lib/couch/client.js'
import { connectionOf } from '../../lib/couch/connection.js'
import { CouchDatabase } from '../../lib/couch/database.js'
import type { LogicalDatabase } from '../../types/index.js'
import { setupDatabases } from './database.js'
import { startFaultProxy } from './fault-proxy.js'

/** Connects the plugin's own client to a database behind a proxy that plays faults. */
export async function faultyDatabase(
  t: Test,
  logical: LogicalDatabase,
  timeouts = { control: 20_000, idle: 20_000 }
) {
  const on = await setupDatabases(t)
  const proxy = await startFaultProxy(t, on.url)
  const couch = nano(proxy.url)
  const client = new CouchClient({
    connect: () => connectionOf(couch),
    retry: { attempts: 4, wait: 10, longest: 50 },
    ...timeouts
  })
  t.teardown(() => client.close())
  return { on, proxy, client, db: new CouchDatabase(client, on.names[logical]) }
}
