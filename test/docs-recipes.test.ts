import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import Fastify from 'fastify'
import t from 'tap'
import ts from 'typescript'
import * as plugin from '../lib/index.js'
import { apiOf } from './helpers/api.js'
import { setupDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { poll } from './helpers/poll.js'
import { load } from './helpers/seed.js'

/** Returns the first TypeScript block below a heading of a page. */
function blockBelow(page: string, heading: string): string {
  const text = readFileSync(join(__dirname, '..', page), 'utf8')
  const section = text.slice(text.search(new RegExp(`^##+ ${heading}$`, 'm')))
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

t.test('the nightly recipe has backups made by the schedule', async (t) => {
  const { couch, names } = await setupDatabases(t)
  const app = Fastify()
  t.teardown(() => app.close())
  const webhooks = plugin.createMemoryWebhookStore()
  const options = { couch, databases: names, authorize: () => {}, webhooks, rebuildWhitelist: () => {} }
  await runBlock('docs/recipes.md', 'A backup every night', { app, dbBackups: plugin.dbBackups, options })
  await app.ready()
  const first = await poll('the first backup', () => app.dbBackups.schedule?.last)
  t.match(first, { result: 'made' }, 'the console had none')
  const { next } = app.dbBackups.schedule!
  const [hour, minute] = [{ hour: '2-digit' }, { minute: 'numeric' }].map((part) =>
    new Date(next).toLocaleString('en-GB', {
      timeZone: 'Europe/Berlin',
      ...part
    } as Intl.DateTimeFormatOptions)
  )
  t.strictSame([hour, minute], ['02', '0'])
})

t.test('the recipe for a look before restoring counts, and names ids that no document has', async (t) => {
  const { app, on } = await buildHost(t)
  await load(on.couch.use(on.names.components), [{ _id: 'org1peer1' }, { _id: 'org2peer1' }])
  await (await app.dbBackups.start()).finished
  const given = { app }
  const seen = await runBlock('docs/recipes.md', 'Look before restoring', given, 'databases', 'skip_unknown')
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
