import t from 'tap'
import { firefoxMissing, launchFirefox } from './helpers/browser.js'
import { byKeyboard, everyState, startWithBackups } from './helpers/operator-states.js'

const skip = firefoxMissing()

t.test('the operator page works in Firefox, and needs nothing but a keyboard', { skip }, async (t) => {
  const browser = await launchFirefox(t, 'light')
  const console = await startWithBackups(t)
  const viewport = { width: 1100, height: 800 }
  await t.test('light', (t) => everyState(t, browser, console, { viewport }))
  await t.test('by keyboard', (t) => byKeyboard(t, browser))
})

t.test('the operator page works in Firefox, dark and 390 px wide', { skip }, async (t) => {
  const browser = await launchFirefox(t, 'dark')
  const console = await startWithBackups(t)
  const viewport = { width: 390, height: 844 }
  await t.test('dark, 390 px wide', async (t) => {
    const page = await browser.newPage()
    t.ok(await page.evaluate(`matchMedia('(prefers-color-scheme: dark)').matches`), 'dark')
    await page.close()
    await everyState(t, browser, console, { viewport })
  })
})
