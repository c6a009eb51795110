import { readFile } from 'node:fs/promises'
import type { Browser, Locator } from 'playwright-core'
import t, { type Test } from 'tap'
import { browserMissing, launchBrowser } from './helpers/browser.js'
import { confirm, openConsole, openPage, signIn } from './helpers/operator.js'
import { backUp, READER, startConsole, startGatedConsole } from './helpers/operator-console.js'
import { byKeyboard } from './helpers/operator-states.js'
import { poll } from './helpers/poll.js'

/** Returns why a button is off, as screen readers are told. */
function descriptionOf(button: Locator): Promise<string> {
  const off = button.and(button.page().locator('[aria-disabled=true]'))
  // The row may be replaced meanwhile.
  return poll('the reason', () =>
    off.evaluate((element) => {
      const { ownerDocument } = element as unknown as {
        ownerDocument: { getElementById(id: string | null): { textContent: string } | null }
      }
      const { getAttribute } = element as unknown as { getAttribute(name: string): string | null }
      return ownerDocument.getElementById(getAttribute.call(element, 'aria-describedby'))?.textContent
    })
  )
}

t.test('the operator page', { skip: browserMissing() }, async (t) => {
  const browser = await launchBrowser(t)

  t.test('shows a backup live, downloads, appends, and restores what was lost', (t) => wholeWay(t, browser))
  t.test('follows a restore when its dialog is closed and the page reloaded', (t) => followed(t, browser))
  t.test('restores from a file, and names the documents that failed', (t) => fromFile(t, browser))
  t.test('tells the schedule, until when backups are kept, and prunes', (t) => scheduled(t, browser))
  t.test('starts a backup with a note, and keeps what was entered where it fails', (t) => noted(t, browser))
  t.test('tells which backup another is based on, or why it is a full one', (t) => kinds(t, browser))
  t.test('names the documents that a backup could not read', (t) => unreadable(t, browser))
  t.test('says what is wrong and what to do', (t) => troubles(t, browser))
  t.test('switches off what cannot work, and says why', (t) => off(t, browser))
  t.test('copies the id and the checksum of a backup', (t) => copies(t, browser))
  t.test('claims nothing when a reply is lost', (t) => lostReplies(t, browser))
  t.test('needs nothing but a keyboard', (t) => byKeyboard(t, browser))
})

async function unreadable(t: Test, browser: Browser): Promise<void> {
  const console = await startConsole(t)
  const { on } = console
  const id = await backUp(console)
  const db = on.couch.use(on.names.system)
  // what the header of a backup of a damaged database holds
  const header = (await db.get(id)) as unknown as { dbs: Record<string, object> }
  const named = Array.from({ length: 25 }, (_, i) => ({
    id: `bad ${i}`,
    reason: 'unknown_error: data_error'
  }))
  const unread = {
    unreadable_count: 30,
    unreadable: [{ ...named[0], id_truncated: true }, ...named.slice(1)]
  }
  Object.assign(header.dbs.athena_components!, unread)
  await db.insert(header as never)
  const { page, faults } = await openPage(t, browser, console)
  await signIn(page, console)
  const row = page.getByRole('row', { name: /Complete/ })
  await row.getByText('Without 30 documents that could not be read').waitFor()
  await row.getByText('Details').click()
  await row.getByText('bad 0…: unknown_error: data_error').waitFor()
  await row.getByText('bad 19: unknown_error: data_error').waitFor()
  await row.getByText('and 10 others').waitFor()
  t.equal(await row.getByText('bad 20').count(), 0)
  t.strictSame(faults, [])
}

