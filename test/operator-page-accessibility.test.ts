import type { BrowserContextOptions } from 'playwright-core'
import t from 'tap'
import { browserMissing, launchBrowser } from './helpers/browser.js'
import { everyState, startWithBackups } from './helpers/operator-states.js'
import { extent } from './helpers/settings.js'

const SCREENS: Record<string, BrowserContextOptions> = {
  dark: { colorScheme: 'dark', viewport: { width: 1100, height: 800 } },
  'light, 390 px wide': { colorScheme: 'light', viewport: { width: 390, height: 844 } },
  light: { colorScheme: 'light', viewport: { width: 1100, height: 800 } },
  'dark, 390 px wide': { colorScheme: 'dark', viewport: { width: 390, height: 844 } },
  'light, 320 px wide': { colorScheme: 'light', viewport: { width: 320, height: 640 } }
}

t.test('the operator page is accessible in every state', { skip: browserMissing() }, async (t) => {
  const browser = await launchBrowser(t)
  const console = await startWithBackups(t)
  // The last three have both colours and all widths.
  for (const [screen, options] of Object.entries(SCREENS).slice(extent(2, 0))) {
    await t.test(screen, (t) => everyState(t, browser, console, options))
  }
})
