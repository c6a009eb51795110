import t from 'tap'
import { browserMissing, launchBrowser } from './helpers/browser.js'
import { confirm, openConsole } from './helpers/operator.js'
import { startConsole } from './helpers/operator-console.js'
import { poll } from './helpers/poll.js'

const skip = browserMissing()

/** Drops a file while nothing has the focus. */
const DROP_A_FILE = `
  document.activeElement.blur()
  const dataTransfer = new DataTransfer()
  dataTransfer.items.add(new File(['{}'], 'dropped.json'))
  document.body.dispatchEvent(new DragEvent('drop', { dataTransfer, bubbles: true, cancelable: true }))`

t.test('a restore from the page is about the documents that were chosen', { skip }, async (t) => {
  const browser = await launchBrowser(t)
  const console = await startConsole(t)
  const { on, app } = console
  const components = on.couch.use<{ type?: string }>(on.names.components)
  const system = on.couch.use(on.names.system)
  await (await app.dbBackups.start()).finished
  const lost = ['org1peer1', 'org1peer2', 'org1msp']
  const types: Record<string, string | undefined> = {}
  for (const id of lost) {
    const { _rev, type } = await components.get(id)
    types[id] = type
    await components.destroy(id, _rev)
  }
  await components.insert({ type: types.org1peer1 }, 'added-peer')
  await components.insert({ type: 'other' }, 'added-other')
  await system.destroy('user_admin', (await system.get('user_admin'))._rev).catch(() => undefined)

  const { page, faults } = await openConsole(t, browser, console)
  const dialog = page.getByRole('dialog', { name: 'Restore' })
  await page.getByRole('button', { name: /^Restore… the/ }).click()
  await dialog.getByText('Choose documents, or delete others').click()
  const of = (name: string) => dialog.getByRole('group', { name })
  const preview = dialog.getByRole('button', { name: 'Preview' })
  const which = (name: string) => of(name).getByLabel('Documents to restore')

  for (const name of Object.values(on.names)) await which(name).selectOption('none')
  await preview.click()
  await of(on.names.components).getByText('Choose documents of one database at least.').waitFor()

  await which(on.names.components).selectOption('only')
  await preview.click()
  const inComponents = of(on.names.components)
  await inComponents.getByText('Fill in ids, types or a selector').waitFor()
  const selector = inComponents.getByLabel('Selector')
  for (const [text, complaint] of [
    ['{', /^This is not JSON: /],
    ['[1]', /^The selector must be a JSON object/],
    ['{ "display_name": { "$like": "x" } }', /^Selector\/.*\$like: is an unknown operator/]
  ] as const) {
    await selector.fill(text)
    await preview.click()
    await inComponents.getByText(complaint).waitFor()
    t.equal(await selector.getAttribute('aria-invalid'), 'true', text)
    t.ok(await selector.evaluate((field) => field.matches(':focus')), 'it has the focus')
    const described = await selector.getAttribute('aria-describedby')
    t.match(await page.locator(`#${described}`).textContent(), complaint, 'and is described by it')
  }

  await selector.fill(JSON.stringify({ _id: { $gt: 'org1n' } }))
  await inComponents.getByLabel('Types').fill(`${types.org1peer1}\nnone-such`)
  await inComponents.getByLabel('Ids').fill('org1peer1\norg1msp\nadded-peer\nmistyped')
  await dialog.getByRole('checkbox', { name: /^Exact: / }).check()
  await preview.click()
  await dialog.getByText('1 document would be written', { exact: true }).waitFor()
  await dialog
    .getByText(`nothing of ${on.names.sessions}; nothing of ${on.names.system}`, { exact: false })
    .waitFor()
  await dialog.getByText(/No document has these ids: .*mistyped.* in components\./).waitFor()

  await dialog.getByRole('button', { name: 'Back' }).click()
  await selector.fill('')
  await inComponents.getByLabel('Ids').fill('')
  await preview.click()
  await dialog.getByText('1 document would be deleted', { exact: true }).waitFor()
  const rows = dialog.getByRole('table', { name: 'What would be done' }).getByRole('row')
  t.equal(await rows.count(), 2, 'a head, and the one database')
  t.equal(await rows.last().getByRole('cell').last().textContent(), '1', 'to delete')
  await dialog.getByText('Documents that differ').click()
  await dialog.getByText(`${on.names.components}/added-peer`).waitFor()
  await confirm(page)
  await dialog.getByRole('button', { name: /^Restore 2 documents, delete 1 document$/ }).click()
  await dialog.getByRole('heading', { name: 'The restore is done' }).waitFor()
  t.match(await dialog.textContent(), /2 documents written, 1 deleted, in /)
  const { rows: now } = await components.list()
  const ids = now.map(({ id }) => id)
  t.ok(ids.includes('org1peer1') && ids.includes('org1peer2') && ids.includes('added-other'))
  t.notOk(ids.includes('org1msp') || ids.includes('added-peer'), 'not chosen, and not in the backup')
  await dialog.getByRole('button', { name: 'Close' }).click()

  await page
    .getByRole('button', { name: /^Restore… the/ })
    .first()
    .click()
  await dialog.getByText('Choose documents, or delete others').click()
  t.equal(await which(on.names.components).inputValue(), 'all', 'nothing stays of another restore')
  await which(on.names.components).selectOption('exclude')
  await inComponents.getByLabel('Ids').fill('org1msp')
  await preview.click()
  await dialog.getByText(`${on.names.components} but for ids org1msp`, { exact: false }).waitFor()
  await dialog.getByRole('button', { name: 'Back' }).click()
  for (const name of Object.values(on.names)) await which(name).selectOption('none')
  await which(on.names.components).selectOption('only')
  await inComponents.getByLabel('Ids').fill('org1peer1')
  await preview.click()
  await dialog
    .getByText('Nothing to restore: the databases hold the chosen documents of the backup.')
    .waitFor()
  await page.keyboard.press('Escape')

  await page.getByRole('button', { name: 'Restore from a file…' }).click()
  t.notOk(await dialog.getByText('Choose documents, or delete others').isVisible(), 'not of a file')
  await page.keyboard.press('Escape')
  await page.evaluate(DROP_A_FILE)
  await dialog.getByText(/^The file dropped\.json/).waitFor()
  await page.keyboard.press('Escape')
  await poll('the focus', () => page.evaluate('document.activeElement.id === "title" || undefined'))
  t.strictSame(faults, [])
})