async function scheduled(t: Test, browser: Browser): Promise<void> {
  const former = await startConsole(t)
  const [first, second, third] = [await backUp(former), await backUp(former), await backUp(former)]
  await former.app.close()
  const schedule = { cron: '0 1 * * *', unlessYoungerThan: 43_200_000 }
  const console = await startConsole(t, { on: former.on, schedule })
  const { app } = console
  const last = await poll('the schedule', () => app.dbBackups.schedule?.last)
  t.equal(last.id, third)
  const { page, faults } = await openConsole(t, browser, console)
  const plan = page.getByRole('region', { name: 'Schedule and pruning' })
  await plan.getByText(/, \d\d:00 \((now|in \d+ (min|h))\)$/).waitFor()
  t.equal(
    await plan.locator('time[data-ahead]').getAttribute('datetime'),
    new Date(app.dbBackups.schedule!.next).toISOString()
  )
  await plan.getByText(/(was there already|was young enough) \(just now\)$/).waitFor()
  await plan.getByText('Removes 1 backup, which frees').waitFor()
  const rows = page.getByRole('row', { name: /Complete/ })
  const { kept } = await app.dbBackups.prune({ dryRun: true })
  const until = await page.evaluate<string>(
    `new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium' }).format(${kept[1].until})`
  )
  await rows
    .first()
    .getByText(`Kept until ${until}: the newest good one; newest of its day, week and month`)
    .waitFor()
  await rows.nth(1).getByText('Goes with the next pruning: no rule keeps it').waitFor()
  await rows
    .last()
    .getByText(/^Kept .*: oldest, until there are enough days, weeks and months$/)
    .waitFor()

  await plan.getByRole('button', { name: 'Prune…' }).click()
  const dialog = page.getByRole('dialog', { name: 'Prune' })
  await dialog
    .getByRole('listitem')
    .getByText(/: no rule keeps it$/)
    .waitFor()
  await dialog.getByLabel('Type prune to confirm').fill('yes')
  await dialog.getByRole('button', { name: 'Remove 1 backup' }).click()
  await dialog.getByText('Type prune to confirm that you want to remove backups.').waitFor()
  t.strictSame((await app.dbBackups.list()).ids, [first, second, third], 'nothing goes without the word')
  await dialog.getByLabel('Type prune to confirm').fill('prune')
  await page.keyboard.press('Enter')
  await page.getByRole('group', { name: 'Pruned.' }).waitFor()
  t.strictSame((await app.dbBackups.list()).ids, [first, third])
  await plan.getByText('Removes nothing').waitFor()
  t.equal(await rows.count(), 2)

  await plan.getByRole('button', { name: 'Prune…' }).click()
  await dialog.getByText('There is nothing to remove: 2 backups stay.').first().waitFor()
  t.equal(await dialog.getByRole('button', { name: /^Remove/ }).count(), 0)
  await page.route('**/operator/api/prune', (route) => route.abort())
  await page.keyboard.press('Escape')
  await page.reload()
  await plan.getByText('Not known. The server does not answer.').waitFor()
  await rows.first().waitFor()
  t.strictSame(faults, [])
}

async function noted(t: Test, browser: Browser): Promise<void> {
  const console = await startConsole(t)
  const { page, faults } = await openConsole(t, browser, console)
  await page.getByText('When somebody starts it: there is no schedule').waitFor()
  t.equal(await page.getByText('Last scheduled run').isVisible(), false)
  const ask = page.getByRole('button', { name: 'Back up with a note…' })
  const dialog = page.getByRole('dialog', { name: 'Back up with a note' })
  await ask.click()
  await dialog.getByLabel('Note').fill('  Before <b>the</b> upgrade ')
  await dialog.getByLabel(/Protect it/).check()
  await page.route('**/operator/api/backups', (route) => route.abort())
  await dialog.getByRole('button', { name: 'Back up', exact: true }).click()
  await page.getByText('It is not known whether a backup was started.').waitFor()
  await page.unroute('**/operator/api/backups')
  await ask.click()
  t.equal(await dialog.getByLabel('Note').inputValue(), '  Before <b>the</b> upgrade ')
  await dialog.getByRole('button', { name: 'Back up', exact: true }).click()
  await page.getByRole('group', { name: 'The backup is complete.' }).waitFor()
  const row = page.getByRole('row', { name: /Complete/ })
  await row.getByText('Before <b>the</b> upgrade', { exact: true }).waitFor()
  await row.getByText('Protected', { exact: true }).waitFor()
  await row.getByText(/^Kept for good: protected; /).waitFor()
  const [id] = (await console.app.dbBackups.list()).ids
  t.match(await console.app.dbBackups.summary(id), { note: 'Before <b>the</b> upgrade', protected: true })
  await ask.click()
  t.equal(await dialog.getByLabel('Note').inputValue(), '', 'once it is started the form is empty')
  t.strictSame(faults, [])
}

