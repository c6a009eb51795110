import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { setupDatabases } from './helpers/database.js'

const ROOT = join(__dirname, '..')
const KEY = 'a-key-for-this-test'

function run(t: Test, env: NodeJS.ProcessEnv) {
  const child = spawn(process.execPath, ['--import=tsx', 'examples/minimal/index.ts'], {
    cwd: ROOT,
    env: { PATH: process.env.PATH, PORT: '0', ...env },
    stdio: ['ignore', 'pipe', 'pipe']
  })
  const output = { errors: '' }
  child.stderr.on('data', (text: Buffer) => {
    output.errors += text
  })
  const exited = once(child, 'exit')
  t.teardown(async () => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL')
    await exited
  })
  return { child, exited, output }
}

/** Where the server listens, from its log. */
async function addressOf(stdout: NodeJS.ReadableStream): Promise<string> {
  for await (const line of createInterface(stdout)) {
    const url = /http:\/\/127\.0\.0\.1:\d+/.exec(JSON.parse(line).msg)?.[0]
    if (url) return url
  }
  throw new Error('the server did not start')
}

t.test('a backup is made and restored by the minimal example', async (t) => {
  const prefix = `t${randomBytes(6).toString('hex')}`
  const {
    url: couchUrl,
    couch,
    names
  } = await setupDatabases(t, {
    names: {
      components: `${prefix}_components`,
      sessions: `${prefix}_sessions`,
      system: `${prefix}_system`
    }
  })
  const components = couch.use(names.components)
  await components.insert({ api_url: 'https://peer.example.com' } as object, 'peer1')
  const { child, exited } = run(t, { API_KEY: KEY, COUCHDB_URL: couchUrl, DB_PREFIX: prefix })
  const url = await addressOf(child.stdout)
  child.stdout.resume()

  const call = async (status: number, method: string, path: string, key = KEY) => {
    const reply = await fetch(url + path, { method, headers: { authorization: `Bearer ${key}` } })
    t.equal(reply.status, status, `${method} ${path}`)
    // biome-ignore lint/suspicious/noExplicitAny: replies of any shape
    return (await reply.json()) as any
  }
  const ended = async (path: string, key: string) => {
    const end = Date.now() + 20_000
    for (;;) {
      const reply = await fetch(url + path, { headers: { authorization: `Bearer ${KEY}` } })
      // biome-ignore lint/suspicious/noExplicitAny: as above
      const found = (await reply.json()) as any
      if (found[key] !== true && found[key] !== 'pending') return found
      if (Date.now() > end) throw new Error(`${path} did not end`)
      await delay(50)
    }
  }

  await call(401, 'POST', '/ak/api/v3/backups', `${KEY}x`)
  const { id } = await call(202, 'POST', '/ak/api/v3/backups')
  const backup = await ended(`/ak/api/v3/backups/${id}`, 'in_progress')
  t.equal(backup.error, undefined)
  t.match(backup.dbs.athena_components.docs, [{ _id: 'peer1', api_url: 'https://peer.example.com' }])

  await components.destroy('peer1', (await components.get('peer1'))._rev)
  const started = await call(202, 'PUT', `/ak/api/v3/backups/${id}`)
  t.match(await ended(started.url.slice(url.length), 'status'), { status: 'success' })
  t.match(await components.get('peer1'), { api_url: 'https://peer.example.com' })

  child.kill('SIGTERM')
  t.strictSame(await exited, [0, null], 'it ends by itself')
})

t.test('without a key the minimal example does not start', async (t) => {
  const { exited, output } = run(t, {})
  t.strictSame(await exited, [1, null])
  t.match(output.errors, /API_KEY must be set/)
})
