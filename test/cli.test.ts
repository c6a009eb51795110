import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { setTimeout as delay } from 'node:timers/promises'
import { gunzipSync, gzipSync } from 'node:zlib'
import type { FastifyInstance } from 'fastify'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import dbBackups, { createMemoryWebhookStore } from '../lib/index.js'
import { buildCli, type CliOptions } from './helpers/cli.js'
import { putAttachment, setupDatabases, type TestDatabases } from './helpers/database.js'
import { startFaultProxy } from './helpers/fault-proxy.js'
import { startGate } from './helpers/gate.js'
import { listen } from './helpers/listen.js'
import { setupRawDatabases } from './helpers/raw-databases.js'
import { load, seedDocuments } from './helpers/seed.js'

const KEY = 'key-of-test'
const SECRET = 'secret:of-test'
const BASIC = `Basic ${Buffer.from(`${KEY}:${SECRET}`).toString('base64')}`
const MISSING = '03_ibp_db_backup_1592922855871'

const cli = buildCli(t)

interface Host {
  app: FastifyInstance
  url: string
  on: TestDatabases
  env: NodeJS.ProcessEnv
}

/** Starts a server that knows one API key and serves its transactions. */
async function startHost(t: Test, on: TestDatabases, couch = on.couch): Promise<Host> {
  const webhooks = createMemoryWebhookStore()
  const app = Fastify()
  const authorize = (authorization: string | undefined) => {
    if (authorization === BASIC || authorization === 'Bearer token-of-test') return
    const statusCode = authorization === 'Bearer reader' ? 403 : 401
    throw Object.assign(new Error(statusCode === 401 ? 'unauthorized' : 'forbidden'), { statusCode })
  }
  await app.register(dbBackups, {
    couch,
    databases: on.names,
    authorize: ({ headers }, { scheme }) =>
      authorize(scheme === 'api-key' ? headers.authorization : undefined),
    webhooks,
    rebuildWhitelist: () => {},
    retry: { attempts: 1 }
  })
  app.get<{ Params: { id: string } }>('/ak/api/v1/webhooks/txs/:id', async ({ headers, params }) => {
    authorize(headers.authorization)
    return webhooks.get(params.id)
  })
  t.teardown(() => app.close())
  const url = await app.listen({ port: 0, host: '127.0.0.1' })
  return { app, url, on, env: { BACKUPS_URL: url, BACKUPS_API_KEY: KEY, BACKUPS_API_SECRET: SECRET } }
}

/** Runs the client against a host, and checks that its output holds no secret. */
function runner(t: Test, env: NodeJS.ProcessEnv) {
  return async (args: readonly string[], options: CliOptions = {}) => {
    const run = await cli(args, { ...options, env: { ...env, ...options.env } })
    t.notOk(
      /secret:of-test|token-of-test|Basic /.test(run.stdout + run.stderr),
      `no secret told: ${args.join(' ')}`
    )
    return { ...run, json: () => JSON.parse(run.stdout) }
  }
}

/** The warning of a restore that does not leave the settings alone. */
const SETTINGS_WARNING = `warning: where the backup has other settings of the console, they take the place of this console's: its names,
addresses and keys. --skip-system 00_settings_athena leaves them alone.
`

