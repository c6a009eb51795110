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

export type Role = 'manager' | 'reader' | 'none'

export interface HostOptions extends Partial<DbBackupsOptions> {
  /** Databases set up before; otherwise the host sets up its own. */
  on?: TestDatabases
  /** Options of the host's own server. */
  server?: FastifyHttpOptions<Server>
  /** What the host adds to its server before the plugin. */
  extend?: (app: FastifyInstance) => void
}

export interface TestHost {
  app: FastifyInstance
  on: TestDatabases
  webhooks: WebhookStore
  /** Calls so far of the two hooks, unless they were overridden. */
  calls: { authorize: AuthorizeContext[]; rebuildWhitelist: number }
  /** Headers of a request by someone of this role. */
  as(role: Role): { 'x-role': Role }
  /** The backup once it is not in progress any more, failed or not. */
  waitForBackup(id: string, timeout?: number): Promise<BackupSummary>
  /** The transaction once it is not pending any more. Takes its id or its URL. */
  waitForRestore(url: string, timeout?: number): Promise<WebhookTransaction>
}

function refuse(statusCode: 401 | 403): Error {
  return Object.assign(new Error(statusCode === 401 ? 'unauthorized' : 'forbidden'), { statusCode })
}

/** A Fastify server with the plugin, ready; closed when the test ends. */
export async function buildHost(
  t: Test,
  { on, server, extend, ...overrides }: HostOptions = {}
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
      if (role === 'reader') throw refuse(403)
      if (role !== 'manager') throw refuse(401)
      return { name: role, uuid: 'uuid-manager' }
    },
    rebuildWhitelist() {
      calls.rebuildWhitelist++
    },
    ...overrides,
    webhooks
  }
  extend?.(app)
  await app.register(dbBackups, options)
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
          const transaction = await webhooks.get(url.slice(url.lastIndexOf('/') + 1))
          return transaction && transaction.status !== 'pending' ? transaction : undefined
        },
        timeout
      )
  }
}
