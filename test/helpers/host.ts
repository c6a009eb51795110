import type { Server } from 'node:http'
import Fastify, { type FastifyHttpOptions, type FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import dbBackups, { createMemoryWebhookStore } from '../../lib/index.js'
import type {
  AuthorizeContext,
  BackupSummary,
  DbBackupsOptions,
  WebhookStore,
  WebhookTransaction
} from '../../types/index.js'
import { setupDatabases, type TestDatabases } from './database.js'
import { poll } from './poll.js'

type Role = 'manager' | 'reader' | 'none'

export interface HostOptions extends Partial<DbBackupsOptions> {
  /** Databases to use. Default: the host sets up its own. */
  on?: TestDatabases
  /** Options of the Fastify server. */
  server?: FastifyHttpOptions<Server>
  /** Called with the server before the plugin is registered. */
  extend?: (app: FastifyInstance) => void
  /** Called with the server after the plugin is registered. */
  extendAfter?: (app: FastifyInstance) => void
}

export interface TestHost {
  app: FastifyInstance
  on: TestDatabases
  webhooks: WebhookStore
  /** Calls of the two hooks so far, unless the options override them. */
  calls: { authorize: AuthorizeContext[]; rebuildWhitelist: number }
  /** Returns the headers of a request by a user with this role. */
  as(role: Role): { 'x-role': Role }
  /** Waits until a backup has ended, failed or not, and returns its summary. */
  waitForBackup(id: string, timeout?: number): Promise<BackupSummary>
  /** Waits until a restore has ended, and returns its transaction. Takes the transaction's id or URL. */
  waitForRestore(url: string, timeout?: number): Promise<WebhookTransaction>
}

function refusal(statusCode: 401 | 403): Error {
  return Object.assign(new Error(statusCode === 401 ? 'unauthorized' : 'forbidden'), { statusCode })
}

/** Returns the id of a restore's transaction from its URL. An id is returned as it is. */
export const txIdOf = (url: string): string => url.slice(url.lastIndexOf('/') + 1)

/** Builds a Fastify server with the plugin, ready for requests. It closes when the test ends. */
export async function buildHost(
  t: Test,
  { on, server, extend, extendAfter, ...overrides }: HostOptions = {}
): Promise<TestHost> {
  const databases = on ?? (await setupDatabases(t))
  const webhooks = overrides.webhooks ?? createMemoryWebhookStore()
  const calls: TestHost['calls'] = { authorize: [], rebuildWhitelist: 0 }
  const app = Fastify({ logger: false, ...server })
  t.teardown(() => app.close())
  const options: DbBackupsOptions = {
    couch: databases.couch,
    databases: databases.names,
    authorize(request, context) {
      calls.authorize.push(context)
      const role = request.headers['x-role']
      if (role === 'reader') throw refusal(403)
      if (role !== 'manager') throw refusal(401)
      return { name: role, uuid: 'uuid-manager' }
    },
    rebuildWhitelist() {
      calls.rebuildWhitelist++
    },
    // Most tests count requests, lists or headers; `safety-backup` tests the default.
    safety: false,
    ...overrides,
    webhooks
  }
  extend?.(app)
  await app.register(dbBackups, options)
  extendAfter?.(app)
  await app.ready()

  return {
    app,
    on: databases,
    webhooks,
    calls,
    as: (role) => ({ 'x-role': role }),
    waitForBackup: (id, timeout) =>
      poll(
        `backup ${id}`,
        async () => {
          const summary = await app.dbBackups.summary(id)
          return summary.in_progress ? undefined : summary
        },
        timeout
      ),
    waitForRestore: (url, timeout) =>
      poll(
        `restore ${url}`,
        async () => {
          const transaction = await webhooks.get(txIdOf(url))
          return transaction && transaction.status !== 'pending' ? transaction : undefined
        },
        timeout
      )
  }
}
