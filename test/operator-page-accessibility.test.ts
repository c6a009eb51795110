import axe from 'axe-core'
import type { Browser, BrowserContextOptions, Page } from 'playwright-core'
import t, { type Test } from 'tap'
import { browserMissing, launchBrowser } from './helpers/browser.js'
import { confirm, openPage, signIn } from './helpers/operator.js'
import { type OperatorConsole, startConsole } from './helpers/operator-console.js'
import { poll } from './helpers/poll.js'
import { extent } from './helpers/settings.js'

const SCREENS: Record<string, BrowserContextOptions> = {
  light: { colorScheme: 'light', viewport: { width: 1100, height: 800 } },
  dark: { colorScheme: 'dark', viewport: { width: 1100, height: 800 } },
  'light, 320 px wide': { colorScheme: 'light', viewport: { width: 320, height: 640 } }
}

t.test('the operator page is accessible in every state', { skip: browserMissing() }, async (t) => {
  const browser = await launchBrowser(t)
  const console = await startConsole(t, { schedule: { cron: '0 1 1 1 *' } })
  await poll('the schedule', () => console.app.dbBackups.schedule?.last)
  await console.on.couch.use(console.on.names.sessions).insert({ _id: 'kept' } as object)
  // pruning follows the scheduled backup
  const start = () => console.app.dbBackups.start().catch(() => undefined)
  const { id, finished } = await poll('a backup', start)
  await finished
  await console.app.dbBackups.attach(id, 'an-attachment-with-a-rather-long-name-that-has-no-spaces', 'x')
  // a backup fails when a database of the last one is missing
  await console.on.couch.db.destroy(console.on.names.sessions)
  const failed = await console.app.dbBackups.start()
  await t.rejects(failed.finished)
  await console.on.couch.db.create(console.on.names.sessions)
  // The colours of the first are those of the third, its width is that of the second.
  for (const [screen, options] of Object.entries(SCREENS).slice(extent(1, 0))) {
    await t.test(screen, (t) => everyState(t, browser, console, options))
  }
})

async function everyState(
  t: Test,
  browser: Browser,
  console: OperatorConsole,
  options: BrowserContextOptions
): Promise<void> {
  const components = console.on.couch.use(console.on.names.components)
  await components.destroy('org1peer1', (await components.get('org1peer1'))._rev)
  const { page } = await openPage(t, browser, console, options)
  await page.evaluate(axe.source)

  await page.getByRole('button', { name: 'Sign in' }).click()
  await page.getByText('Enter your email.').waitFor()
  await check(t, page, 'sign-in with a complaint')

  await signIn(page, console)
  await page.getByRole('row', { name: /Failed/ }).waitFor()
  await page.getByText('Details').last().click()
  await page.getByRole('button', { name: 'Back up now' }).click()
  await page.getByRole('button', { name: 'Dismiss' }).waitFor()
  await check(t, page, 'the list with a notice')

  await page.getByRole('button', { name: 'Back up with a note…' }).click()
  await check(t, page, 'the form of a backup with a note')
  await page
    .getByLabel('Note', { exact: true })
    .fill('A note that is longer than the screen is wide, and_has_words_that_are_longer_still')
  await page.getByLabel(/Protect it/).check()
  await page.getByRole('button', { name: 'Back up', exact: true }).click()
  await page.getByText('Protected', { exact: true }).first().waitFor()
  await page
    .getByText(/^Kept until/)
    .first()
    .waitFor()
  await check(t, page, 'the list with a note')

  await page.getByRole('button', { name: 'Prune…' }).click()
  const remove = page.getByRole('button', { name: /^Remove \d/ })
  await remove.click()
  await check(t, page, 'what pruning would remove, with a complaint')
  await page.keyboard.press('Escape')

  const complete = page.getByRole('row', { name: /Complete/ }).last()
  await complete.getByRole('button', { name: /^Append/ }).click()
  await page.getByRole('button', { name: 'Append', exact: true }).click()
  await check(t, page, 'the append dialog with a complaint')
  await page.keyboard.press('Escape')

  for (const [button, outcome] of [
    ['Verify', /^Nothing is wrong/],
    ['Compare', /^Since this backup/]
  ] as const) {
    await complete.getByRole('button', { name: new RegExp(`^${button}…`) }).click()
    await page.getByRole('button', { name: button, exact: true }).click()
    await page.getByRole('paragraph').filter({ hasText: outcome }).waitFor()
    await check(t, page, `the outcome of ${button}`)
    await page.keyboard.press('Escape')
  }

  await page.getByText('As a table').click()
  await check(t, page, 'the backups over time, as a table')

  await complete.getByRole('button', { name: /^Restore/ }).click()
  await check(t, page, 'the restore dialog')
  await page.getByRole('button', { name: 'Preview' }).click()
  await confirm(page)
  await check(t, page, 'the preview')
  await page.getByRole('button', { name: /^Restore \d/ }).click()
  await page.getByRole('heading', { name: 'The restore is done' }).waitFor()
  await check(t, page, 'the finished restore')
}

async function check(t: Test, page: Page, state: string): Promise<void> {
  const { violations, passes } = await page.evaluate<{ violations: string[]; passes: number }>(`
    axe.run().then(({ violations, passes }) => ({
      violations: violations.map(({ id, nodes }) => id + ' ' + nodes.map(({ html }) => html).join(' ')),
      passes: passes.length
    }))`)
  t.strictSame(violations, [], `${state}: no violations`)
  t.ok(passes > 10, `${state}: rules were checked`)
  const wider = await page.evaluate<number>(
    `Math.max(0, ...[document.documentElement, ...document.querySelectorAll('dialog[open]')].map(
      ({ scrollWidth, clientWidth }) => scrollWidth - clientWidth))`
  )
  t.equal(wider, 0, `${state}: nothing is wider than the screen`)
}
