import { existsSync } from 'node:fs'
import { type Browser, chromium } from 'playwright-core'
import type { Test } from 'tap'

const PLACES = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome']
const ARGUMENTS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync'
]

const MISSING = 'Chromium is missing: install it, or set CHROMIUM to its path'

/** Returns the path of the system's browser: `CHROMIUM`, or where distributions install it. */
const browserPath = (): string | undefined =>
  [process.env.CHROMIUM, ...PLACES].find((path) => path && existsSync(path))

/** Returns why tests of pages are skipped, or `false`. In CI they are not skipped, so that they fail. */
export const browserMissing = (): string | false => (browserPath() || process.env.CI ? false : MISSING)

/** Launches a headless browser with a fresh profile. It closes when the test ends. */
export async function launchBrowser(t: Pick<Test, 'teardown'>): Promise<Browser> {
  const executablePath = browserPath()
  if (!executablePath) throw new Error(MISSING)
  const browser = await chromium.launch({ executablePath, headless: true, args: ARGUMENTS })
  t.teardown(() => browser.close())
  return browser
}