t.test('a backup from its start to a restore', async (t) => {
  const on = await setupDatabases(t)
  await load(on.couch.use(on.names.components), seedDocuments({ count: 120, size: 30_000 }))
  await load(on.couch.use(on.names.system), seedDocuments({ count: 3 }))
  const { env, url } = await startHost(t, on)
  const run = runner(t, env)
  const cwd = t.testdir({})
  const file = join(cwd, 'backup.json')

  const started = await run(['start', '--wait', '--json'])
  t.equal(started.code, 0)
  const { id } = started.json()
  t.match(started.json(), { in_progress: false, doc_count: 123, type: 'athena_backup' })
  t.notOk('dbs' in started.json())
  t.equal(started.stderr, '', 'no progress without a terminal')

  t.strictSame((await run(['list', '--json'])).json(), { ids: [id] })
  t.equal((await run(['list'])).stdout, `${id}\n`)
  t.match((await run(['status', id, '--json'])).json(), { id, in_progress: false, doc_count: 123 })
  t.match((await run(['status', id])).stdout, `${id} complete: 123 documents`)

  const data = 'local storage é'
  const appended = await run(['append', id, 'a/ö', '-', '--json'], { input: data })
  t.strictSame(appended.json(), { id, att_name: 'a/ö', bytes: 16 })
  writeFileSync(join(cwd, 'binary'), Buffer.from([0xff, 0, 0xfe]))
  const refused = await run(['append', id, 'binary', 'binary'], { cwd })
  t.equal(refused.code, 1)
  t.match(refused.stderr, '--base64')
  t.equal((await run(['append', id, 'binary', 'binary', '--base64'], { cwd })).code, 0)

  const got = await run(['get', id, '-o', 'backup.json', '--progress'], { cwd })
  t.equal(got.code, 0)
  t.match(got.stderr, /\[#{24}\] 100 %/)
  const headers = { authorization: BASIC }
  const whole = await (await fetch(`${url}/ak/api/v1/backups/${id}`, { headers })).text()
  t.equal(readFileSync(file, 'utf8'), whole)
  t.match(JSON.parse(whole)._attachments, {
    'a/ö': Buffer.from(data).toString('base64'),
    binary: Buffer.from('/wD+').toString('base64')
  })
  t.equal(statSync(file).mode & 0o777, 0o600, 'for its owner only')
  t.strictSame(readdirSync(cwd).sort(), ['backup.json', 'binary'])
  const again = await run(['get', id, '-o', 'backup.json'], { cwd })
  t.equal(again.code, 2)
  t.match(again.stderr, '--force')
  t.equal((await run(['get', id, '-o', 'backup.json', '--force'], { cwd })).code, 0)
  t.equal((await run(['get', id, '-o', '-'])).stdout, whole, 'to stdout')
  t.equal((await run(['get', id], { cwd })).code, 0)
  t.equal(readFileSync(join(cwd, `${id}.json`), 'utf8'), whole, 'by default under its id')

  const components = on.couch.use<{ changed?: number }>(on.names.components)
  const spoil = async (name: string) => {
    await components.insert({ _rev: (await components.get(name))._rev, changed: 1 } as never, name)
  }
  await spoil('doc_00000001')
  await spoil('doc_00000002')
  const unconfirmed = await run(['restore', id])
  t.equal(unconfirmed.code, 2)
  t.match(unconfirmed.stderr, '--yes')
  t.equal((await components.get('doc_00000001')).changed, 1, 'nothing was restored')

  const skipping = ['--skip-components', 'doc_00000002', '--skip-components', 'doc_00000003']
  const restored = await run(['restore', id, '--yes', '--wait', '--json', ...skipping])
  t.equal(restored.code, 0)
  t.match(restored.json(), {
    status: 'success',
    databases: { components: { total: 120, changed: 1, skipped: 2, unchanged: 117 } }
  })
  t.equal((await components.get('doc_00000001')).changed, undefined)
  t.equal((await components.get('doc_00000002')).changed, 1, 'was to be left alone')
  t.equal(restored.stderr, SETTINGS_WARNING)

  const mistyped = ['--skip-components', 'doc_00000002,doc_0000000x', '--skip-system', '["a,b"]']
  const warned = await run(['restore', id, '--yes', '--wait', ...mistyped])
  t.equal(warned.code, 0)
  t.equal(
    warned.stderr,
    `${SETTINGS_WARNING}warning: ids to skip are of no document of components: "doc_0000000x"\n` +
      'warning: ids to skip are of no document of system: "a,b"\n'
  )
  t.equal((await components.get('doc_00000002')).changed, 1, 'is left alone')
  const wrong = await run(['restore', id, '--yes', '--skip-system', 'a,,b'])
  t.equal(wrong.code, 2)
  t.match(wrong.stderr, '--skip-system must be the id of a document')

  const receiver = createServer((request, response) => {
    posted = once(request.resume(), 'end')
    response.end()
  })
  let posted: Promise<unknown> | undefined
  receiver.listen(0, '127.0.0.1')
  t.teardown(() => receiver.close())
  await once(receiver, 'listening')
  const webhook = `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/"quoted"`
  const uploaded = await run(
    ['restore', '--file', 'backup.json', '--yes', '--wait', '--client-webhook-url', webhook, '--progress'],
    { cwd }
  )
  t.equal(uploaded.code, 0)
  t.match(uploaded.stdout, /components: 120 documents: 1 changed, 119 unchanged/)
  t.match(uploaded.stderr, /the restore is done/)
  t.equal((await components.get('doc_00000002')).changed, undefined)
  while (!posted) await delay(20)

  const unwaited = await run(['restore', id, '--yes'])
  t.match(unwaited.stdout, /^[0-9a-f]{32}\n$/)
})

t.test('a broken download', async (t) => {
  const on = await setupDatabases(t)
  await load(on.couch.use(on.names.components), seedDocuments({ count: 120, size: 30_000 }))
  const host = await startHost(t, on)
  const proxy = await startFaultProxy(t, host.url)
  const run = runner(t, { ...host.env, BACKUPS_URL: proxy.url })
  const { id } = (await run(['start', '--wait', '--json'])).json()
  const headers = { authorization: BASIC }
  const whole = await (await fetch(`${host.url}/ak/api/v1/backups/${id}`, { headers })).text()
  const path = new RegExp(id)

  for (const fault of ['reset_mid', 'cut_last'] as const) {
    await t.test(`is continued where it broke: ${fault}`, async (t) => {
      const cwd = t.testdir({})
      await proxy.clear()
      const rule = proxy.add({ fault, path, times: 2 })
      const got = await run(['get', id, '--json'], { cwd })
      t.equal(got.code, 0)
      t.strictSame(got.json(), { id, file: `${id}.json`, bytes: Buffer.byteLength(whole) })
      t.equal(readFileSync(join(cwd, `${id}.json`), 'utf8'), whole)
      t.ok(rule.hits >= 1 && proxy.seen.length === rule.hits + 1)
      t.strictSame(readdirSync(cwd), [`${id}.json`])
    })
  }

  await t.test('is continued by the next run, and only what is missing is sent', async (t) => {
    const cwd = t.testdir({})
    await proxy.clear()
    proxy.add({ fault: 'cut_mid', path })
    const broken = await run(['get', id, '--retries', '0', '--progress'], { cwd })
    t.equal(broken.code, 6)
    t.match(broken.stderr, /run this again to go on/)
    t.strictSame(readdirSync(cwd).sort(), [`${id}.json.part`, `${id}.json.part.json`])
    const { size } = statSync(join(cwd, `${id}.json.part`))
    t.ok(size > 0 && size < Buffer.byteLength(whole))
    t.equal(statSync(join(cwd, `${id}.json.part`)).mode & 0o777, 0o600)

    let sent = 0
    host.app.server.prependListener('request', (_request, response) => {
      response.once('finish', () => {
        sent += Number(response.getHeader('content-length'))
      })
    })
    const got = await run(['get', id, '--json'], { cwd })
    t.strictSame(got.json(), { id, file: `${id}.json`, bytes: Buffer.byteLength(whole), resumed_from: size })
    t.equal(sent, Buffer.byteLength(whole) - size)
    t.equal(readFileSync(join(cwd, `${id}.json`), 'utf8'), whole)
    t.strictSame(readdirSync(cwd), [`${id}.json`])
  })

  const gz = `${id}.json.gz`
  const unzip = (cwd: string) => gunzipSync(readFileSync(join(cwd, gz))).toString()

  for (const fault of ['reset_mid', 'cut_last'] as const) {
    await t.test(`to a compressed file is continued where it broke: ${fault}`, async (t) => {
      const cwd = t.testdir({})
      await proxy.clear()
      const rule = proxy.add({ fault, path, times: 2 })
      const got = await run(['get', id, '-o', gz, '--json'], { cwd })
      t.equal(got.code, 0, got.stderr)
      const { size } = statSync(join(cwd, gz))
      t.strictSame(got.json(), { id, file: gz, bytes: Buffer.byteLength(whole), file_bytes: size })
      t.equal(unzip(cwd), whole)
      t.ok(rule.hits >= 1 && proxy.seen.length === rule.hits + 1)
      t.equal(
        execFileSync('gzip', ['-dc', gz], { cwd, maxBuffer: 1e8 }).toString(),
        whole,
        'as gzip reads it'
      )
      t.strictSame(readdirSync(cwd), [gz])
    })
  }

  await t.test('to a compressed file is continued by the next run', async (t) => {
    const left = t.testdir({})
    await proxy.clear()
    proxy.add({ fault: 'cut_mid', path })
    const broken = await run(['get', id, '-o', gz, '--retries', '0', '--progress'], { cwd: left })
    t.equal(broken.code, 6)
    t.match(broken.stderr, /(bytes|KiB|MiB) of the backup are in .*run this again to go on/)
    t.strictSame(readdirSync(left).sort(), [`${gz}.part`, `${gz}.part.json`])
    t.equal(statSync(join(left, `${gz}.part`)).mode & 0o777, 0o600)
    const part = readFileSync(join(left, `${gz}.part`))
    const noted = readFileSync(join(left, `${gz}.part.json`))
    const { bytes } = JSON.parse(noted.toString())
    t.equal(gunzipSync(part).toString(), whole.slice(0, bytes), 'the part ends with a member')

    const changed = Buffer.from(part)
    changed[part.length >> 1]! ^= 0xff
    const parts: Record<string, { part: Buffer; code: number; resumed?: boolean }> = {
      'as it was left': { part, code: 0, resumed: true },
      'with more after what is noted': {
        part: Buffer.concat([part, part.subarray(0, 999)]),
        code: 0,
        resumed: true
      },
      'shorter than noted': { part: part.subarray(0, -1), code: 0, resumed: false },
      'changed on the disk': { part: changed, code: 1 }
    }
    for (const [what, { part, code, resumed }] of Object.entries(parts)) {
      await proxy.clear()
      const cwd = t.testdir({ [`${gz}.part`]: part, [`${gz}.part.json`]: noted })
      const got = await run(['get', id, '-o', gz, '--json'], { cwd })
      t.equal(got.code, code, `${what}: ${got.stderr}`)
      t.strictSame(readdirSync(cwd), code === 0 ? [gz] : [], what)
      if (code !== 0) continue
      t.equal(got.json().resumed_from, resumed ? bytes : undefined, what)
      t.equal(unzip(cwd), whole)
    }

    await proxy.clear()
    const cwd = t.testdir({})
    proxy.add({ fault: 'cut_last', path })
    const last = await run(['get', id, '-o', gz, '--retries', '0'], { cwd })
    t.equal(last.code, 6)
    await proxy.clear()
    t.equal((await run(['get', id, '-o', gz], { cwd })).code, 0)
    t.equal(unzip(cwd), whole)
  })

  await t.test('that was interrupted can be continued', async (t) => {
    const cwd = t.testdir({})
    await proxy.clear()
    proxy.add({ fault: 'stall_mid', path })
    const part = join(cwd, `${id}.json.part`)
    const interrupted = await run(['get', id], {
      cwd,
      async onStart(child) {
        while (!(statSync(part, { throwIfNoEntry: false })?.size ?? 0)) await delay(10)
        child.kill('SIGINT')
      }
    })
    t.equal(interrupted.code, 130)
    t.ok(statSync(part).size > 0)
    const got = await run(['get', id, '--json'], { cwd })
    t.equal(got.code, 0)
    t.ok(got.json().resumed_from > 0)
    t.equal(readFileSync(join(cwd, `${id}.json`), 'utf8'), whole)
  })

  await t.test('to stdout is continued as well', async (t) => {
    await proxy.clear()
    proxy.add({ fault: 'cut_mid', path })
    const got = await run(['get', id, '-o', '-'])
    t.equal(got.code, 0)
    t.equal(got.stdout, whole)
  })

  await t.test('begins again when what is left of it is not to be trusted', async (t) => {
    const part = `${id}.json.part`
    const note = (more: object) => JSON.stringify({ id, etag: '"other"', bytes: 10, size: 10, ...more })
    for (const [what, files] of Object.entries({
      'another tag': { [part]: 'x'.repeat(10), [`${part}.json`]: note({}) },
      'another backup': { [part]: 'x'.repeat(10), [`${part}.json`]: note({ id: MISSING }) },
      'a torn note': { [part]: 'x'.repeat(10), [`${part}.json`]: note({}).slice(0, 20) },
      'no note': { [part]: 'x'.repeat(10) },
      'a file shorter than noted': { [part]: 'x', [`${part}.json`]: note({}) }
    })) {
      const cwd = t.testdir(files)
      await proxy.clear()
      t.equal((await run(['get', id], { cwd })).code, 0, what)
      t.equal(readFileSync(join(cwd, `${id}.json`), 'utf8'), whole)
    }
  })

  await t.test('of a server that cannot continue begins again', async (t) => {
    const cwd = t.testdir({})
    let asked = 0
    const server = createServer((request, response) => {
      asked++
      response.writeHead(200, { 'content-type': 'application/json' })
      response.write(whole.slice(0, 1000 * asked), () => {
        if (asked < 3) request.socket.destroySoon()
        else response.end(whole.slice(1000 * asked))
      })
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    t.teardown(() => server.close())
    const env = { BACKUPS_URL: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }
    t.equal((await run(['get', id], { cwd, env })).code, 0)
    t.equal(asked, 3)
    t.equal(readFileSync(join(cwd, `${id}.json`), 'utf8'), whole)
  })
})

t.test('exit codes', async (t) => {
  const on = await setupDatabases(t)
  await load(on.couch.use(on.names.components), seedDocuments({ count: 5 }))
  const gate = await startGate(t, on)
  const host = await startHost(t, on, gate.couch)
  const run = runner(t, host.env)

  const large = [...seedDocuments({ count: 100, size: 100_000 })]
  await t.test('0: a backup without documents that could not be read, which stderr tells', async (t) => {
    const on = await setupRawDatabases(t)
    const headers = { 'content-type': 'text/plain', 'content-encoding': 'gzip' }
    await putAttachment(on.url, [on.names.components, 'bad', 'a'], Buffer.from('not gzip'), headers)
    const run = runner(t, (await startHost(t, on)).env)
    const started = await run(['start', '--wait', '--json'])
    t.equal(started.code, 0)
    t.match(started.json(), { unreadable_count: 1, doc_count: 0 })
    t.match(started.stderr, 'warning: the backup lacks 1 document that could not be read')
    const status = await run(['status', started.json().id])
    t.equal(status.code, 0)
    t.match(status.stdout, 'complete: 0 documents')
    t.match(status.stderr, 'lacks 1 document')
  })

  await t.test('1: a backup that failed', async (t) => {
    const release = gate.hold(/_changes/)
    const waiting = run(['start', '--wait', '--json', '--progress'])
    await gate.held(/_changes/)
    const [id] = (await host.app.dbBackups.list()).ids
    t.match((await run(['status', id!])).stdout, 'in progress: 0 documents')
    const early = await run(['get', id!, '-o', '-'])
    t.equal(early.code, 1, 'nothing to download yet')
    t.equal(early.stdout, '')

    const busy = await run(['start', '--json'])
    t.equal(busy.code, 5, 'already in progress')
    t.match(busy.json(), { error: { exit_code: 5, reply: { id, message: 'already_in_progress' } } })
    const cwd = t.testdir({ 'large.json': JSON.stringify({ dbs: { athena_components: { docs: large } } }) })
    const upload = await run(['restore', '--file', 'large.json', '--yes'], { cwd })
    t.equal(upload.code, 5, 'a refusal is heard while the file is being sent')
    t.match(upload.stderr, `backup_in_progress (${id})`)

    await on.couch.db.destroy(on.names.components)
    release()
    const { code, stderr, json } = await waiting
    t.equal(code, 1)
    t.match(stderr, /started/)
    t.match(json(), { id, in_progress: false, error: String })
    t.equal((await run(['status', id!])).code, 1)
    const got = await run(['get', id!], { cwd })
    t.equal(got.code, 1)
    t.match(got.stderr, 'has failed')
    t.strictSame(readdirSync(cwd), ['large.json'], 'nothing is left')
    await on.couch.db.create(on.names.components)
  })

  await t.test('1: a restore that could not write a document names it', async (t) => {
    const docs = [
      { _id: 'good', a: 1 },
      { _id: 'bad', _unknown: 1 }
    ]
    const cwd = t.testdir({ 'b.json': JSON.stringify({ dbs: { athena_components: { docs } } }) })
    const restored = await run(['restore', '--file', 'b.json', '--yes', '--wait'], { cwd })
    t.equal(restored.code, 1)
    t.match(
      restored.stdout,
      /failed: .*\n.*components: 2 documents: 1 created, 1 failed\n {2}components "bad": /s
    )
  })

  await t.test('0: a file that is gzip, or has a byte order mark, is restored', async (t) => {
    const text = JSON.stringify({ dbs: { athena_components: { docs: [{ _id: 'of a file' }] } } })
    const cwd = t.testdir({ 'b.json.gz': gzipSync(text), 'marked.json': `\ufeff\r\n${text}\n` })
    const zipped = await run(['restore', '--file', 'b.json.gz', '--yes', '--wait'], { cwd })
    t.equal(zipped.code, 0)
    t.match(zipped.stdout, /components: 1 document: 1 created/)
    const webhook = ['--client-webhook-url', 'http://127.0.0.1:9/']
    t.equal((await run(['restore', '--file', 'b.json.gz', '--yes', ...webhook], { cwd })).code, 2)
    const marked = await run(['restore', '--file', 'marked.json', '--yes', '--wait', ...webhook], { cwd })
    t.equal(marked.code, 0)
    t.match(marked.stdout, /components: 1 document: 1 unchanged/)
  })

  await t.test('0: a backup of a document that nests deep is read', async (t) => {
    const deep = `${'['.repeat(1500)}${']'.repeat(1500)}`
    const body = `{"dbs":{"athena_sessions":{"docs":[{"_id":"deep","deep":${deep}}]}}}`
    const cwd = t.testdir({ 'deep.json': body })
    t.equal((await run(['restore', '--file', 'deep.json', '--yes', '--wait'], { cwd })).code, 0)
    const { id } = (await run(['start', '--wait', '--json'])).json()
    const got = await run(['get', id, '-o', '-'])
    t.equal(got.code, 0)
    t.ok(got.stdout.includes(deep))
    t.equal((await run(['status', id])).code, 0)
  })

  await t.test('0: a download that is gzip is restored, of the client and of gzip', async (t) => {
    const cwd = t.testdir({})
    const { id } = (await run(['start', '--wait', '--json'])).json()
    const got = await run(['get', id, '-o', 'b.json.GZ'], { cwd })
    t.equal(got.code, 0)
    t.match(got.stdout, /^b\.json\.GZ: [\d.]+ (bytes|KiB|MiB), compressed to [\d.]+ (bytes|KiB)\n$/)
    t.equal((await run(['get', id, '-o', 'plain.json'], { cwd })).code, 0)
    execFileSync('gzip', ['--name', 'plain.json'], { cwd })
    for (const file of ['b.json.GZ', 'plain.json.gz']) {
      const restored = await run(['restore', '--file', file, '--yes', '--wait'], { cwd })
      t.equal(restored.code, 0, restored.stderr)
      const { body } = await host.app.dbBackups.get(id)
      t.ok(gunzipSync(readFileSync(join(cwd, file))).equals(await buffer(body)))
    }
  })

  await t.test('1: a compressed file that is no whole backup is not even sent', async (t) => {
    let sent = 0
    const server = createServer((_request, response) => {
      sent++
      response.end()
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    t.teardown(() => server.close())
    const env = { BACKUPS_URL: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }
    const good = gzipSync('{"dbs":{}}')
    const files: Record<string, [Buffer | string, RegExp]> = {
      'json.gz': ['{"dbs":{}}', /is not gzip, as its name says/],
      'empty.gz': ['', /is not gzip/],
      'cut.gz': [good.subarray(0, -3), /is not whole gzip: it cannot be inflated/],
      cut: [good.subarray(0, -3), /is not whole gzip/],
      'second.gz': [Buffer.concat([good, good.subarray(0, 9)]), /is not whole gzip/],
      'more.gz': [Buffer.concat([good, Buffer.alloc(3)]), /is not whole gzip: it holds data after/],
      'nothing.gz': [gzipSync(''), /no JSON object/],
      'twice.gz': [gzipSync(good), /no JSON object/],
      'end.gz': [gzipSync('{"dbs":{}'.slice(0, 6)), /its end is missing/]
    }
    const cwd = t.testdir(
      Object.fromEntries(Object.entries(files).map(([name, [content]]) => [name, content]))
    )
    for (const [file, [, message]] of Object.entries(files)) {
      const refused = await run(['restore', '--file', file, '--yes'], { cwd, env })
      t.equal(refused.code, 1, file)
      t.match(refused.stderr, message, file)
    }
    t.equal(sent, 0)
  })

  await t.test('1: a file that is no whole backup is not even sent', async (t) => {
    const cwd = t.testdir({ cut: '{"dbs":{"athena', array: '[]', empty: '' })
    for (const file of ['cut', 'array', 'empty', 'missing', '.']) {
      const refused = await run(['restore', '--file', file, '--yes'], { cwd })
      t.equal(refused.code, 1, file)
    }
    const wrong = t.testdir({ 'w.json': '{"dbs":{"users":{"docs":[]}}}' })
    const refused = await run(['restore', '--file', 'w.json', '--yes'], { cwd: wrong })
    t.equal(refused.code, 1)
    t.match(refused.stderr, 'users')
  })

  await t.test('2: wrong arguments or environment', async (t) => {
    for (const args of [
      [],
      ['constructor'],
      ['start', '--nonsense'],
      ['start', 'more'],
      ['status', 'x'],
      ['append', MISSING, '..', '-'],
      ['get', MISSING, '-o', '-', '--json'],
      ['restore', '--yes'],
      ['restore', MISSING, '--file', 'x', '--yes'],
      ['list', '--retries', 'x'],
      ['list', '--timeout', '0']
    ]) {
      const { code, stderr } = await run(args)
      t.equal(code, 2, args.join(' '))
      t.ok(stderr.length > 0)
    }
    const { BACKUPS_URL: _url, ...nowhere } = host.env
    const without = await cli(['list'], { env: nowhere })
    t.equal(without.code, 2)
    t.match(without.stderr, 'BACKUPS_URL')
  })

  await t.test('3: not authenticated, or not allowed', async (t) => {
    const cwd = t.testdir({ 'large.json': JSON.stringify({ dbs: { athena_components: { docs: large } } }) })
    const env = { BACKUPS_API_SECRET: 'wrong' }
    t.equal((await run(['restore', '--file', 'large.json', '--yes'], { cwd, env })).code, 3)
    t.equal((await run(['list'], { env })).code, 3)
    const asReader = { BACKUPS_API_KEY: '', BACKUPS_API_SECRET: '', BACKUPS_TOKEN: 'reader' }
    t.equal((await run(['list'], { env: asReader })).code, 3)
    t.equal(
      (await run(['list'], { env: { ...asReader, BACKUPS_TOKEN: 'token-of-test' } })).code,
      0,
      'a token is good'
    )
  })

  await t.test('4: no such backup', async (t) => {
    for (const args of [
      ['status', MISSING],
      ['get', MISSING, '-o', '-'],
      ['restore', MISSING, '--yes']
    ]) {
      t.equal((await run(args)).code, 4, args.join(' '))
    }
    t.equal((await run(['append', MISSING, 'a', '-'], { input: 'x' })).code, 4)
  })

  await t.test('6: not available, after the attempts asked for', async (t) => {
    const nowhere = { BACKUPS_URL: 'http://127.0.0.1:9' }
    t.equal((await run(['start', '--retries', '0'], { env: nowhere })).code, 6)
    let asked = 0
    const server = createServer((request, response) => {
      asked++
      request.resume()
      if (request.method === 'PUT') return
      response.writeHead(503, { 'retry-after': '1' }).end('<html>')
    })
    const env = { BACKUPS_URL: await listen(t, server) }
    const began = Date.now()
    const list = await run(['list', '--retries', '1', '--json'], { env })
    t.equal(list.code, 6)
    t.equal(asked, 2)
    t.ok(Date.now() - began >= 1000, 'Retry-After is heeded')
    t.match(list.stderr, /retrying in 1\.0 s \(1 of 1\)/, 'also without a terminal')
    t.match(list.json(), { error: { exit_code: 6, reply: { status: 503 } } })
    asked = 0
    t.equal((await run(['start'], { env })).code, 6)
    t.equal(asked, 1, 'what would start something is not repeated')
    const silent = await run(['append', MISSING, 'a', '-', '--timeout', '1', '--retries', '0'], {
      env,
      input: 'x'
    })
    t.equal(silent.code, 6)
    t.match(silent.stderr, 'nothing came for 1 s')
  })
})

t.test('help and version need no server', async (t) => {
  const run = runner(t, {})
  const { version } = JSON.parse(readFileSync(join(__dirname, '..', 'package.json'), 'utf8'))
  t.equal((await run(['--version'])).stdout, `${version}\n`)
  const help = await run(['--help'])
  t.equal(help.code, 0)
  t.match(help.stdout, /Exit codes:/)
  for (const command of ['start', 'status', 'list', 'get', 'append', 'restore']) {
    t.match(help.stdout, new RegExp(`^ {2}${command} `, 'm'))
  }
  for (const command of ['get', 'restore']) {
    const own = await run([command, '--help'])
    t.equal(own.code, 0)
    t.match(own.stdout, new RegExp(`^Usage: fastify-couchdb-backups ${command}`))
    t.notMatch(own.stdout, /Exit codes:|Environment:/, 'what is common is told once')
    t.match(own.stdout, /--help tells common options, environment and exit codes/)
    t.notOk(
      own.stdout.split('\n').some((line) => line.length > 80),
      'lines fit a terminal'
    )
  }
})
