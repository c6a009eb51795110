import t from 'tap'
import { browserMissing, launchBrowser } from './helpers/browser.js'
import { openConsole, openPage, signIn } from './helpers/operator.js'
import { startConsole } from './helpers/operator-console.js'
import { load, seedDocuments } from './helpers/seed.js'

const DAY = 24 * 3_600_000

t.test('the page shows how backups change over time', { skip: browserMissing() }, async (t) => {
  const browser = await launchBrowser(t)
  const console = await startConsole(t)
  const { app, on } = console
  const components = on.couch.use(on.names.components)
  const backUp = async () => {
    const { id, finished } = await app.dbBackups.start()
    await finished.catch(() => undefined)
    return id
  }
  await backUp()

  const alone = await openConsole(t, browser, console)
  await alone.page.getByRole('row', { name: /Complete/ }).waitFor()
  t.equal(await alone.page.getByRole('region', { name: 'Over time' }).count(), 0)

  await load(components as never, seedDocuments({ count: 10 }))
  const largest = await backUp()
  for (const { id, value } of (await components.list()).rows) {
    if (/^doc_/.test(id)) await components.destroy(id, value.rev)
  }
  await backUp()
  await on.couch.db.destroy(on.names.sessions)
  await backUp()
  await on.couch.db.create(on.names.sessions)

  // Two days later, since when nobody has made a backup.
  const { page, faults } = await openPage(t, browser, console)
  await page.clock.setFixedTime(Date.now() + 2 * DAY)
  await signIn(page, console)
  const trends = page.getByRole('region', { name: 'Over time' })
  await trends
    .getByText('2 days: 1 with a complete backup, 0 with failed ones only, 1 without', { exact: true })
    .waitFor()
  const { dbs } = await app.dbBackups.summary(largest)
  const documents = Object.values(dbs).map(({ doc_count = 0 }) => doc_count)
  const most = documents.reduce((sum, n) => sum + n, 0)
  const least = most - 10
  await trends
    .getByText(`from ${least} to ${most}, ${least} in the last`, {
      exact: true
    })
    .waitFor()
  const [chart] = await trends.locator('figure').all()
  const bars = await chart!.locator('g').all()
  t.equal(bars.length, 3, 'a bar for each complete backup, the oldest first')
  const heights = await Promise.all(
    bars.map((bar) =>
      bar.evaluate((g) => (g as unknown as { getBBox(): { height: number } }).getBBox().height)
    )
  )
  t.ok(heights[0]! < heights[1]! && heights[2]! < heights[1]!, `${heights}: the drop shows`)
  t.ok(Math.abs(heights[0]! / heights[1]! - least / most) < 0.01, 'to scale')
  t.equal(await bars[1]!.locator('rect').count(), documents.length, 'a part for each database')

  await trends.getByText('As a table').click()
  const rows = await trends.getByRole('table', { name: 'The backups over time' }).getByRole('row').all()
  const cells = await Promise.all(rows.slice(1).map((row) => row.getByRole('cell').allInnerTexts()))
  t.strictSame(cells[0], documents.map(() => '–').concat('–', '–'), 'the failed one, which is the newest')
  t.strictSame(cells[2]!.slice(0, documents.length), documents.map(String))
  t.match(cells[2]!.slice(documents.length), [/ KiB$/, / s$/])

  // Only the failed one is listed, and an older one of its day may be complete.
  await page.clock.setFixedTime(Date.now() + 3 * DAY)
  const failedOnly = async (backups: number) => {
    await page.unroute('**/api/overview?*')
    await page.route('**/api/overview?*', async (route) => {
      const response = await route.fetch()
      const overview = await response.json()
      const [failed] = overview.backups
      const older = { ...failed, id: `${failed.id}0`, start_timestamp: failed.start_timestamp - 1 }
      await route.fulfill({
        response,
        json: { ...overview, backups: [failed, older], total: backups }
      })
    })
    await page.reload()
  }
  await failedOnly(3)
  await trends
    .getByText('2 days: 0 with a complete backup, 0 with failed ones only, 2 without', { exact: true })
    .waitFor()
  await failedOnly(2)
  await trends
    .getByText('3 days: 0 with a complete backup, 1 with failed ones only, 2 without', { exact: true })
    .waitFor()
  t.strictSame(faults, [])
})
