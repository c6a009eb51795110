import type { ChildProcess } from 'node:child_process'
import { PassThrough } from 'node:stream'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import { Progress } from '../lib/cli/progress.js'
import dbBackups, { createMemoryWebhookStore } from '../lib/index.js'
import { buildCli } from './helpers/cli.js'
import { setupDatabases } from './helpers/database.js'
import { startFaultProxy } from './helpers/fault-proxy.js'
import { startGate } from './helpers/gate.js'
import { poll } from './helpers/poll.js'
import { load, seedDocuments } from './helpers/seed.js'

const cli = buildCli(t)

async function startHost(t: Test) {
  const on = await setupDatabases(t)
  await load(on.couch.use(on.names.components), seedDocuments({ count: 1200 }))
  const gate = await startGate(t, on)
  const webhooks = createMemoryWebhookStore()
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(dbBackups, {
    couch: gate.couch,
    databases: on.names,
    authorize: () => undefined,
    webhooks,
    rebuildWhitelist() {}
  })
  app.get<{ Params: { id: string } }>('/ak/api/v1/webhooks/txs/:id', ({ params }) => webhooks.get(params.id))
  const asked: string[] = []
  app.addHook('onResponse', async ({ url }) => void asked.push(url))
  const wasAsked = (path: RegExp) => poll(`${path}`, async () => asked.find((url) => path.test(url)))
  const url = await app.listen({ port: 0, host: '127.0.0.1' })
  return { app, gate, url, wasAsked, env: { BACKUPS_URL: url, BACKUPS_TOKEN: 'x' } }
}

t.test('start --wait prints the id alone to stdout, and all else to stderr', async (t) => {
  const { env } = await startHost(t)
  const { code, stdout, stderr } = await cli(['start', '--wait', '--progress'], { env })
  t.equal(code, 0)
  t.match(stdout, /^03_ibp_db_backup_\d+\n$/)
  t.match(stderr, `${stdout.trim()} complete: 1,200 documents, in `)
  const quiet = await cli(['start', '--wait'], { env })
  t.match(quiet.stdout, /^03_ibp_db_backup_\d+\n$/)
  t.match(quiet.stderr, /^03_ibp_db_backup_\d+ complete: 1,200 documents, in [\d.]+ s\n$/)
  t.equal((await cli(['start', '--wait', '--json'], { env })).stderr, '')
})

t.test('an interrupted wait names the id and how to follow it', async (t) => {
  const { app, env, gate, wasAsked } = await startHost(t)
  let child: ChildProcess | undefined
  const interrupt = () => child!.kill('SIGINT')
  const onStart = (started: ChildProcess) => {
    child = started
  }

  let release = gate.hold(/_changes/)
  const waiting = cli(['start', '--wait', '--json'], { env, onStart })
  await wasAsked(/backups\/03_/)
  interrupt()
  const started = await waiting
  const id = (await app.dbBackups.list()).ids.at(-1)!
  t.equal(started.code, 130)
  const follow = `interrupted: the backup ${id} goes on at the server. Follow it: fastify-couchdb-backups status ${id} --wait`
  t.equal(started.stderr, `${follow}\n`)
  t.strictSame(JSON.parse(started.stdout), { error: { message: follow, exit_code: 130, reply: { id } } })
  const followed = cli(['status', id, '--wait'], { env })
  release()
  t.match(await followed, { code: 0, stdout: `${id} complete: 1,200 documents` })

  release = gate.hold(/_changes/)
  const restoring = cli(['restore', id, '--wait', '--yes', '--progress'], { env, onStart })
  await wasAsked(/webhooks\/txs/)
  interrupt()
  const restored = await restoring
  t.equal(restored.code, 130)
  const tx = /^([0-9a-f]{32}) started$/m.exec(restored.stderr)?.[1] ?? ''
  t.match(restored.stderr, `interrupted: the restore ${tx} goes on at the server. Follow it: `)
  const state = await cli(['status', tx], { env })
  t.match(state, { code: 0, stdout: `${tx} in progress` })
  release()
  const ended = await cli(['status', tx, '--wait'], { env })
  t.match(ended, { code: 0, stdout: `${tx} restored\n  components: 1,200 documents: 1,200 unchanged` })
})

t.test('a server that is lost while a backup is followed leaves its id', async (t) => {
  const { env, url, gate } = await startHost(t)
  const proxy = await startFaultProxy(t, url)
  proxy.add({ fault: 'status_503', path: /backups\/03_/, times: Number.POSITIVE_INFINITY })
  const release = gate.hold(/_changes/)
  t.teardown(release)
  const lost = await cli(['start', '--wait', '--retries', '1'], { env: { ...env, BACKUPS_URL: proxy.url } })
  t.equal(lost.code, 6)
  t.match(lost.stderr, /retrying in 0\.5 s \(1 of 1\)/)
  t.match(
    lost.stderr,
    /the backup (03_ibp_db_backup_\d+) may go on at the server\. Follow it: .* status \1 --wait/
  )
})

t.test('progress is told by documents', async (t) => {
  const shown = (draw: (progress: Progress) => void) => {
    const stream = new PassThrough()
    draw(new Progress(stream as never, true))
    return String(stream.read())
  }
  t.match(
    shown((progress) => progress.documents(301, 1204, { of: 'components' })),
    'components [######..................]  25 % 301 of 1,204 documents'
  )
  t.match(
    shown((progress) => progress.documents(1204, 1204, { about: true })),
    '] 99 % 1,204 of about 1,204 documents'.replace('] 99', ']  99')
  )
  t.match(
    shown((progress) => progress.documents(1300, 1204, { about: true })),
    '99 % 1,300 documents'
  )
})

t.test('a backup is shown beside the last one, a restore beside the backup', async (t) => {
  const { env, gate, wasAsked } = await startHost(t)
  const first = await cli(['start', '--wait', '--progress'], { env })
  t.notMatch(first.stderr, '%', 'nothing to compare the first one with')
  const release = gate.hold(/_changes/)
  const second = cli(['start', '--wait', '--progress'], { env })
  await gate.held(/_changes/)
  const { id } = JSON.parse((await cli(['start', '--json'], { env })).stdout).error.reply
  await wasAsked(new RegExp(`backups/${id}$`))
  release()
  t.match((await second).stderr, /\] +\d+ % \d+ of about 1,200 documents/)
})
