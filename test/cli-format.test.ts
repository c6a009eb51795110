import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import t from 'tap'
import * as commandLine from '../lib/cli/format.js'

const PAGE = join(__dirname, '..', 'lib', 'operator', 'page', 'format.mjs')

t.test('the command line spells numbers, times and sizes as the operator page does', async (t) => {
  const page: typeof commandLine = await import(pathToFileURL(PAGE).href)
  const sizes = Array.from({ length: 60 }, (_, i) => Math.floor(1.7 ** i))
  const now = Date.UTC(2026, 10, 28, 12, 30)
  for (const value of [0, ...sizes]) {
    t.equal(commandLine.number(value), page.number(value))
    t.equal(commandLine.count(value, 'document'), page.count(value, 'document'))
    t.equal(commandLine.bytes(value), page.bytes(value))
    t.equal(commandLine.duration(value), page.duration(value))
    if (value > 1e14) continue
    t.equal(commandLine.minute(now - value), page.minute(now - value))
    t.equal(commandLine.age(now - value, now), page.age(now - value, now))
    t.equal(commandLine.ahead(now + value, now), page.ahead(now + value, now))
  }
})
