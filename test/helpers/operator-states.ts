import axe from 'axe-core'
import type { Browser, BrowserContextOptions, Page } from 'playwright-core'
import type { Test } from 'tap'
import { confirm, openPage, signIn } from './operator.js'
import { type OperatorConsole, startConsole } from './operator-console.js'
import { poll } from './poll.js'

/** Starts a console with a schedule, a complete backup with an attachment, and a failed backup. */
export async function startWithBackups(t: Test): Promise<OperatorConsole> {
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
  return console
}

/** Goes the whole way of an operator, and checks every state of the page on the way. */
export async function everyState(
  t: Test,
  browser: Browser,
  console: OperatorConsole,
  options: BrowserContextOptions
): Promise<void> {
  const components = console.on.couch.use(console.on.names.components)
  await components.destroy('org1peer1', (await components.get('org1peer1'))._rev)
  const { page, faults } = await openPage(t, browser, console, options)

  await page.getByRole('button', { name: 'Sign in' }).click()
  await page.getByText('Enter your email.').waitFor()
  await check(t, page, 'sign-in with a complaint')

  await signIn(page, console)
  const failed = page.getByRole('row', { name: /Failed/ }).first()
  await failed.waitFor()
  await page.getByText('Details').last().click()
  await page.getByRole('button', { name: 'Back up now' }).click()
  await page.getByRole('button', { name: 'Dismiss' }).waitFor()
  await check(t, page, 'the list with a notice')

  await failed.getByRole('button', { name: /^Verify…/ }).hover()
  await page.getByRole('tooltip').getByText('The backup has failed').waitFor()
  await check(t, page, 'why a button is off')

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

  await page.getByRole('button', { name: 'Restore from a file…' }).click()
  await page.getByRole('button', { name: 'Preview' }).click()
  await page.getByText('Choose a backup file.').waitFor()
  await check(t, page, 'the dialog of a file, with a complaint')
  await page.keyboard.press('Escape')

  await complete.getByRole('button', { name: /^Restore/ }).click()
  await page.getByText('Choose documents, or delete others').click()
  const chosen = page.getByRole('group', { name: console.on.names.components })
  await chosen.getByLabel('Documents to restore').selectOption('only')
  await chosen.getByLabel('Selector').fill('{')
  await page.getByRole('button', { name: 'Preview' }).click()
  await chosen.getByText('This is not JSON').waitFor()
  await check(t, page, 'the restore dialog, with a complaint')
  await chosen.getByLabel('Selector').fill('{ "_id": { "$gt": "org" } }')
  await page.getByRole('button', { name: 'Preview' }).click()
  await confirm(page)
  await check(t, page, 'the preview')
  await page.getByRole('button', { name: /^Restore \d/ }).click()
  await page.getByRole('heading', { name: 'The restore is done' }).waitFor()
  await check(t, page, 'the finished restore')
  await page.getByRole('button', { name: 'Close' }).click()
  t.ok(await components.get('org1peer1'))

  await failed.getByRole('button', { name: /^Delete…/ }).click()
  const removal = page.getByRole('dialog', { name: 'Delete a backup' })
  await removal.getByRole('button', { name: 'Delete' }).click()
  await removal.getByText(/^Type \d+ to confirm that/).waitFor()
  await check(t, page, 'the dialog of a removal, with a complaint')
  await page.keyboard.press('Escape')
  // the other screens need the failed backup and the first one
  const { ids } = await console.app.dbBackups.list()
  const second = page.getByRole('row', { name: /Complete/ }).nth(1)
  const id = await second.getAttribute('data-id')
  await second.getByRole('button', { name: /^Delete…/ }).click()
  await removal.getByLabel(/^Type \d+ to confirm/).fill(id!.slice(-6))
  await page.keyboard.press('Enter')
  await page.getByRole('group', { name: 'Deleted.' }).waitFor()
  t.strictSame(
    (await console.app.dbBackups.list()).ids,
    ids.filter((one) => one !== id)
  )
  t.strictSame(faults, [])
}

