import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import t, { type Test } from 'tap'
import ts from 'typescript'
import { setupDatabases } from './helpers/database.js'
import { poll } from './helpers/poll.js'

const ROOT = join(__dirname, '..')
const PACKAGE = { 'fastify-couchdb-backups': [join(ROOT, 'lib', 'index.mts')] }
const SECTION = /^## Embed it\n([\s\S]*?)^## /m.exec(readFileSync(join(ROOT, 'README.md'), 'utf8'))![1]!
const blocks = (language: string) =>
  [...SECTION.matchAll(new RegExp(`^\`\`\`${language}\n([\\s\\S]*?)^\`\`\`$`, 'gm'))].map(([, code]) => code!)

const [server] = blocks('ts')
const [, run] = blocks('sh')

/** Creates a directory with the files of the section, and with database names that no other test uses. */
function paste(t: Test, prefix: string) {
  const own = (text: string) => text.replaceAll('athena_', `${prefix}_`)
  const directory = t.testdir({
    'server.mts': own(server!),
    'tsconfig.json': JSON.stringify({ compilerOptions: { paths: PACKAGE } })
  })
  return { directory, commands: own(run!) }
}

type Line = Record<string, unknown> & { msg: string }

/** Runs the commands of the section in one bash, and returns the log of the server. */
function start(t: Test, prefix: string, env: NodeJS.ProcessEnv) {
  const { directory, commands } = paste(t, prefix)
  const noted = commands.replace(/^npx /m, 'printenv BACKUPS_API_SECRET > secret\n$&')
  writeFileSync(join(directory, 'commands.sh'), noted)
  const child = spawn('bash', ['-eu', 'commands.sh'], {
    cwd: directory,
    env: { PATH: process.env.PATH, HOME: directory, PORT: '0', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true
  })
  const exited = once(child, 'exit')
  t.teardown(async () => {
    if (child.exitCode === null && child.signalCode === null) process.kill(-child.pid!, 'SIGKILL')
    await exited
  })
  const secret = () => readFileSync(join(directory, 'secret'), 'utf8').trim()
  return { exited, secret, ...reading(child) }
}

function reading(child: ChildProcess) {
  const lines: Line[] = []
  const output = { errors: '' }
  child.stderr!.on('data', (text: Buffer) => {
    output.errors += text
  })
  createInterface(child.stdout!).on('line', (line) => {
    if (line.startsWith('{') && line.includes('"msg"')) lines.push(JSON.parse(line))
  })
  const logged = (pattern: RegExp) =>
    poll(`${pattern} in the log`, async () => {
      if (child.exitCode) throw new Error(`it ended: ${output.errors}`)
      return lines.find(({ msg }) => pattern.test(msg))
    })
  return { logged, output }
}

t.test('the example compiles as it is pasted, in strict mode', async (t) => {
  const { directory } = paste(t, 'athena')
  const program = ts.createProgram([join(directory, 'server.mts')], {
    strict: true,
    noEmit: true,
    skipLibCheck: true,
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind.NodeNext,
    types: ['node'],
    typeRoots: [join(ROOT, 'node_modules', '@types')],
    paths: PACKAGE
  })
  const file = program.getSourceFile(join(directory, 'server.mts'))
  const problems = ts.getPreEmitDiagnostics(program, file)
  t.strictSame(
    problems.map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n')),
    []
  )
})

/** Creates databases with names like those of the example. */
async function databasesOfExample(t: Test) {
  const prefix = `t${randomBytes(6).toString('hex')}`
  const names = {
    components: `${prefix}_components`,
    sessions: `${prefix}_sessions`,
    system: `${prefix}_system`
  }
  const { url: couchUrl, couch } = await setupDatabases(t, { names })
  return { prefix, names, couchUrl, couch }
}

t.test('the example runs as it is pasted: its first backup, one of a client, and a restore', async (t) => {
  const { prefix, names, couchUrl, couch } = await databasesOfExample(t)
  await couch.db.destroy(names.sessions)
  await couch.db.destroy(names.system)
  const components = couch.use(names.components)
  await components.insert({ api_url: 'https://peer.example.com' } as object, 'peer1')

  const { exited, secret, logged } = start(t, prefix, { COUCHDB_URL: couchUrl })
  t.match(await logged(/the first backup is complete/), { doc_count: 1, missing: ['athena_sessions'] })
  const url = /http:\/\/\S+:\d+/.exec((await logged(/listening at http:\/\/127/)).msg)![0]

  const call = async (method: string, path: string, as = `me:${secret()}`) => {
    const headers = { authorization: `Basic ${btoa(as)}` }
    const reply = await fetch(url + path, { method, headers })
    // biome-ignore lint/suspicious/noExplicitAny: replies of any shape
    return { status: reply.status, json: (await reply.json()) as any }
  }
  const ended = (path: string) =>
    poll(path, async () => {
      const { json } = await call('GET', path)
      return json.in_progress === true || json.status === 'pending' ? undefined : json
    })
  t.equal((await call('POST', '/ak/api/v3/backups', 'me:other')).status, 401)
  t.equal((await call('POST', '/api/v3/backups')).status, 401, 'a key is no session')
  const { status, json } = await call('POST', '/ak/api/v3/backups')
  t.equal(status, 202)
  t.match((await ended(`/ak/api/v3/backups/${json.id}`)).dbs.athena_components.docs, [{ _id: 'peer1' }])

  await components.destroy('peer1', (await components.get('peer1'))._rev)
  const restore = await call('PUT', `/ak/api/v3/backups/${json.id}`)
  t.match(await ended(restore.json.url.slice(url.length)), { status: 'success' })
  t.match(await components.get('peer1'), { api_url: 'https://peer.example.com' })
  t.equal((await call('GET', '/ak/api/v1/webhooks/txs/nope')).status, 404)

  const { pid } = await logged(/listening/)
  process.kill(Number(pid), 'SIGTERM')
  t.strictSame(await exited, [0, null], 'it ends by itself')
})

t.test('the example does not start without a key', async (t) => {
  const { directory } = paste(t, 'athena')
  const child = spawn(process.execPath, ['--import=tsx', 'server.mts'], {
    cwd: directory,
    env: { PATH: process.env.PATH, COUCHDB_URL: 'http://127.0.0.1:9' },
    stdio: ['ignore', 'pipe', 'pipe']
  })
  const { output } = reading(child)
  const [code] = await once(child, 'close')
  t.equal(code, 1)
  t.match(output.errors, /set COUCHDB_URL and a key/)
})

t.test('the example goes on when another instance runs an operation, or has died in one', async (t) => {
  const { prefix, names, couchUrl, couch } = await databasesOfExample(t)
  const lease = { type: 'athena_backup_lease', operation: 'backup', id: '03_ibp_db_backup_1', ttl: 600_000 }
  const held = { ...lease, instance: 'x', claim: 'x', beat: 0, settled: true }
  await couch.use(names.system).insert(held as object, 'athena_backup_lease')
  const { logged, output, exited } = start(t, prefix, { COUCHDB_URL: couchUrl })
  t.match(await logged(/no backup at the start/), { level: 30 })
  const url = /http:\/\/\S+:\d+/.exec((await logged(/listening at http:\/\/127/)).msg)![0]
  t.equal((await fetch(`${url}/ak/api/v3/backups`)).status, 401, 'it serves')
  t.notMatch(output.errors, 'OperationInProgressError')
  process.kill(Number((await logged(/listening/)).pid), 'SIGTERM')
  t.strictSame(await exited, [0, null])
})
