/**
 * Runs `test/reliability`, and the long versions of tests that `npm test` runs with fewer rounds or less data: the files
 * in `test` that ask `helpers/settings` for their extent. One file at a time.
 */
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

const ROOT = join(__dirname, '..')
/** Seconds that a file may take. */
const TIMEOUT = 2400

const filesIn = (directory: string): string[] =>
  readdirSync(join(ROOT, directory))
    .filter((name) => name.endsWith('.test.ts'))
    .map((name) => `${directory}/${name}`)

const hasLongVersion = (file: string): boolean =>
  /\b(extent\(|isLong\b)/.test(readFileSync(join(ROOT, file), 'utf8'))

const paths = [...filesIn('test/reliability'), ...filesIn('test').filter(hasLongVersion)]
const args = ['--jobs=1', `--timeout=${TIMEOUT}`, ...process.argv.slice(2), ...paths]
const env = { ...process.env, LONG: '1' }
const { status } = spawnSync('npx', ['tap', ...args], { cwd: ROOT, env, stdio: 'inherit' })
process.exitCode = status ?? 1
