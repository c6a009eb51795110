import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import * as api from '../lib/index.js'

const ROOT = join(__dirname, '..')
const PAGE = readFileSync(join(ROOT, 'docs', 'troubleshooting.md'), 'utf8')
const SOURCES = readdirSync(join(ROOT, 'lib'), { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.ts'))
  .map((file) => readFileSync(join(ROOT, 'lib', file), 'utf8'))
  .join('\n')
  .replaceAll("\\'", "'")

const CODE = /DB_BACKUPS_[A-Z_]+/g

t.test('the page on troubleshooting has every public error code, and no other', async (t) => {
  const codes = new Set(readFileSync(join(ROOT, 'lib', 'errors.ts'), 'utf8').match(CODE))
  const exported = Object.keys(api).filter((name) => name.endsWith('Error'))
  t.equal(codes.size, exported.length, 'each error has one')
  t.strictSame([...new Set(PAGE.match(CODE))].sort(), [...codes].sort())
})

/** Returns what stands in code in the first column of a page's tables, but members, options and codes. */
function quotedMessages(page: string): string[] {
  const cells = [...page.matchAll(/^\| (.+?)(?<!\\) +\| /gm)].map(([, cell]) => cell!)
  return cells
    .flatMap((cell) => [...cell.matchAll(/`([^`]+)`/g)].map(([, quoted]) => quoted!))
    .filter((quoted) => / /.test(quoted) && !/^\w+: (false|")/.test(quoted))
}

t.test('every message that the page quotes is one of the code', async (t) => {
  const pieces = quotedMessages(PAGE).flatMap((quoted) =>
    quoted
      .replace(/^TypeError: /, '')
      .split(/\.\.\.|<\w+>|[:;,] /)
      .map((piece) => piece.trim().replace(/^["',:]+ ?|["':(]+$/g, ''))
      .filter((piece) => piece.length > 4)
  )
  t.ok(pieces.length > 100, `${pieces.length} pieces`)
  const unknown = pieces.filter((piece) => !SOURCES.includes(piece))
  t.strictSame(unknown, [])
})
