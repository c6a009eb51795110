import { createServer, type RequestListener } from 'node:http'
import nano from 'nano'
import type { Test } from 'tap'
import { type ClientSettings, CouchClient } from '../../lib/couch/client.js'
import { connectionOf } from '../../lib/couch/connection.js'
import { CouchDatabase } from '../../lib/couch/database.js'
import type { AttachmentData } from '../../lib/couch/requests.js'
import type { LogicalDatabase } from '../../types/index.js'
import { setupDatabases } from './database.js'
import { startFaultProxy } from './fault-proxy.js'
import { listen } from './listen.js'

/** Connects the plugin's own client to a server, until the test ends. */
export function clientOf(t: Test, url: string, settings: Partial<ClientSettings> = {}): CouchClient {
  const couch = nano(url)
  const client = new CouchClient({
    connect: () => connectionOf(couch),
    retry: { attempts: 4, wait: 10, longest: 50 },
    control: 20_000,
    idle: 20_000,
    ...settings
  })
  t.teardown(() => client.close())
  return client
}

/** Starts a database that answers as the test says. `reading` counts the answers that a client still reads. */
export async function startAnsweringCouch(t: Test, answer: RequestListener) {
  let reading = 0
  const server = createServer((request, response) => {
    reading++
    response.once('close', () => reading--)
    answer(request, response)
  })
  const origin = await listen(t, server)
  const client = clientOf(t, origin, {
    connect: () => ({ origin, basePath: '', headers: {}, dispatcher: undefined }),
    retry: { attempts: 3, wait: 1, longest: 1 },
    control: 5000,
    idle: 5000
  })
  return { db: new CouchDatabase(client, 'backups'), reading: () => reading }
}

/** Creates databases, and connects the plugin's own client to one of them through a proxy that plays faults. */
export async function faultyDatabase(
  t: Test,
  logical: LogicalDatabase,
  timeouts: Pick<ClientSettings, 'control' | 'idle'> = { control: 20_000, idle: 20_000 }
) {
  const on = await setupDatabases(t)
  const proxy = await startFaultProxy(t, on.url)
  const client = clientOf(t, proxy.url, timeouts)
  return { on, proxy, client, db: new CouchDatabase(client, on.names[logical]) }
}

/** Returns a text as the data of an attachment. */
export function asData(text: string): AttachmentData {
  const bytes = Buffer.from(text)
  return {
    length: bytes.length,
    async *open() {
      yield bytes
    }
  }
}