async function kinds(t: Test, browser: Browser): Promise<void> {
  const console = await startConsole(t)
  const { on } = console
  await backUp(console)
  await backUp(console)
  const { page } = await openConsole(t, browser, console)
  const rows = page.getByRole('row', { name: /Complete/ })
  await rows.last().getByText('Full: there was no complete backup to build on', { exact: true }).waitFor()
  const kind = on.real
    ? /^Based on the backup of \d/
    : /^Full: this database cannot tell what has changed since the last one$/
  await rows.first().getByText(kind).waitFor()
  t.match(await rows.first().getByRole('cell').nth(3).textContent(), on.real ? /^0 bytes$/ : /^[1-9]/)
  await rows.first().getByText('Details').click()
  const reading = on.real
    ? /^6 documents, 0 bytes added$/
    : /^6 documents, .* added, read in full: this database/
  await rows.first().getByText(reading).waitFor()
}

async function wholeWay(t: Test, browser: Browser): Promise<void> {
  const console = await startGatedConsole(t)
  const { on, app, gate } = console
  const { page, faults } = await openPage(t, browser, console)

  await page.getByLabel('Email').fill('admin@example.com')
  await page.getByLabel('Password').fill('wrong')
  await page.getByRole('button', { name: 'Sign in' }).click()
  await page.getByText('The email or the password is wrong.').waitFor()
  await signIn(page, console)
  await page.getByText('There are no backups yet.').waitFor()

  const letGo = gate.hold(new RegExp(`${on.names.sessions}/_changes`))
  await page.getByRole('button', { name: 'Back up now' }).click()
  const progress = page.getByRole('region', { name: 'Backup in progress' })
  await progress.getByText('components: 6 documents').waitFor()
  await progress.getByText('6 documents so far').waitFor()
  t.equal(await progress.locator('[aria-current=step]').textContent(), `●${on.names.sessions}: being read`)
  await page.getByRole('row', { name: /In progress/ }).waitFor()
  letGo()
  const [id] = (await app.dbBackups.list()).ids
  await page.getByRole('group', { name: 'The backup is complete.' }).waitFor()
  const summary = await app.dbBackups.summary(id)
  const row = page.getByRole('row', { name: /Complete just now/ })
  t.equal(await row.getByRole('cell').nth(1).textContent(), String(summary.doc_count))
  t.match(await row.getByRole('cell').nth(2).textContent(), /^\d[\d.]* KiB$/)
  t.equal(
    await row.locator('time').getAttribute('datetime'),
    new Date(summary.start_timestamp).toISOString(),
    'with the exact time'
  )

  const downloading = page.waitForEvent('download')
  await row.getByRole('link', { name: /^Download/ }).click()
  const download = await downloading
  t.equal(download.suggestedFilename(), `${id}.json`)
  const backup = JSON.parse(await readFile(await download.path(), 'utf8'))
  t.equal(backup.dbs.athena_components.docs.length, 6)

  await row.getByRole('button', { name: /^Append/ }).click()
  await page.getByLabel('Name').fill('apollo')
  await page.getByLabel('File', { exact: true }).setInputFiles({
    name: 'settings.bin',
    mimeType: 'application/octet-stream',
    buffer: Buffer.from([0, 255])
  })
  await page.getByRole('button', { name: 'Append', exact: true }).click()
  await page.getByRole('group', { name: 'Appended.' }).waitFor()
  await row.getByText('Details').click()
  t.match(await row.locator('dl').textContent(), /Attachmentsapollo/)
  const stored = await on.couch.use(on.names.system).attachment.get(id, 'apollo')
  t.equal(stored.toString(), Buffer.from([0, 255]).toString('base64'), 'base 64 of the file')

  const components = on.couch.use<{ display_name?: string }>(on.names.components)
  for (const lost of ['org1peer1', 'org1peer2'])
    await components.destroy(lost, (await components.get(lost))._rev)
  await components.insert({ ...(await components.get('org1msp')), display_name: 'overwritten' })

  await row.getByRole('button', { name: /^Restore/ }).click()
  await page.getByLabel('Leave alone in components').fill('org1peer2\n\n  org1msp \norg1mps\n')
  await page.getByRole('button', { name: 'Preview' }).click()
  await page.getByText('1 document would be written', { exact: true }).waitFor()
  const counts = page.getByRole('table', { name: 'What would be done' })
  const cells = await counts
    .getByRole('row', { name: new RegExp(`^${on.names.components}`) })
    .getByRole('cell')
    .allInnerTexts()
  t.strictSame(cells, ['6', '1', '0', '3', '2'], 'in backup, to create, to change, unchanged, left alone')
  await page
    .getByText('No document has these ids: org1mps in components. Check how they are spelled.')
    .waitFor()
  await t.rejects(components.get('org1peer1'), 'a preview writes nothing')

  const field = page.getByLabel(/^Type .* to confirm$/)
  await field.fill('restore')
  await page.getByRole('button', { name: 'Restore 1 document' }).click()
  await page.getByText(`Type ${id.slice(-6)} to confirm that you want to restore.`).waitFor()
  await t.rejects(components.get('org1peer1'), 'nothing is restored without the confirmation')
  await confirm(page)
  await page.getByRole('button', { name: 'Restore 1 document' }).click()
  await page.getByRole('heading', { name: 'The restore is done' }).waitFor()
  await page.getByText('1 ids to skip are of no document of components: "org1mps"').waitFor()
  t.ok(await components.get('org1peer1'))
  t.equal((await components.get('org1msp')).display_name, 'overwritten', 'left alone')
  await t.rejects(components.get('org1peer2'), 'left alone')
  await page.getByRole('button', { name: 'Close' }).click()

  t.strictSame(faults, [], 'the policy was not violated, nothing was missing')
  await page
    .evaluate(`document.head.append(Object.assign(document.createElement('script'), { text: '0' }))`)
    .catch(() => undefined)
  await page.evaluate(`document.body.setAttribute('style', 'color: red')`)
  await poll('both violations', () => (faults.length >= 2 ? true : undefined))
  t.match(
    faults,
    [/policy require-trusted-types-for/, /policy style-src-attr/],
    'a violation would be noticed'
  )
}

