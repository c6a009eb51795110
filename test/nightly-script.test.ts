import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { compileCli } from './helpers/cli.js'
import { buildHost } from './helpers/host.js'
import { shellBlocks } from './helpers/shell-page.js'

/** The script of docs/cli.md, and the first lines of the README's that moves a console. */
function scripts(to: string): Record<string, string> {
  const nightly = shellBlocks('docs/cli.md').find(({ heading }) => heading === 'Every night')!.code
  const move = shellBlocks('README.md').find(
    ({ heading }) => heading === 'Move a console to another one'
  )!.code
  return {
    'docs/cli.md': nightly.replaceAll('/var/backups/console', to),
    'README.md': move
      .split('\n\n')[0]!
      .replace(/^export .*$/m, '')
      .replace('console.json', join(to, 'console.json'))
  }
}

function shellOf(t: Test) {
  const directory = t.testdir()
  const main = compileCli(directory)
  const bin = join(directory, 'bin')
  mkdirSync(bin)
  const npx = `#!/bin/bash\nshift\nexec env -u NODE_OPTIONS ${process.execPath} ${main} "$@"\n`
  writeFileSync(join(bin, 'npx'), npx)
  chmodSync(join(bin, 'npx'), 0o755)
  const to = join(directory, 'copies')
  mkdirSync(to)
  return {
    to,
    async run(name: string, env: Record<string, string>): Promise<number> {
      const child = spawn(name === 'README.md' ? 'bash' : 'sh', ['-c', scripts(to)[name]!], {
        cwd: to,
        env: { PATH: `${bin}:${process.env.PATH}`, ...env },
        stdio: 'ignore'
      })
      return (await once(child, 'exit'))[0]
    }
  }
}

t.test('the scripts that make a copy end with the code of what failed', async (t) => {
  const { run, to } = shellOf(t)
  let broken = false
  const host = await buildHost(t, {
    authorize({ headers }) {
      if (headers.authorization !== 'Bearer right')
        throw Object.assign(new Error('unauthorized'), { statusCode: 401 })
    },
    versions: () => ({}),
    couch: () => {
      if (broken) throw new Error('no credentials')
      return host.on.couch
    },
    on: (await buildHost(t)).on
  })
  await host.app.listen({ port: 0, host: '127.0.0.1' })
  const { port } = host.app.server.address() as AddressInfo
  const env = { BACKUPS_URL: `http://127.0.0.1:${port}`, BACKUPS_TOKEN: 'right' }
  for (const name of Object.keys(scripts(to))) {
    t.equal(await run(name, { ...env, BACKUPS_TOKEN: 'wrong' }), 3, `${name}: a wrong key`)
    t.equal(await run(name, { ...env, BACKUPS_URL: 'http://127.0.0.1:9' }), 6, `${name}: no server`)
    broken = true
    t.equal(await run(name, env), 1, `${name}: a failure`)
    broken = false
    t.strictSame(readdirSync(to), [], 'no copy')
  }
  t.equal(await run('docs/cli.md', env), 0)
  t.equal(await run('README.md', env), 0)
  t.ok(existsSync(join(to, 'console.json')))
  t.equal(readdirSync(to).length, 2)
})
