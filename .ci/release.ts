/**
 * npm run release -- <major|minor|patch|x.y.z>
 *
 * On a clean main: runs the tests, sets the version, gives the changelog's unreleased section version and date,
 * commits and tags. Pushes and publishes nothing.
 */
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'

const CHANGELOG = 'CHANGELOG.md'
/** `## [Unreleased]`, or with the version that is to come: `## [1.0.0] - Unreleased`. */
const UNRELEASED = /^## \[(?:Unreleased|(?<announced>\d+\.\d+\.\d+))\](?: - Unreleased)?$/m

const git = (...args: string[]) => execFileSync('git', args, { encoding: 'utf8' }).trim()
const npm = (...args: string[]) => execFileSync('npm', args, { stdio: 'inherit' })

function main(): void {
  const { positionals } = parseArgs({ allowPositionals: true })
  const [bump = ''] = positionals
  if (positionals.length !== 1 || !/^(major|minor|patch|\d+\.\d+\.\d+)$/.test(bump)) {
    throw new Error('usage: npm run release -- <major|minor|patch|x.y.z>')
  }
  checkTree()
  const version = next(currentVersion(), bump)
  if (git('tag', '--list', `v${version}`)) throw new Error(`v${version} is released already`)
  const changelog = released(readFileSync(CHANGELOG, 'utf8'), version, new Date())

  npm('test')
  checkTree()

  npm('version', version, '--no-git-tag-version', '--allow-same-version', '--ignore-scripts')
  writeFileSync(CHANGELOG, changelog)
  git('commit', '--all', '--message', `Release ${version}`)
  git('tag', '--annotate', `v${version}`, '--message', `v${version}`)
  console.log(`v${version} is committed and tagged. To publish it: git push --follow-tags`)
}

/** @throws Error unless this is main, and everything is committed */
function checkTree(): void {
  const branch = git('rev-parse', '--abbrev-ref', 'HEAD')
  if (branch !== 'main') throw new Error(`releases are made from main, not from ${branch}`)
  const changes = git('status', '--porcelain')
  if (changes) throw new Error(`there are uncommitted changes:\n${changes}`)
}

function currentVersion(): string {
  return JSON.parse(readFileSync('package.json', 'utf8')).version
}

function next(version: string, bump: string): string {
  const [major, minor, patch] = version.split('.').map(Number) as [number, number, number]
  if (bump === 'major') return `${major + 1}.0.0`
  if (bump === 'minor') return `${major}.${minor + 1}.0`
  if (bump === 'patch') return `${major}.${minor}.${patch + 1}`
  return bump
}

/**
 * The changelog with its unreleased section under `version`, and an empty one for what comes.
 * @throws Error when there is nothing to release, or another version was announced
 */
function released(changelog: string, version: string, date: Date): string {
  const heading = UNRELEASED.exec(changelog)
  if (!heading) throw new Error(`${CHANGELOG} has no section "Unreleased"`)
  const announced = heading.groups?.announced
  if (announced !== undefined && announced !== version) {
    throw new Error(`${CHANGELOG} announces ${announced}, not ${version}`)
  }
  const after = changelog.slice(heading.index + heading[0].length)
  const [section] = after.split(/^## /m)
  if (!/^- /m.test(section as string)) throw new Error(`${CHANGELOG} has nothing under "Unreleased"`)
  const day = date.toISOString().slice(0, 10)
  return `${changelog.slice(0, heading.index)}## [Unreleased]\n\n## [${version}] - ${day}${after}`
}

try {
  main()
} catch (error) {
  console.error((error as Error).message)
  process.exitCode = 1
}