async function followed(t: Test, browser: Browser): Promise<void> {
  const console = await startGatedConsole(t)
  const { on, gate } = console
  await backUp(console)
  const components = on.couch.use(on.names.components)
  await components.destroy('org1peer1', (await components.get('org1peer1'))._rev)
  const { page, faults } = await openConsole(t, browser, console)

  await page.getByRole('button', { name: /^Restore… the/ }).click()
  await page.getByRole('button', { name: 'Preview' }).click()
  await confirm(page)
  const letGo = gate.hold(new RegExp(`POST /${on.names.components}/_bulk_docs`))
  await page.getByRole('button', { name: 'Restore 1 document' }).click()
  const dialog = page.getByRole('dialog', { name: 'Restore' })
  await dialog.getByRole('listitem').getByText('restoring 6 documents of components').waitFor()
  const bar = await poll('a bar by documents', async () => {
    const value = Number(await dialog.getByRole('progressbar').getAttribute('value'))
    return value > 0 ? value : undefined
  })
  t.ok(bar < 1, 'by documents, and not all yet')
  await dialog.getByText(/^\d+ documents so far of about \d+, /).waitFor()
  await dialog.getByRole('button', { name: 'Close' }).click()
  await page.getByRole('heading', { name: 'A restore is in progress' }).waitFor()

  await page.reload()
  await page.getByRole('heading', { name: 'A restore is in progress' }).waitFor()
  const start = page.getByRole('button', { name: 'Back up now' })
  t.equal(
    await descriptionOf(start),
    'A restore or a preview of one is running. Wait until it has ended.',
    'off, with the reason'
  )
  await page.getByRole('button', { name: 'Show progress' }).click()
  await dialog.getByText(/restored by admin@example.com/).waitFor()
  letGo()
  await dialog.getByRole('heading', { name: 'The restore is done' }).waitFor()
  t.match(await dialog.textContent(), /1 document written/)
  await dialog.getByRole('button', { name: 'Close' }).click()
  t.equal(await page.getByRole('heading', { name: 'A restore is in progress' }).count(), 0)
  t.strictSame(faults, [])
}

