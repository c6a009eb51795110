import type { Browser, Page } from 'playwright-core'
import t from 'tap'
import type { StoredHeader } from '../lib/repository/layout.js'
import { browserMissing, launchBrowser } from './helpers/browser.js'
import { openConsole } from './helpers/operator.js'
import { backUp, startConsole, startGatedConsole, systemChunkOf } from './helpers/operator-console.js'
import { poll } from './helpers/poll.js'

/** Presses a button of a backup. @returns the dialog that it opens */
async function open(page: Page, row: 'first' | 'last', button: RegExp, title: string) {
  await page
    .getByRole('row', { name: /Complete/ })
    [row]()
    .getByRole('button', { name: button })
    .click()
  return page.getByRole('dialog', { name: title })
}

const missing = browserMissing()

t.test('the page verifies a backup, and tells what is damaged', { skip: missing }, async (t) => {
  const browser: Browser = await launchBrowser(t)
  const console = await startConsole(t)
  const { on, app } = console
  const id = await backUp(console)
  const { page, faults } = await openConsole(t, browser, console)
  await page.getByText('The newest good backup has not been verified').waitFor()

  const dialog = await open(page, 'first', /^Verify…/, 'Verify a backup')
  for (const depth of ['Structure', 'Restore', 'Data']) {
    await dialog.getByRole('radio', { name: new RegExp(`^${depth}:`) }).check()
    await dialog.getByRole('button', { name: 'Verify' }).click()
    await dialog
      .getByRole('paragraph')
      .filter({ hasText: /^Nothing is wrong: \d+ documents in/ })
      .waitFor()
    t.equal((await app.dbBackups.summary(id)).verified?.depth, depth.toLowerCase(), depth)
  }
  await page.keyboard.press('Escape')
  await page.getByText(/^Passed \(just now, data\)/).waitFor()

  const system = on.couch.use(on.names.system)
  const header = (await system.get(id)) as unknown as StoredHeader
  const { id: chunk } = header.storage.databases.components!.chunks[0]!
  await system.destroy(chunk, (await system.get(chunk))._rev)
  const again = await open(page, 'first', /^Verify…/, 'Verify a backup')
  t.notOk(
    await again
      .getByRole('paragraph')
      .filter({ hasText: /^Nothing is wrong/ })
      .isVisible(),
    'of an earlier time'
  )
  await again.getByRole('button', { name: 'Verify' }).click()
  await again
    .getByRole('paragraph')
    .filter({ hasText: /^1 part of it is damaged/ })
    .waitFor()
  await again.getByText(`${on.names.components}, chunk ${chunk} is missing`).waitFor()
  await again.getByRole('button', { name: 'Close' }).click()
  await page.getByText('Damaged', { exact: true }).waitFor()
  t.strictSame(faults, [])
})

t.test('the page goes on with a verification that was interrupted', { skip: missing }, async (t) => {
  const browser = await launchBrowser(t)
  const console = await startGatedConsole(t)
  const { app, gate } = console
  const id = await backUp(console)
  const { page, faults } = await openConsole(t, browser, console)
  const asked: { depth?: string; from?: string }[] = []
  let cancels = 0
  page.on('request', (request) => {
    if (request.url().endsWith('/verify')) asked.push(request.postDataJSON())
    if (request.url().endsWith('/cancel')) cancels++
  })
  const last = await systemChunkOf(console, id)

  const dialog = await open(page, 'first', /^Verify…/, 'Verify a backup')
  const letGo = gate.hold(last)
  await dialog.getByRole('button', { name: 'Verify' }).click()
  await gate.held(last)
  await dialog.getByRole('button', { name: 'Interrupt' }).dblclick()
  await dialog
    .getByRole('paragraph')
    .filter({
      hasText: /^The verification of backup .* was interrupted: .*cancelled.*\. It can go on from there\.$/
    })
    .waitFor()
  t.equal(cancels, 1, 'by two clicks')
  letGo()
  await dialog.getByRole('radio', { name: /^Structure:/ }).check()
  await dialog.getByRole('button', { name: 'Verify' }).waitFor()
  await dialog.getByRole('radio', { name: /^Data:/ }).check()
  await dialog.getByRole('button', { name: 'Go on' }).waitFor()

  const letReload = gate.hold(last)
  await dialog.getByRole('button', { name: 'Go on' }).click()
  await gate.held(last)
  await page.reload()
  await poll('its end', () => (app.dbBackups.running.length === 0 ? true : undefined))
  letReload()
  await open(page, 'first', /^Verify…/, 'Verify a backup')

  const letGoAgain = gate.hold(last)
  await dialog.getByRole('button', { name: 'Go on' }).click()
  await gate.held(last)
  await page.keyboard.press('Escape')
  await poll('its end', () => (app.dbBackups.running.length === 0 ? true : undefined))
  letGoAgain()
  await page.reload()
  await open(page, 'first', /^Verify…/, 'Verify a backup')
  await dialog.getByRole('button', { name: 'Go on' }).click()
  await dialog
    .getByRole('paragraph')
    .filter({ hasText: /^Nothing is wrong: \d+ documents in/ })
    .waitFor()
  await dialog.getByRole('button', { name: 'Verify' }).waitFor()
  t.match(asked, [{ depth: 'data' }, { from: /./ }, { from: /./ }, { from: /./ }])
  t.notOk(asked[0]!.from)
  t.equal((await app.dbBackups.summary(id)).verified?.good, true)

  // A position that is refused is not sent again: the next attempt begins at the start.
  for (const [position, reason] of [
    [`'e30'`, 'Options/from is not a position.'],
    [`'A'.repeat(3_200_000)`, /^Body\/from /]
  ] as const) {
    await page.keyboard.press('Escape')
    await page.evaluate(`sessionStorage.setItem('verification ${id} data', ${position})`)
    await open(page, 'first', /^Verify…/, 'Verify a backup')
    await dialog.getByRole('button', { name: 'Go on' }).click()
    await dialog.getByText(reason).waitFor()
    await dialog.getByRole('button', { name: 'Verify' }).waitFor()
  }
  t.strictSame(faults, [])
})

