import type { Browser, BrowserContextOptions, Page } from 'playwright-core'
import type { Test } from 'tap'
import { MANAGER, type OperatorConsole } from './operator-console.js'

/** The operator page in a browser profile of its own. */
interface Operator {
  page: Page
  /** Violations of the content security policy, exceptions, and failed requests for files. */
  faults: string[]
}

const RECORD_VIOLATIONS = `
  addEventListener('securitypolicyviolation', ({ effectiveDirective, blockedURI }) =>
    reportFault('policy ' + effectiveDirective + ' ' + blockedURI))`

/** Opens the operator page without signing in. */
export async function openPage(
  t: Test,
  browser: Browser,
  { url }: OperatorConsole,
  options: BrowserContextOptions = {}
): Promise<Operator> {
  const context = await browser.newContext({ reducedMotion: 'reduce', ...options })
  t.teardown(() => context.close())
  const faults: string[] = []
  await context.exposeFunction('reportFault', (fault: string) => faults.push(fault))
  await context.addInitScript(RECORD_VIOLATIONS)
  const page = await context.newPage()
  // A machine may be busy with other tests.
  page.setDefaultTimeout(60_000)
  page.on('pageerror', (error) => faults.push(`exception ${error.message}`))
  page.on('response', (response) => {
    if (response.status() >= 400 && !response.url().includes('/api/'))
      faults.push(`missing ${response.url()}`)
  })
  await page.goto(url)
  return { page, faults }
}

/** Signs in on the page that asks for it. */
export async function signIn(page: Page, { passwords }: OperatorConsole, email = MANAGER): Promise<void> {
  await page.getByLabel('Email').fill(email)
  await page.getByLabel('Password').fill(passwords[email])
  await page.getByRole('button', { name: 'Sign in' }).click()
}

/** Opens the operator page, and signs in. */
export async function openConsole(
  t: Test,
  browser: Browser,
  console: OperatorConsole,
  options?: BrowserContextOptions
): Promise<Operator> {
  const operator = await openPage(t, browser, console, options)
  await signIn(operator.page, console)
  await operator.page.getByRole('heading', { name: 'Backups', level: 1 }).waitFor()
  return operator
}

/** Types the word that the preview asks for. */
export async function confirm(page: Page): Promise<void> {
  const field = page.getByLabel(/^Type .* to confirm$/)
  await field.waitFor()
  await field.fill((await page.locator('[data-confirm-label] code').textContent()) ?? '')
}