async function check(t: Test, page: Page, state: string): Promise<void> {
  await checkRules(t, page, state)
  const wider = await page.evaluate<number>(
    `Math.max(0, ...[document.documentElement, ...document.querySelectorAll('dialog[open]')].map(
      ({ scrollWidth, clientWidth }) => scrollWidth - clientWidth))`
  )
  t.equal(wider, 0, `${state}: nothing is wider than the screen`)
}

/** Checks the rules of axe, except in Firefox: Firefox 153 ends with a segmentation fault after a run of axe. */
async function checkRules(t: Test, page: Page, state: string): Promise<void> {
  if (page.context().browser()?.browserType().name() === 'firefox') return
  if (!(await page.evaluate(`'axe' in globalThis`))) await page.evaluate(axe.source)
  const { violations, passes } = await page.evaluate<{ violations: string[]; passes: number }>(`
    axe.run().then(({ violations, passes }) => ({
      violations: violations.map(({ id, nodes }) => id + ' ' + nodes.map(({ html }) => html).join(' ')),
      passes: passes.length
    }))`)
  t.strictSame(violations, [], `${state}: no violations`)
  t.ok(passes > 10, `${state}: rules were checked`)
}

/** Makes a backup and restores from it by the keyboard alone. */
export async function byKeyboard(t: Test, browser: Browser): Promise<void> {
  const console = await startConsole(t)
  const { page } = await openPage(t, browser, console)
  const { keyboard } = page
  const focused = () =>
    page.evaluate<string>(`(document.activeElement.labels?.[0] ?? document.activeElement).textContent`)
  const tabTo = async (name: RegExp) => {
    for (let presses = 0; presses < 15; presses++) {
      if (name.test((await focused()).trim())) return
      await keyboard.press('Tab')
    }
    t.fail(`Tab does not reach ${name}`)
  }

  await page.getByRole('heading', { name: 'Sign in' }).waitFor()
  await tabTo(/^Email$/)
  await keyboard.type('admin@example.com')
  await tabTo(/^Password$/)
  await keyboard.type(console.passwords['admin@example.com'])
  await keyboard.press('Enter')
  await page.getByRole('heading', { name: 'Backups', level: 1 }).waitFor()
  await tabTo(/^Back up now$/)
  await keyboard.press('Enter')
  await page.getByRole('group', { name: 'The backup is complete.' }).waitFor()
  t.match(await focused(), /Back up now/, 'the focus stays where it was')

  const components = console.on.couch.use(console.on.names.components)
  await components.destroy('org1peer1', (await components.get('org1peer1'))._rev)
  await tabTo(/^Restore… the backup/)
  await keyboard.press('Space')
  await page.getByRole('dialog').waitFor()
  await keyboard.press('Escape')
  await page.getByRole('dialog').waitFor({ state: 'hidden' })
  t.match(await focused(), /^Restore… the backup/, 'Escape closes, and gives the focus back')
  await keyboard.press('Enter')
  await tabTo(/^Leave alone in system$/)
  await keyboard.type('user_admin')
  await tabTo(/^Preview$/)
  await keyboard.press('Enter')
  await page.getByLabel(/^Type .* to confirm$/).waitFor()
  t.match(await focused(), /preview/, 'the focus is on what is new')
  const word = (await page.locator('[data-confirm-label] code').textContent()) ?? ''
  await tabTo(/^Type .* to confirm$/)
  await keyboard.type(word)
  await keyboard.press('Enter')
  await page.getByRole('heading', { name: 'The restore is done' }).waitFor()
  await tabTo(/^Close$/)
  await keyboard.press('Enter')
  // the row and its button may have been replaced meanwhile
  await poll('the focus', async () => /^Restore… the backup/.test(await focused()) || undefined)
  t.ok(await components.get('org1peer1'))
}