t.test('the page interrupts its own verification, and no other', { skip: missing }, async (t) => {
  const browser = await launchBrowser(t)
  const console = await startGatedConsole(t)
  const { app, gate } = console
  const id = await backUp(console)
  const last = await systemChunkOf(console, id)
  const letGo = gate.hold(last)
  const other = app.dbBackups.verify(id, { depth: 'restore' })
  await gate.held(last)
  t.match(app.dbBackups.running, [{ operation: 'verify', depth: 'restore', lease: true }])

  const { page, faults } = await openConsole(t, browser, console)
  await page
    .getByRole('button', { name: 'Back up now', description: /^A verification is running\./ })
    .waitFor()
  const dialog = await open(page, 'first', /^Verify…/, 'Verify a backup')
  await dialog.getByRole('button', { name: 'Verify' }).click()
  const own = await poll('its own', () => app.dbBackups.running.find(({ depth }) => depth === 'data'))
  t.equal(own.lease, undefined)
  await dialog.getByRole('button', { name: 'Interrupt' }).click()
  await dialog
    .getByRole('paragraph')
    .filter({ hasText: /was interrupted: .* It can go on from there\.$/ })
    .waitFor()
  const [left, ...more] = app.dbBackups.running
  t.match(left, { depth: 'restore' })
  t.notOk(left!.cancelling)
  t.strictSame(more, [])
  letGo()
  t.match(await other, { good: true, depth: 'restore' })
  t.strictSame(faults, [])
})

t.test('the page compares a backup with the databases, and with another', { skip: missing }, async (t) => {
  const browser = await launchBrowser(t)
  const console = await startConsole(t)
  const { on } = console
  const components = on.couch.use<{ display_name?: string }>(on.names.components)
  await backUp(console)
  await components.insert({ ...(await components.get('org1msp')), display_name: 'changed' })
  await components.insert({ display_name: 'new' }, 'created')
  await backUp(console)
  await components.destroy('org1peer1', (await components.get('org1peer1'))._rev)

  const { page, faults } = await openConsole(t, browser, console)
  const dialog = await open(page, 'last', /^Compare…/, 'Compare a backup')
  await dialog.getByLabel('With').selectOption({ label: 'the databases as they are' })
  await dialog.getByRole('button', { name: 'Compare' }).click()
  await dialog
    .getByRole('paragraph')
    .filter({ hasText: 'Since this backup: 1 created, 1 changed, 1 deleted.' })
    .waitFor()
  t.strictSame(
    (await dialog.getByRole('listitem').allInnerTexts()).sort(),
    ['created created', 'org1msp changed: display_name', 'org1peer1 deleted'].map(
      (text) => `${on.names.components}/${text}`
    )
  )
  await dialog.getByLabel('With').selectOption({ index: 1 })
  await dialog.getByRole('button', { name: 'Compare' }).click()
  await dialog
    .getByRole('paragraph')
    .filter({ hasText: 'Since this backup: 1 created, 1 changed.' })
    .waitFor()
  await page.keyboard.press('Escape')

  const newest = await open(page, 'first', /^Compare…/, 'Compare a backup')
  t.notOk(
    await newest
      .getByRole('paragraph')
      .filter({ hasText: /^Since this backup/ })
      .isVisible(),
    'of another backup'
  )
  await newest.getByLabel('With').selectOption({ index: 1 })
  await newest.getByRole('button', { name: 'Compare' }).click()
  await newest
    .getByRole('paragraph')
    .filter({ hasText: 'Since this backup: 1 changed, 1 deleted.' })
    .waitFor()

  // Everything but the last line, which tells that nothing is missing.
  await page.route('**/diff?*', async (route) => {
    const reply = await route.fetch()
    const lines = (await reply.text()).trimEnd().split('\n')
    await route.fulfill({ response: reply, body: lines.slice(0, -1).join('\n') })
  })
  await newest.getByRole('button', { name: 'Compare' }).click()
  await newest.getByText('The server does not answer.').waitFor()
  t.notOk(
    await newest
      .getByRole('paragraph')
      .filter({ hasText: /^Since/ })
      .isVisible(),
    'of a part of a reply'
  )
  t.strictSame(faults, [])
})
