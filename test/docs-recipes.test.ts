import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import ts from 'typescript'
import * as plugin from '../lib/index.js'
import { apiOf } from './helpers/api.js'
import { setupDatabases } from './helpers/database.js'
import { startGate } from './helpers/gate.js'
import { buildHost } from './helpers/host.js'
import { load } from './helpers/seed.js'

/** Returns the first TypeScript block below a heading of a page. */
function blockBelow(page: string, heading: string): string {
  const text = readFileSync(join(__dirname, '..', page), 'utf8')
  const section = text.slice(text.indexOf(`\n### ${heading}\n`) + 1)
  return /^```ts\n([\s\S]*?)^```$/m.exec(section)![1]!
}

type Run = (...values: unknown[]) => Promise<unknown>

/**
 * Runs a block of a page.
 * @param given values that the block uses, by name
 * @param result names of the values of the block that are returned as an object
 */
async function runBlock(page: string, heading: string, given: object, ...result: string[]) {
  const { outputText } = ts.transpileModule(blockBelow(page, heading), {
    compilerOptions: { module: ts.ModuleKind.CommonJS, target: ts.ScriptTarget.ES2022 }
  })
  const AsyncFunction = (async () => undefined).constructor as new (...code: string[]) => Run
  const code = `${outputText}\nreturn { ${result.join(', ')} }`
  const run = new AsyncFunction('require', 'exports', ...Object.keys(given), code)
  // biome-ignore lint/suspicious/noExplicitAny: what a block makes, of any shape
  return (await run(() => plugin, {}, ...Object.values(given))) as Record<string, any>
}

const at = (hour: number) =>
  class extends Date {
    override getUTCHours = () => hour
  }

/** Builds a host with the recipe in it, at this time: an hour, or a clock. */
async function nightly(t: Test, clock: number | typeof Date, on = setupDatabases(t)) {
  const databases = await on
  const gate = await startGate(t, databases)
  const given = { Date: typeof clock === 'number' ? at(clock) : clock }
  let recipe: Promise<Record<string, () => Promise<void>>> | undefined
  const extend = (app: FastifyInstance) => {
    recipe = runBlock('README.md', 'A backup every night', { app, ...given }, 'backUpAtNight')
  }
  const host = await buildHost(t, { on: databases, couch: gate.couch, extend })
  const ids = async () => (await host.app.dbBackups.list()).ids
  return { ...host, databases, gate, ids, backUpAtNight: (await recipe!).backUpAtNight! }
}

t.test('the nightly recipe backs up once a night, and again after a failure', async (t) => {
  const { backUpAtNight, ids, databases } = await nightly(t, 2)
  await backUpAtNight()
  t.equal((await ids()).length, 1)
  await backUpAtNight()
  t.equal((await ids()).length, 1, 'there is one of the last twelve hours')
  const failed = { _id: `03_ibp_db_backup_${Date.now() + 1}`, type: 'athena_backup', error: 'no', dbs: {} }
  await load(databases.couch.use(databases.names.system), [{ ...failed, start_timestamp: Date.now() }])
  await backUpAtNight()
  t.equal((await ids()).length, 3)
})

t.test('the nightly recipe does nothing at another hour, nor while another operation runs', async (t) => {
  const late = await nightly(t, 3)
  await late.backUpAtNight()
  t.strictSame(await late.ids(), [])
  const night = await nightly(t, 2)
  const release = night.gate.hold(/_changes/)
  const { finished } = await night.app.dbBackups.start()
  await night.gate.held(/_changes/)
  const [id] = await night.ids()
  await t.resolves(night.backUpAtNight(), 'the next turn looks again')
  t.strictSame(await night.ids(), [id])
  release()
  await finished
})

t.test('the nightly recipe backs up on the nights when clocks are changed', async (t) => {
  const { TZ } = process.env
  t.teardown(() => {
    if (TZ === undefined) delete process.env.TZ
    else process.env.TZ = TZ
  })
  const HOUR = 3_600_000
  // clocks go forward at two o'clock in one place, and at three in the other
  for (const [zone, noon] of [
    ['America/New_York', '2027-03-13T12:00-05:00'],
    ['America/New_York', '2027-11-06T12:00-04:00'],
    ['Europe/Helsinki', '2027-03-27T12:00+02:00']
  ] as const) {
    process.env.TZ = zone
    const begin = Date.parse(noon)
    const offset = (ms: number) => new Date(ms).getTimezoneOffset()
    t.not(offset(begin), offset(begin + 24 * HOUR), `${zone} changes its clocks`)
    let now = begin
    class Clock extends Date {
      constructor() {
        super(now)
      }
    }
    const { backUpAtNight, ids } = await nightly(t, Clock as typeof Date)
    for (; now < begin + 24 * HOUR; now += HOUR / 6) await backUpAtNight()
    t.equal((await ids()).length, 1, `one in the night after ${noon}`)
  }
})

t.test('the recipe for a look before restoring counts, and names ids that no document has', async (t) => {
  const { app, on } = await buildHost(t)
  await load(on.couch.use(on.names.components), [{ _id: 'org1peer1' }, { _id: 'org2peer1' }])
  await (await app.dbBackups.start()).finished
  const given = { app }
  const seen = await runBlock('README.md', 'Look before restoring', given, 'databases', 'skip_unknown')
  t.match(seen, {
    databases: { components: { unchanged: 1, skipped: 1 } },
    skip_unknown: { system: { count: 1, ids: ['00_settings_athena'] } }
  })
})

t.test('the routes that hosts are told to add serve transactions and previews', async (t) => {
  const webhooks = plugin.createMemoryWebhookStore()
  const authorize = ({ headers }: { headers: Record<string, unknown> }) => {
    if (headers['x-role'] !== 'manager') throw Object.assign(new Error('unauthorized'), { statusCode: 401 })
  }
  const host = await buildHost(t, {
    webhooks,
    async extend(app) {
      const given = { app, webhooks, authorize }
      await runBlock('docs/hosts.md', 'The route of transactions', given)
      await runBlock('docs/hosts.md', 'A route for previews', given)
    }
  })
  const id = await apiOf(host).backup()
  const call = (method: 'GET' | 'PUT', url: string, headers = host.as('manager')) =>
    host.app.inject({ method, url, headers })
  const preview = await call('PUT', `/ak/api/v1/previews/${id}`)
  t.equal(preview.statusCode, 202)
  const { tx_id } = preview.json()
  await host.waitForRestore(tx_id)
  const path = `/ak/api/v1/webhooks/txs/${tx_id}`
  const told = (await call('GET', path)).json()
  t.match(told, { status: 'success', tx_id })
  t.notHas(told, 'client_webhook_url')
  t.equal((await call('GET', path, host.as('none'))).statusCode, 401)
  t.equal((await call('GET', '/ak/api/v1/webhooks/txs/nope')).statusCode, 404)
})