async function fromFile(t: Test, browser: Browser): Promise<void> {
  const console = await startConsole(t)
  const { page, faults } = await openConsole(t, browser, console)
  const dialog = page.getByRole('dialog', { name: 'Restore' })
  const choose = async (content: string) => {
    await page.getByLabel('Backup file').setInputFiles({
      name: 'backup.json',
      mimeType: 'application/json',
      buffer: Buffer.from(content)
    })
    await page.getByRole('button', { name: 'Preview' }).click()
  }
  await page.getByRole('button', { name: 'Restore from a file…' }).click()
  await choose('{"dbs":{"nope":{}}}')
  await dialog.getByText('This is not a backup that can be restored: "dbs.nope" is not a database').waitFor()
  const docs = [{ _id: 'org9peer1' }, { _id: 'refused', _foo: 1 }]
  await choose(JSON.stringify({ dbs: { components: { docs } } }))
  await dialog.getByText('2 documents would be written', { exact: true }).waitFor()
  t.equal(await page.locator('[data-confirm-label] code').textContent(), 'restore')
  await confirm(page)
  await page.keyboard.press('Enter')
  await dialog.getByRole('heading', { name: 'The restore ended with an error' }).waitFor()
  t.match(
    await dialog.getByRole('region', { name: 'Documents that were not restored' }).textContent(),
    /refused.*_foo/
  )
  t.match(
    await dialog.textContent(),
    /1 document written .*, 1 failed\. Remove the cause, then restore again/
  )
  t.ok(await console.on.couch.use(console.on.names.components).get('org9peer1'))
  await dialog.getByRole('button', { name: 'Close' }).click()

  const dropped = JSON.stringify({ dbs: { components: { docs: docs.slice(0, 1) } } })
  await page.evaluate(`{
    const dataTransfer = new DataTransfer()
    dataTransfer.items.add(new File([${JSON.stringify(dropped)}], 'dropped.json'))
    document.querySelector('main').dispatchEvent(new DragEvent('drop', { dataTransfer, bubbles: true, cancelable: true }))
  }`)
  await dialog.getByText(/^The file dropped.json/).waitFor()
  await page.getByRole('button', { name: 'Preview' }).click()
  await dialog.getByText('Nothing to restore').waitFor()
  t.equal(await dialog.getByRole('button', { name: /^Restore/ }).count(), 0, 'there is nothing to confirm')
  t.strictSame(faults, [])
}

