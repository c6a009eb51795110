import { PassThrough } from 'node:stream'
import Fastify from 'fastify'
import t from 'tap'
import type { Context, Values } from '../lib/cli/command.js'
import { restore } from '../lib/cli/commands/restore.js'
import dbBackups, { createMemoryWebhookStore } from '../lib/index.js'
import { browserMissing, launchBrowser } from './helpers/browser.js'
import { buildCli } from './helpers/cli.js'
import { setupDatabases } from './helpers/database.js'
import { confirm, openConsole } from './helpers/operator.js'
import { startConsole } from './helpers/operator-console.js'
import { poll } from './helpers/poll.js'

const ID = '00_settings_athena'
const BEFORE = /warning: where the backup has other settings of the console/
const cli = buildCli(t)

t.test('the command line names settings that were changed', async (t) => {
  const on = await setupDatabases(t)
  const webhooks = createMemoryWebhookStore()
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(dbBackups, {
    couch: on.couch,
    databases: on.names,
    authorize: () => undefined,
    webhooks,
    rebuildWhitelist() {}
  })
  app.get<{ Params: { id: string } }>('/ak/api/v1/webhooks/txs/:id', ({ params }) => webhooks.get(params.id))
  const env = { BACKUPS_URL: await app.listen({ port: 0, host: '127.0.0.1' }), BACKUPS_TOKEN: 'x' }
  await on.couch.use(on.names.system).insert({ host_url: 'https://old.example.com' } as object, ID)
  const { id, finished } = await app.dbBackups.start()
  await finished
  const spoil = async () => {
    const system = on.couch.use(on.names.system)
    await system.insert({ ...(await system.get(ID)), host_url: 'https://new.example.com' } as object)
  }
  await spoil()
  const left = await cli(['restore', id, '--yes', '--wait', '--skip-system', ID], { env })
  t.match(left, { code: 0, stderr: '' })
  const restored = await cli(['restore', id, '--yes', '--wait'], { env })
  t.equal(restored.code, 0)
  t.match(restored.stderr, `warning: the settings document "${ID}" of system was changed`)
  await spoil()
  const unwaited = await cli(['restore', id, '--yes'], { env })
  t.match(unwaited, { code: 0, stderr: BEFORE }, 'also where nobody waits for its end')
  await poll('the end', async () => (await webhooks.get(unwaited.stdout.trim()))?.status !== 'pending')
  const refused = await cli(['restore', `${id}0`, '--yes'], { env })
  t.match(refused.stderr, BEFORE, 'before the server is asked')
  await spoil()
  const told = await cli(['restore', id, '--yes', '--wait', '--json', '--progress'], { env })
  t.match(JSON.parse(told.stdout), { settings_documents: [{ id: ID, change: 'changed' }] })
  t.match(told.stderr, `the settings document "${ID}" of system is being changed`)
})

t.test('the question of the command line names settings that it may overwrite', async (t) => {
  const ask = async (values: Values) => {
    const stdin = Object.assign(new PassThrough(), { isTTY: true })
    const stderr = new PassThrough()
    const client = { signal: new AbortController().signal, host: 'example.com' }
    const context = { stdin, stderr, client } as unknown as Context
    stdin.write('no\n')
    await t.rejects(restore.run(context, ['03_ibp_db_backup_1'], values), { message: /not confirmed/ })
    return String(stderr.read())
  }
  t.match(await ask({}), new RegExp(`${BEFORE.source}[^]*\nType example\\.com to go on: `))
  t.match(await ask({ 'skip-system': ['other'] }), BEFORE)
  t.notMatch(await ask({ 'skip-system': [`["other", "${ID}"]`] }), BEFORE, 'not where it leaves them alone')
})

t.test('the operator page warns of it in the preview', { skip: browserMissing() }, async (t) => {
  const browser = await launchBrowser(t)
  const console = await startConsole(t)
  const { app, on } = console
  const { finished } = await app.dbBackups.start()
  await finished
  const system = on.couch.use(on.names.system)
  const { page, faults } = await openConsole(t, browser, console)
  await system.insert({ ...(await system.get(ID)), host_url: 'https://new.example.com' } as object)

  const row = page.getByRole('row', { name: /Complete/ })
  const warning = page.locator('[data-settings]')
  await row.getByRole('button', { name: /^Restore/ }).click()
  await page.getByLabel('Leave alone in system').fill(ID)
  await page.getByRole('button', { name: 'Preview' }).click()
  await page.getByText(`Left alone: ${ID} in system`).waitFor()
  t.equal(await warning.isVisible(), false, 'not where they are left alone')
  await page.keyboard.press('Escape')

  await row.getByRole('button', { name: /^Restore/ }).click()
  await page.getByRole('button', { name: 'Preview' }).click()
  await warning.waitFor()
  t.match(await warning.textContent(), `${ID} in system would be changed`)
  await confirm(page)
  await page.getByRole('button', { name: 'Restore 1 document' }).click()
  await page.getByRole('heading', { name: 'The restore is done' }).waitFor()
  await page.getByText(`The settings in ${ID} were changed.`).first().waitFor()
  t.strictSame(faults, [])
})
