/**
 * Runs the test files in groups, a process each: most of a small file's time is that of starting Node.js, and of code
 * that is still cold. A file runs alone as well: `npx tap test/backup.test.ts`.
 */
import { spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const ROOT = join(__dirname, '..')
const GROUPS = join('.tap', 'groups')
/** Files of a group. */
const MOST = 16
/** Seconds that a group may take. */
const TIMEOUT = 2400
/** Files that measure how long turns of the event loop take, or memory: nothing else runs in their processes. */
const ALONE = [
  'append-stream',
  'arriving-bodies',
  'hostile-connections',
  'memory',
  'read-backup',
  'refused-bodies'
]
const CRASHES = ['crash-backup', 'crash-restore'].map((name) => `test/reliability/${name}.test.ts`)

const filesIn = (directory: string): string[] =>
  readdirSync(join(ROOT, directory))
    .filter((name) => name.endsWith('.test.ts'))
    .map((name) => `${directory}/${name}`)

const isAlone = (file: string): boolean => ALONE.some((name) => file === `test/${name}.test.ts`)

/** Writes a file that runs other ones. @returns its path */
function writeGroup(files: readonly string[], i: number): string {
  const path = join(GROUPS, `${String(i).padStart(2, '0')}.test.ts`)
  const imports = files.map((file) => `import '../../${file.replace(/\.ts$/, '.js')}'\n`)
  writeFileSync(join(ROOT, path), imports.join(''))
  return path
}

/** Deals the files out, so that neighbours, which often take long for the same reason, are in different groups. */
function groupsOf(files: readonly string[]): string[] {
  const count = Math.ceil(files.length / MOST)
  const groups = Array.from({ length: count }, (_, i) => files.filter((_, f) => f % count === i))
  rmSync(join(ROOT, GROUPS), { recursive: true, force: true })
  mkdirSync(join(ROOT, GROUPS), { recursive: true })
  return groups.map(writeGroup)
}

const all = filesIn('test')
const paths = [...groupsOf(all.filter((file) => !isAlone(file))), ...all.filter(isAlone), ...CRASHES]
const args = [`--timeout=${TIMEOUT}`, ...process.argv.slice(2), ...paths]
const { status } = spawnSync('npx', ['tap', ...args], { cwd: ROOT, stdio: 'inherit' })
process.exitCode = status ?? 1
