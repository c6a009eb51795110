import { execFileSync, spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { buildCli } from './helpers/cli.js'

const cli = buildCli(t)
const NAME = 'fastify-couchdb-backups'
const ZSH = spawnSync('zsh', ['-c', 'exit']).status === 0 ? false : 'there is no zsh'

t.test('bash completes commands, options, values and ids', async (t) => {
  const { code, stdout } = await cli(['completion', 'bash'])
  t.equal(code, 0)
  const script = join(t.testdir({}), 'completion')
  writeFileSync(script, stdout)
  const complete = (...words: string[]): string[] => {
    const line = [NAME, ...words].map((word) => `'${word}'`).join(' ')
    // compopt is for a running completion only
    const code = `compopt() { echo "compopt $*"; }; source ${script}; COMP_WORDS=(${line}); COMP_CWORD=${words.length}
      _fastify_couchdb_backups; printf '%s\n' "\${COMPREPLY[@]}"`
    return execFileSync('bash', ['-uc', code]).toString().split('\n').filter(Boolean)
  }
  t.strictSame(complete('st'), ['start', 'status'])
  t.strictSame(complete('start', '--w'), ['--wait'])
  t.strictSame(complete('start', '--wait', '--js'), ['--json'])
  t.strictSame(complete('get', 'la'), ['latest'])
  t.strictSame(complete('diff', 'latest', 'n'), ['now'])
  t.strictSame(complete('verify', 'latest', '--depth', ''), ['structure', 'data', 'restore'])
  t.strictSame(complete('get', 'latest', '-o', ''), ['compopt -o default'], 'files')
  t.strictSame(complete('list', '--retries', ''), [], 'no words for a number')
  t.strictSame(complete('completion', ''), [
    ...['--json', '--progress', '--retries', '--timeout', '--operator', '--help', '--version'],
    ...['bash', 'zsh']
  ])
  for (const name of complete('')) {
    if (!name.startsWith('--')) t.equal((await cli([name, '--help'])).code, 0, name)
  }
})

t.test('zsh takes its script, by source and as a function', { skip: ZSH }, async (t) => {
  const { code, stdout } = await cli(['completion', 'zsh'])
  t.equal(code, 0)
  const script = join(t.testdir({}), '_completion')
  writeFileSync(script, stdout)
  const complete = (...words: string[]): string => {
    const line = [NAME, ...words].map((word) => `'${word}'`).join(' ')
    const code = `compdef() { echo "compdef $*"; }; compadd() { echo "$*"; }; _files() { echo files; }
      _describe() { print -l -- "\${commands[@]}"; }
      source ${script}; words=(${line}); CURRENT=${words.length + 1}; _fastify_couchdb_backups`
    return execFileSync('zsh', ['-fc', code]).toString()
  }
  t.match(complete(''), /^compdef _fastify_couchdb_backups fastify-couchdb-backups$/m)
  t.match(complete(''), /^rm:remove backups$/m)
  t.match(complete('get', 'latest', '-o', ''), /^files$/m)
  t.match(complete('verify', 'latest', '--depth', ''), /^-- structure data restore$/m)
  t.match(complete('start', '--w'), /^-- --wait /m)
  t.match(complete('diff', ''), /^-- latest now$/m)
})

t.test('another shell is refused', async (t) => {
  t.match(await cli(['completion', 'fish']), {
    code: 2,
    stderr: 'completion is for bash and zsh, not for "fish"\n'
  })
  t.equal((await cli(['completion'])).code, 2)
})
