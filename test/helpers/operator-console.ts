import type { FastifyInstance } from 'fastify'
import type { ServerScope } from 'nano'
import type { Test } from 'tap'
import { Access } from '../../examples/standalone/access.js'
import { seed } from '../../examples/standalone/seed.js'
import { buildConsole } from '../../examples/standalone/server.js'
import type { DatabaseNames } from '../../types/index.js'
import { setupDatabases, type TestDatabases } from './database.js'

export const MANAGER = 'admin@example.com'
export const READER = 'reader@example.com'

export interface OperatorConsole {
  app: FastifyInstance
  url: string
  on: TestDatabases
  passwords: Record<string, string>
}

export interface OperatorConsoleOptions {
  /** How the console reaches the databases, when it is not to reach them directly. */
  through?: (on: TestDatabases) => Promise<ServerScope>
  names?: DatabaseNames
}

/** The example's console, listening, its databases seeded as `npm start` does; closed when the test ends. */
export async function startConsole(
  t: Test,
  { through, names }: OperatorConsoleOptions = {}
): Promise<OperatorConsole> {
  // the faults that tests cause are not to be told
  process.env.LOG_LEVEL ??= 'silent'
  const on = await setupDatabases(t, { names })
  await seed(on.couch, on.names)
  const couch = through ? await through(on) : on.couch
  const access = new Access(couch.use(on.names.system))
  const passwords = await access.resetDemoPasswords({ [MANAGER]: 'manager', [READER]: 'reader' })
  const app = await buildConsole({ couch, names: on.names, access })
  t.teardown(() => app.close())
  const url = await app.listen({ port: 0, host: '127.0.0.1' })
  return { app, url, on, passwords }
}
