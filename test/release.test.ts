import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { compileFile } from './helpers/compile.js'

const execute = promisify(execFile)
const SCRIPT = compileFile(join(__dirname, '..', '.ci/release.ts'))

const CHANGELOG = `# Changelog

## [Unreleased]

### Fixed

- Something.

## [1.2.3] - 2025-01-31

### Added

- Everything.
`

/** Creates a repository with a package whose test command is `test`. */
async function repository(t: Test, { changelog = CHANGELOG, test = 'exit 0', version = '1.2.3' } = {}) {
  const cwd = await mkdtemp(join(tmpdir(), 'release-test-'))
  t.teardown(() => rm(cwd, { recursive: true, force: true }))
  const git = async (...args: string[]) => (await execute('git', args, { cwd })).stdout.trim()
  const read = (file: string) => readFile(join(cwd, file), 'utf8')
  await writeFile(join(cwd, 'package.json'), JSON.stringify({ name: 'x', version, scripts: { test } }))
  await writeFile(join(cwd, 'CHANGELOG.md'), changelog)
  await git('init', '--quiet', '--initial-branch', 'main')
  await git('config', 'user.name', 'release test')
  await git('config', 'user.email', 'release@test.invalid')
  await git('add', '.')
  await git('commit', '--quiet', '--message', 'All')
  const head = await git('rev-parse', 'HEAD')
  return {
    cwd,
    git,
    read,
    async release(...args: string[]): Promise<string> {
      return execute(process.execPath, [SCRIPT, ...args], { cwd }).then(
        () => '',
        (error: { stderr: string }) => error.stderr
      )
    },
    /** Checks that nothing was committed, changed or tagged. */
    async untouched(t: Test) {
      t.equal(await git('rev-parse', 'HEAD'), head)
      t.equal(await git('tag'), '')
      t.equal(await read('CHANGELOG.md'), changelog)
      t.equal(JSON.parse(await read('package.json')).version, version)
    }
  }
}

t.test('a release sets version and changelog, commits and tags', async (t) => {
  for (const [bump, version] of [
    ['major', '2.0.0'],
    ['minor', '1.3.0'],
    ['patch', '1.2.4']
  ] as const) {
    const { release, git, read } = await repository(t)
    t.equal(await release(bump), '')
    t.equal(JSON.parse(await read('package.json')).version, version)
    const day = new Date().toISOString().slice(0, 10)
    t.equal(
      await read('CHANGELOG.md'),
      CHANGELOG.replace('## [Unreleased]', `## [Unreleased]\n\n## [${version}] - ${day}`)
    )
    t.equal(await git('status', '--porcelain'), '')
    t.equal(await git('log', '-1', '--format=%s'), `Release ${version}`)
    t.equal(await git('cat-file', '-t', `v${version}`), 'tag', 'an annotated one, which --follow-tags pushes')
    t.equal(await git('rev-list', '-1', `v${version}`), await git('rev-parse', 'HEAD'))
  }
})

t.test('the first release has the version that the changelog announces', async (t) => {
  const changelog = '# Changelog\n\n## [0.1.0] - Unreleased\n\n### Added\n\n- All.\n'
  const first = await repository(t, { changelog, version: '0.1.0' })
  t.match(await first.release('minor'), /announces 0\.1\.0, not 0\.2\.0/)
  await first.untouched(t)
  t.equal(await first.release('0.1.0'), '')
  t.match(
    await first.read('CHANGELOG.md'),
    /## \[Unreleased\]\n\n## \[0\.1\.0\] - \d{4}-\d\d-\d\d\n\n### Added/
  )
  t.equal(await first.git('tag'), 'v0.1.0')
  t.match(await first.release('0.1.0'), /released already/)
})

t.test('the script releases nothing when the tests fail', async (t) => {
  const { release, untouched } = await repository(t, { test: 'exit 3' })
  t.not(await release('patch'), '')
  await untouched(t)
})

t.test('the script releases nothing that is uncommitted or not on main', async (t) => {
  const { cwd, git, release, untouched } = await repository(t)
  await writeFile(join(cwd, 'left-over'), '')
  t.match(await release('patch'), /uncommitted changes:\n\?\? left-over/)
  await rm(join(cwd, 'left-over'))
  await git('switch', '--quiet', '--create', 'other')
  t.match(await release('patch'), /from main, not from other/)
  await untouched(t)
})

t.test('the script releases nothing without a change', async (t) => {
  const changelog = CHANGELOG.replace('### Fixed\n\n- Something.\n\n', '')
  const { release, untouched } = await repository(t, { changelog })
  t.match(await release('patch'), /nothing under "Unreleased"/)
  await untouched(t)
})

t.test('the script requires the version to release', async (t) => {
  const { release, untouched } = await repository(t)
  for (const args of [[], ['huge'], ['minor', 'patch'], ['1.2']]) t.match(await release(...args), /usage/)
  await untouched(t)
})
