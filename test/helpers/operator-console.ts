import type { FastifyInstance } from 'fastify'
import type { ServerScope } from 'nano'
import type { Test } from 'tap'
import { Access } from '../../examples/standalone/access.js'
import { completeCredentials } from '../../examples/standalone/credentials.js'
import { seed } from '../../examples/standalone/seed.js'
import { buildConsole } from '../../examples/standalone/server.js'
import type { StoredHeader } from '../../lib/repository/layout.js'
import type { DatabaseNames, ScheduleOptions } from '../../types/index.js'
import { setupDatabases, type TestDatabases } from './database.js'
import { type Gate, startGate } from './gate.js'

export const MANAGER = 'admin@example.com'
export const READER = 'reader@example.com'

export interface OperatorConsole {
  app: FastifyInstance
  url: string
  on: TestDatabases
  passwords: Record<string, string>
}

interface OperatorConsoleOptions {
  /** Returns the server that the console uses to reach the databases. Default: the console reaches them directly. */
  through?: (on: TestDatabases) => Promise<ServerScope>
  names?: DatabaseNames
  schedule?: ScheduleOptions
  /** Databases of a console that has ended. Default: new ones. */
  on?: TestDatabases
}

/** Starts the example's console with databases seeded as by `npm start`. It closes when the test ends. */
export async function startConsole(
  t: Test,
  { through, names, schedule, on: given }: OperatorConsoleOptions = {}
): Promise<OperatorConsole> {
  // keep the faults that tests cause out of the output
  process.env.LOG_LEVEL ??= 'silent'
  const on = given ?? (await setupDatabases(t, { names }))
  await seed(on.couch, on.names)
  const couch = through ? await through(on) : on.couch
  const { MANAGER_PASSWORD: manager, READER_PASSWORD: reader } = (
    await completeCredentials(on.couch.use(on.names.system), {})
  ).values
  const access = new Access(couch.use(on.names.system), { manager, reader })
  const app = await buildConsole({ couch, names: on.names, access, schedule })
  t.teardown(() => app.close())
  const url = await app.listen({ port: 0, host: '127.0.0.1' })
  return { app, url, on, passwords: { [MANAGER]: manager, [READER]: reader } }
}

/** Makes a backup. @returns its id */
export async function backUp({ app }: OperatorConsole): Promise<string> {
  const { id, finished } = await app.dbBackups.start()
  await finished
  return id
}

interface GatedConsole extends OperatorConsole {
  gate: Gate
}

/** Starts a console whose requests to the databases a gate can hold back. */
export async function startGatedConsole(t: Test): Promise<GatedConsole> {
  let gate!: Gate
  const console = await startConsole(t, {
    async through(on) {
      gate = await startGate(t, on)
      return gate.couch
    }
  })
  return { ...console, gate }
}

/**
 * Returns a pattern of requests for a backup's first chunk of the system database, which is read after the others.
 */
export async function systemChunkOf({ on }: OperatorConsole, id: string): Promise<RegExp> {
  const { storage } = (await on.couch.use(on.names.system).get(id)) as unknown as StoredHeader
  return new RegExp(storage.databases.system!.chunks[0]!.id)
}