async function troubles(t: Test, browser: Browser): Promise<void> {
  const console = await startGatedConsole(t)
  const { on, app } = console
  const { page, faults } = await openPage(t, browser, console)
  await signIn(page, console, READER)
  await page.getByText('Your account may not manage backups.').waitFor()
  t.equal(await page.getByRole('button', { name: 'Back up now' }).count(), 0)
  await signIn(page, console)
  await page.getByText('There are no backups yet.').waitFor()

  const { id, finished } = await app.dbBackups.start()
  const letGo = console.gate.hold(/_changes/)
  await page.getByRole('button', { name: 'Back up now' }).click()
  await page.getByText('The same operation is running already.').waitFor()
  await page.getByRole('region', { name: 'Backup in progress' }).waitFor()
  await on.couch.db.destroy(on.names.sessions)
  letGo()
  await t.rejects(finished)
  await page.getByRole('alert', { name: 'The backup failed.' }).waitFor()
  const { error } = await app.dbBackups.summary(id)
  const failed = page.getByRole('row', { name: /Failed/ })
  t.match(await failed.textContent(), error, 'the list says why')
  for (const name of ['Download', 'Append…', 'Restore…', 'Verify…', 'Compare…']) {
    const reason = await descriptionOf(failed.getByRole('button', { name: new RegExp(`^${name}`) }))
    t.equal(reason, 'The backup has failed, and holds no documents.', name)
  }

  const start = page.getByRole('button', { name: 'Back up now' })
  // Once no request is answered, the page learns of nothing that would switch it on.
  await start.and(page.locator(':not([aria-disabled])')).waitFor()
  await page.route('**/api/**', (route) => route.abort())
  await start.click()
  await page.getByText('The server does not answer. Check that it is running').waitFor()
  await page.unroute('**/api/**')

  await page.context().clearCookies()
  await page.getByRole('button', { name: 'Back up now' }).click()
  await page.getByText('Your session has ended.').waitFor()
  t.equal(await page.evaluate('document.activeElement.id'), 'email')
  await signIn(page, console)
  await failed.waitFor()
  await page.getByRole('button', { name: 'Sign out' }).click()
  await page.getByText('You have signed out.').waitFor()
  t.strictSame(faults, [])
}

async function off(t: Test, browser: Browser): Promise<void> {
  const console = await startGatedConsole(t)
  const { on, app, gate } = console
  await backUp(console)
  await backUp(console)
  const { page, faults } = await openConsole(t, browser, console)
  await page.getByText(/^Removes /).waitFor()
  const older = page.getByRole('row', { name: /Complete/ }).last()
  const button = (name: string) => page.getByRole('button', { name, exact: true })
  const WAIT = 'A backup is running. Wait until it has ended.'

  // The page does not know of it: the server refuses, and its reason is shown.
  const letGo = gate.hold(new RegExp(`${on.names.sessions}/_changes`))
  const { finished } = await app.dbBackups.start()
  await button('Back up now').click()
  await page.getByText('The same operation is running already.').waitFor()
  for (const name of ['Back up now', 'Back up with a note…', 'Restore from a file…', 'Prune…'])
    t.equal(await descriptionOf(button(name)), WAIT, name)
  for (const name of [/^Restore…/, /^Delete…/])
    t.equal(await descriptionOf(older.getByRole('button', { name })), WAIT, `${name}`)
  for (const name of [/^Verify…/, /^Compare…/, /^Append…/])
    t.equal(await older.getByRole('button', { name }).getAttribute('aria-disabled'), null, `${name}`)
  const running = page.getByRole('row', { name: /In progress/ })
  for (const name of ['Download', 'Restore…', 'Verify…', 'Compare…', 'Delete…']) {
    const reason = await descriptionOf(running.getByRole('button', { name: new RegExp(`^${name}`) }))
    t.equal(reason, 'The backup is still being made.', name)
  }

  const tip = page.getByRole('tooltip')
  await button('Restore from a file…').focus()
  await page.keyboard.press('Tab')
  await tip.getByText(WAIT).waitFor()
  await page.keyboard.press('Escape')
  await tip.waitFor({ state: 'hidden' })
  await page.keyboard.press('Enter')
  await tip.getByText(WAIT).waitFor()
  t.notOk(await page.getByRole('dialog').isVisible(), 'nothing begins')
  letGo()
  await finished
  await button('Back up now').and(page.locator(':not([aria-disabled])')).waitFor()
  t.equal(
    await descriptionOf(
      page
        .getByRole('row', { name: /Complete/ })
        .first()
        .getByRole('button', { name: /^Delete…/ })
    ),
    'The newest good backup cannot be deleted.'
  )

  // Somebody else restores: the page finds out by itself when that is over.
  const components = on.couch.use(on.names.components)
  const letRestore = gate.hold(new RegExp(`GET /${on.names.components}/_all_docs`))
  const [id] = (await app.dbBackups.list()).ids
  await components.destroy('org1peer1', (await components.get('org1peer1'))._rev)
  const restore = await app.dbBackups.restore({ id: id! }, { safety: false, dryRun: true })
  await page.reload()
  t.equal(
    await descriptionOf(button('Back up now')),
    'A restore or a preview of one is running. Wait until it has ended.'
  )
  letRestore()
  await restore.finished
  await button('Back up now').and(page.locator(':not([aria-disabled])')).waitFor()

  await page.route('**/api/prune', (route) =>
    route.fulfill({
      status: 400,
      json: { message: 'options/keep is missing, and the option keep of the plugin as well' }
    })
  )
  // Athena's backups tell no checksum.
  await page.route('**/api/overview?*', async (route) => {
    const response = await route.fetch()
    const overview = await response.json()
    for (const backup of overview.backups) delete backup.content_sha256
    await route.fulfill({ response, json: overview })
  })
  await page.reload()
  t.equal(
    await descriptionOf(button('Prune…')),
    'The server has no rules for what to keep: set the option keep.'
  )
  t.match(
    await descriptionOf(older.getByRole('button', { name: /^Verify…/ })),
    /^Athena made this backup, without checksums/
  )
  t.strictSame(faults, [])
}

