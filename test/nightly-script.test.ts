import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { chmodSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { compileCli, SHORT_PROCESS } from './helpers/cli.js'
import { setupDatabases } from './helpers/database.js'
import { startGate } from './helpers/gate.js'
import { buildHost, type HostOptions, type TestHost } from './helpers/host.js'
import { poll } from './helpers/poll.js'
import { shellBlocks } from './helpers/shell-page.js'

const blocksOf = (page: string, wanted: string) =>
  shellBlocks(page).flatMap(({ heading, code }) => (heading === wanted ? [code] : []))

const RECOVERY = 'docs/disaster-recovery.md'
const [functions] = blocksOf(RECOVERY, 'What has to be there')
const [nightly, nightlyByCurl] = blocksOf(RECOVERY, 'Before: make a copy')
/** The scripts of the nightly copy, put together as the page on disaster recovery says. */
const SCRIPTS = { 'with the command line': functions! + nightly, 'with curl': functions! + nightlyByCurl }

/** The recipe that moves a console, applied to one console as source and target. */
const MOVE = blocksOf('docs/recipes.md', 'Move a console to another one')[0]!
  .replace('BACKUPS_URL=https://old.example.com BACKUPS_API_KEY=... BACKUPS_API_SECRET=...', 'OLD=1')
  .replace(
    'BACKUPS_URL=https://new.example.com BACKUPS_API_KEY=... BACKUPS_API_SECRET=...',
    'BACKUPS_TOKEN=$NEW'
  )
  .replace('--wait\n', '--wait --yes\n')

function shellOf(t: Test) {
  const directory = t.testdir()
  const main = compileCli(directory)
  const bin = join(directory, 'bin')
  mkdirSync(bin)
  const npx = `#!/bin/bash\nshift\nexec ${process.execPath} ${SHORT_PROCESS} ${main} "$@"\n`
  writeFileSync(join(bin, 'npx'), npx)
  chmodSync(join(bin, 'npx'), 0o755)
  const to = join(directory, 'copies')
  mkdirSync(to)
  return {
    to,
    async run(code: string, env: Record<string, string>, shell = 'bash'): Promise<number> {
      const child = spawn(shell, ['-c', code], {
        cwd: to,
        env: { PATH: `${bin}:${process.env.PATH}`, ...env },
        stdio: 'ignore'
      })
      return (await once(child, 'exit'))[0]
    }
  }
}

function writeConsole(to: string, url = '', secret = 'right'): void {
  const lines = [`BACKUPS_URL=${url}`, 'BACKUPS_API_KEY=key', `BACKUPS_API_SECRET=${secret}`, '']
  writeFileSync(join(to, 'console.env'), lines.join('\n'))
}

const copiesIn = (to: string) =>
  readdirSync(to).filter((name) => /^03_ibp_db_backup_\d+\.json(\.sha256)?$/.test(name))

const RIGHT = ['Bearer right', `Basic ${btoa('key:right')}`]

/** Starts a console that knows one key, and returns the environment to reach it. */
async function startConsole(
  t: Test,
  options: HostOptions = {}
): Promise<{ host: TestHost; env: Record<string, string> }> {
  const host = await buildHost(t, {
    authorize({ headers }) {
      if (!RIGHT.includes(headers.authorization ?? ''))
        throw Object.assign(new Error('unauthorized'), { statusCode: 401 })
    },
    versions: () => ({}),
    ...options
  })
  await host.app.listen({ port: 0, host: '127.0.0.1' })
  const { port } = host.app.server.address() as AddressInfo
  return { host, env: { BACKUPS_URL: `http://127.0.0.1:${port}`, BACKUPS_TOKEN: 'right' } }
}

t.test('the scripts that make a copy end with the code of what failed', async (t) => {
  const { run, to } = shellOf(t)
  let broken = false
  const { on } = await buildHost(t)
  const { env } = await startConsole(t, {
    on,
    couch: () => {
      if (broken) throw new Error('no credentials')
      return on.couch
    }
  })
  const script = blocksOf('docs/cli.md', 'Every night')[0]!.replaceAll('/var/backups/console', to)
  for (const [name, code, shell] of [
    ['docs/cli.md', script, 'sh'],
    ['docs/recipes.md', MOVE, 'bash']
  ] as const) {
    t.equal(
      await run(code, { ...env, BACKUPS_TOKEN: 'wrong', NEW: 'right' }, shell),
      3,
      `${name}: a wrong key`
    )
    t.equal(await run(code, { ...env, BACKUPS_URL: 'http://127.0.0.1:9' }, shell), 6, `${name}: no server`)
    broken = true
    t.equal(await run(code, env, shell), 1, `${name}: a failure`)
    broken = false
    t.strictSame(readdirSync(to), [], 'no copy')
  }
  t.equal(await run(script, env, 'sh'), 0)
  t.equal(readdirSync(to).length, 1)
})

t.test('the recipe that moves a console restores nothing when its first half fails', async (t) => {
  const { run, to } = shellOf(t)
  const restores: string[] = []
  const { host, env } = await startConsole(t, {
    extend(app) {
      app.addHook('onRequest', async ({ method, url }) => {
        if (method === 'PUT') restores.push(url)
      })
      app.get<{ Params: { id: string } }>('/ak/api/v1/webhooks/txs/:id', ({ params }) =>
        host.webhooks.get(params.id)
      )
    }
  })
  t.equal(await run(MOVE, { ...env, NEW: 'right' }), 0)
  t.equal(restores.length, 1)
  const files = readdirSync(to)
  t.match(files, [/^03_ibp_db_backup_\d+\.json$/])
  t.equal(
    await run(MOVE, { ...env, BACKUPS_TOKEN: 'wrong', NEW: 'right' }),
    3,
    'with a file of an earlier try'
  )
  t.equal(restores.length, 1)
  t.equal(await run(MOVE, { ...env, NEW: 'wrong' }), 3, 'the other console’s key')
})

for (const [how, code] of Object.entries(SCRIPTS)) {
  t.test(`each night makes a copy of its own, or ends with a failure: ${how}`, async (t) => {
    const { run, to } = shellOf(t)
    let broken = false
    const { on } = await buildHost(t)
    const { host, env } = await startConsole(t, {
      on,
      couch: () => {
        if (broken) throw new Error('no credentials')
        return on.couch
      }
    })
    const copies = () => copiesIn(to)
    const night = (secret = 'right') => {
      writeConsole(to, env.BACKUPS_URL, secret)
      return run(code, {})
    }
    t.not(await night(), 0, 'without data of the deployer')
    await poll('the end of its backup', async () => {
      const { ids } = await host.app.dbBackups.list()
      const { in_progress: running } = await host.app.dbBackups.summary(ids.at(-1)!)
      return running ? undefined : true
    })
    writeFileSync(join(to, 'deployer-data.json'), 'data of the deployer')
    t.strictSame(copies(), [])
    const [refused, failed] = how === 'with curl' ? [22, 22] : [3, 1]

    for (const count of [1, 2]) {
      t.equal(await night(), 0, `night ${count}`)
      const { ids } = await host.app.dbBackups.list()
      const name = `${ids.at(-1)}.json`
      t.equal(copies().length, 2 * count)
      const file = readFileSync(join(to, name))
      t.match(JSON.parse(file.toString()), { in_progress: false, _attachments: { deployer: /./ } })
      const sum = createHash('sha256').update(file).digest('hex')
      t.equal(readFileSync(join(to, `${name}.sha256`), 'utf8'), `${sum}  ${name}\n`)
    }
    t.equal(await night('wrong'), refused, 'a wrong key')
    broken = true
    t.equal(await night(), failed, 'a failure')
    t.equal(copies().length, 4, 'no copy more')
  })
}

t.test('a backup that fails makes no copy with curl', async (t) => {
  const { run, to } = shellOf(t)
  writeFileSync(join(to, 'deployer-data.json'), 'data')
  const databases = await setupDatabases(t)
  const gate = await startGate(t, databases)
  const { host, env } = await startConsole(t, { on: databases, couch: gate.couch })
  writeConsole(to, env.BACKUPS_URL)
  const release = gate.hold(/_changes/)
  const ended = run(SCRIPTS['with curl'], {})
  await gate.held(/_changes/)
  await databases.couch.db.destroy(databases.names.components)
  release()
  t.equal(await ended, 1)
  const { ids } = await host.app.dbBackups.list()
  t.match(await host.app.dbBackups.summary(ids[0]!), { error: /./ })
  t.strictSame(copiesIn(to), [])
})

t.test('a look at a running backup that fails ends the script of curl, and saves none of it', async (t) => {
  const { run, to } = shellOf(t)
  writeFileSync(join(to, 'deployer-data.json'), 'data')
  const databases = await setupDatabases(t)
  const gate = await startGate(t, databases)
  let looks = 0
  const { env } = await startConsole(t, {
    on: databases,
    couch: gate.couch,
    extend(app) {
      app.addHook('onRequest', async ({ method }, reply) => {
        if (method === 'GET' && ++looks === 2) return reply.code(503).send({ statusCode: 503 })
      })
    }
  })
  writeConsole(to, env.BACKUPS_URL)
  const release = gate.hold(/_changes/)
  t.equal(await run(SCRIPTS['with curl'], {}), 22)
  release()
  t.equal(looks, 2)
  t.strictSame(copiesIn(to), [])
})
