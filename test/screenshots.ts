import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Page } from 'playwright-core'
import type { Test } from 'tap'
import { launchBrowser } from './helpers/browser.js'
import { signIn } from './helpers/operator.js'
import { type OperatorConsole, startConsole } from './helpers/operator-console.js'
import { poll } from './helpers/poll.js'
import { seedDocuments } from './helpers/seed.js'

/** Directory of the pictures that `npm run screenshots` takes of the operator page. */
const DIRECTORY = join(__dirname, '..', 'docs', 'images')
const HOUR = 3_600_000

async function main(): Promise<void> {
  mkdirSync(DIRECTORY, { recursive: true })
  const teardowns: (() => unknown)[] = []
  const t = { teardown: (handler: () => unknown) => teardowns.unshift(handler) } as unknown as Test
  try {
    const names = {
      components: 'example_components',
      sessions: 'example_sessions',
      system: 'example_system'
    }
    const former = await startConsole(t, { names })
    await populate(former)
    await former.app.close()
    const schedule = { cron: '0 1 * * *', unlessYoungerThan: 12 * HOUR }
    const console = await startConsole(t, { on: former.on, schedule })
    await poll('the schedule', async () => console.app.dbBackups.schedule?.last)
    const browser = await launchBrowser(t)
    const open = async (colorScheme: 'light' | 'dark', width: number, height: number) => {
      const context = await browser.newContext({
        colorScheme,
        viewport: { width, height },
        reducedMotion: 'reduce'
      })
      const page = await context.newPage()
      page.setDefaultTimeout(10_000)
      await page.goto(console.url)
      await signIn(page, console)
      await page.getByRole('heading', { name: 'Backups', level: 1 }).waitFor()
      await page.getByText(/^Kept/).first().waitFor()
      return page
    }
    const take = (page: Page, name: string, fullPage = false) =>
      page.screenshot({ path: join(DIRECTORY, `${name}.png`), fullPage, animations: 'disabled' })

    const page = await open('light', 1040, 1000)
    await take(page, 'operator-page')
    await page
      .getByRole('region', { name: 'Over time' })
      .screenshot({ path: join(DIRECTORY, 'over-time.png'), animations: 'disabled' })
    await page.getByRole('button', { name: 'Prune…' }).click()
    await page.getByLabel('Type prune to confirm').waitFor()
    await take(page, 'pruning')
    await page.keyboard.press('Escape')
    await take(await open('dark', 1040, 1000), 'operator-page-dark')
    await take(await open('light', 390, 1000), 'operator-page-narrow')

    const components = console.on.couch.use(console.on.names.components)
    await components.destroy('org1peer1', (await components.get('org1peer1'))._rev)
    const overwritten = { ...(await components.get('org1msp')), display_name: 'Changed by mistake' }
    await components.insert(overwritten)

    await page
      .getByRole('button', { name: /^Restore… the/ })
      .first()
      .click()
    await page.getByLabel('Leave alone in system').fill('00_settings_athena')
    await page.getByRole('button', { name: 'Preview' }).click()
    const confirmation = page.getByLabel(/to confirm/)
    await confirmation.waitFor()
    const word = await page.locator('[data-confirm-label] code').textContent()
    await confirmation.fill(word ?? '')
    await take(page, 'restore-preview')
    await page.getByRole('button', { name: /^Restore \d/ }).click()
    await page.getByRole('heading', { name: 'The restore is done' }).waitFor()
    await take(page, 'restore-done')
  } finally {
    for (const teardown of teardowns) await teardown()
  }
}

/** Makes backups of several days, with the clock set back. Nothing else about them is made up. */
async function populate({ app, on }: OperatorConsole): Promise<void> {
  const now = Date.now
  const shift = async (hours: number, work: () => Promise<unknown>) => {
    Date.now = () => now() - hours * HOUR
    try {
      await work()
    } finally {
      Date.now = now
    }
  }
  const components = on.couch.use(on.names.components)
  const backUp = async () => (await app.dbBackups.start()).finished
  await components.bulk({ docs: [...seedDocuments({ count: 2200, prefix: 'peer' })] })
  await shift(97, backUp)
  await components.bulk({ docs: [...seedDocuments({ count: 300, prefix: 'orderer' })] })
  await shift(51, backUp)
  await shift(49, async () => {
    const { id, finished } = await app.dbBackups.start({ note: 'Before the upgrade', protect: true })
    await finished
    await app.dbBackups.attach(id, 'apollo-settings', Buffer.from('{}').toString('base64'))
  })
  await shift(25, async () => {
    const { finished } = await app.dbBackups.start()
    await on.couch.db.destroy(on.names.sessions)
    await finished.catch(() => undefined)
    await on.couch.db.create(on.names.sessions)
  })
  await shift(3, backUp)
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