async function copies(t: Test, browser: Browser): Promise<void> {
  const console = await startConsole(t)
  const id = await backUp(console)
  const { page, faults } = await openConsole(t, browser, console)
  await page.evaluate(`navigator.clipboard.writeText = async (text) => { globalThis.copied = text }`)
  const row = page.getByRole('row', { name: /Complete/ })
  await row.getByRole('button', { name: /^Copy id/ }).click()
  t.equal(await page.evaluate('copied'), id)
  await row.getByText('Details').click()
  await row.getByRole('button', { name: /^Copy checksum/ }).click()
  const { content_sha256: checksum } = await console.app.dbBackups.summary(id)
  t.match(checksum, /^[0-9a-f]{64}$/)
  t.equal(await page.evaluate('copied'), checksum)
  await console.app.dbBackups.attach(id, 'note', 'x')
  await console.app.dbBackups.verify(id)
  t.equal((await console.app.dbBackups.summary(id)).content_sha256, checksum, 'it is of the documents')
  await page.evaluate(`navigator.clipboard.writeText = async () => { throw new Error('not allowed') }`)
  await row.getByRole('button', { name: /^Copy checksum/ }).click()
  await page.getByText(`The checksum is ${checksum}`).waitFor()
  t.strictSame(faults, [])
}

/** Lets a request take effect, and hides the reply from the page. */
async function lostReplies(t: Test, browser: Browser): Promise<void> {
  const console = await startConsole(t)
  const { on, app } = console
  const { page } = await openPage(t, browser, console)
  await signIn(page, console)
  const writes = (url: URL) => /\/api\/(v2\/)?backups(?!.*\/preview$)/.test(url.pathname)
  await page.route(writes, async (route) => {
    if (route.request().method() === 'GET') return route.continue()
    await route.fetch()
    await route.abort()
  })
  await page.getByRole('button', { name: 'Back up now' }).click()
  await page.getByText('It is not known whether a backup was started.').waitFor()
  await page.getByRole('group', { name: 'The backup is complete.' }).waitFor()
  t.equal((await app.dbBackups.list()).ids.length, 1, 'it was')

  const row = page.getByRole('row', { name: /^Complete/ })
  const components = on.couch.use(on.names.components)
  await components.destroy('org1peer1', (await components.get('org1peer1'))._rev)
  await row.getByRole('button', { name: /^Restore/ }).click()
  await page.getByRole('button', { name: 'Preview' }).click()
  await confirm(page)
  await page.getByRole('button', { name: 'Restore 1 document' }).click()
  await page.getByText('The restore may have started all the same').waitFor()
  await page.keyboard.press('Escape')
  while (!(await components.get('org1peer1').catch(() => undefined))) await page.waitForTimeout(50)
}
