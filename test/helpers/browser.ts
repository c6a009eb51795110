import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { type Browser, chromium, firefox } from 'playwright-core'
import type { Test } from 'tap'

const CHROMIUM = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome']
const FIREFOX = ['/usr/bin/firefox-esr', '/usr/bin/firefox']
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
const FIREFOX_MISSING = 'Firefox is missing: install it, or set FIREFOX to its path'

/** Returns the path of a browser: the given one, or the first of the places that has one. */
const firstOf = (given: string | undefined, places: readonly string[]): string | undefined =>
  [given, ...places].find((path) => path && existsSync(path))
const browserPath = () => firstOf(process.env.CHROMIUM, CHROMIUM)
const firefoxPath = () => firstOf(process.env.FIREFOX, FIREFOX)

/** Returns why tests of pages are skipped, or `false`. In CI they are not skipped, so that they fail. */
export const browserMissing = (): string | false => (browserPath() || process.env.CI ? false : MISSING)

/** Returns why tests in Firefox are skipped, or `false`. In CI they are not skipped. */
export const firefoxMissing = (): string | false =>
  firefoxPath() || process.env.CI ? false : FIREFOX_MISSING

/** Launches a headless browser with a fresh profile. It closes when the test ends. */
export async function launchBrowser(t: Pick<Test, 'teardown'>): Promise<Browser> {
  const executablePath = browserPath()
  if (!executablePath) throw new Error(MISSING)
  const browser = await chromium.launch({ executablePath, headless: true, args: ARGUMENTS })
  t.teardown(() => browser.close())
  return browser
}

/**
 * Launches a headless Firefox with a fresh profile. It closes when the test ends.
 * @param colorScheme of all its pages, whatever a context says
 */
export async function launchFirefox(
  t: Pick<Test, 'teardown'>,
  colorScheme: 'light' | 'dark'
): Promise<Browser> {
  const executablePath = firefoxPath()
  if (!executablePath) throw new Error(FIREFOX_MISSING)
  answerMediaFeatures()
  const browser = await firefox.launch({
    // Any other Firefox than Playwright's own is driven by WebDriver BiDi.
    channel: 'moz-firefox',
    executablePath,
    headless: true,
    firefoxUserPrefs: {
      'layout.css.prefers-color-scheme.content-override': colorScheme === 'dark' ? 0 : 1,
      'ui.prefersReducedMotion': 1
    }
  })
  t.teardown(() => browser.close())
  return browser
}

/** A command of WebDriver BiDi that Playwright sends for every context, and Firefox 153 does not know. */
const UNKNOWN = 'emulation.setMediaFeaturesOverride'

interface Socket {
  send(text: string, ...rest: unknown[]): unknown
  emit(event: 'message', data: Buffer, isBinary: boolean): boolean
}

let isAnswered = false

/**
 * Answers that command in Firefox's place: without an answer, Playwright can make no context. Preferences of the browser
 * set the media features instead.
 */
function answerMediaFeatures(): void {
  if (isAnswered) return
  isAnswered = true
  const { ws } = createRequire(__filename)('playwright-core/lib/utilsBundle') as {
    ws: { prototype: Socket }
  }
  const { send } = ws.prototype
  ws.prototype.send = function (this: Socket, text: string, ...rest: unknown[]) {
    if (!String(text).includes(`"${UNKNOWN}"`)) return send.call(this, text, ...rest)
    const { id } = JSON.parse(text) as { id: number }
    const reply = Buffer.from(JSON.stringify({ type: 'success', id, result: {} }))
    setImmediate(() => this.emit('message', reply, false))
  }
}
