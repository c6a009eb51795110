import { readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import Fastify, { type FastifyRequest } from 'fastify'
import t, { type Test } from 'tap'
import type { Context } from '../lib/cli/command.js'
import { list } from '../lib/cli/commands/list.js'
import dbBackups, { createMemoryWebhookStore } from '../lib/index.js'
import operator from '../lib/operator/index.js'
import type { DbBackupsOptions } from '../types/index.js'
import { buildCli, type CliOptions } from './helpers/cli.js'
import { setupDatabases } from './helpers/database.js'
import { listen } from './helpers/listen.js'
import { load, seedDocuments } from './helpers/seed.js'

const cli = buildCli(t)

interface HostOptions extends Partial<DbBackupsOptions> {
  /** Where the operator's routes are. `null`: nowhere. */
  prefix?: string | null
}

async function startHost(t: Test, { prefix = '/operator', ...options }: HostOptions = {}) {
  const on = await setupDatabases(t)
  const webhooks = createMemoryWebhookStore()
  const app = Fastify()
  t.teardown(() => app.close())
  const authorize = ({ headers }: FastifyRequest) => {
    if (headers.authorization !== 'Bearer x')
      throw Object.assign(new Error('unauthorized'), { statusCode: 401 })
  }
  await app.register(dbBackups, {
    couch: on.couch,
    databases: on.names,
    authorize,
    webhooks,
    rebuildWhitelist() {},
    safety: false,
    ...options
  })
  app.get<{ Params: { id: string } }>('/ak/api/v1/webhooks/txs/:id', ({ params }) => webhooks.get(params.id))
  if (prefix !== null) await app.register(operator, { prefix, authorize })
  const url = await app.listen({ port: 0, host: '127.0.0.1' })
  const backup = async (start?: object) => {
    const { id, finished } = await app.dbBackups.start(start)
    await finished
    return id
  }
  const run = async (args: string[], more: CliOptions = {}) => {
    const env = { BACKUPS_URL: url, BACKUPS_TOKEN: 'x', TZ: 'UTC', ...more.env }
    const ran = await cli(args, { ...more, env })
    return { ...ran, json: () => JSON.parse(ran.stdout) }
  }
  /** Changes, creates and deletes a document. */
  const change = async () => {
    const components = on.couch.use<{ name?: string }>(on.names.components)
    await components.insert({ ...(await components.get('doc_00000001')), name: 'changed' })
    await components.insert({ name: 'new' }, 'created')
    await components.destroy('doc_00000002', (await components.get('doc_00000002'))._rev)
  }
  await load(on.couch.use(on.names.components), seedDocuments({ count: 20 }))
  return { app, on, url, backup, run, change }
}

t.test('diff tells which documents differ, with values on request', async (t) => {
  const { backup, run, change } = await startHost(t)
  const id = await backup()
  await change()
  const told = await run(['diff', id])
  t.equal(told.code, 0)
  t.strictSame(told.stdout.split('\n').sort(), [
    '',
    'changed  components "doc_00000001"  name',
    'created  components "created"',
    'deleted  components "doc_00000002"'
  ])
  t.match(told.stderr, new RegExp(`^${id} and now differ in 3 documents: `))
  const valued = await run(['diff', 'latest', 'now', '--values'])
  t.match(valued.stdout, '\n    name: - -> "changed"\n'.trim())
  const later = await backup()
  const json = (await run(['diff', id, later, '--json'])).json()
  t.match(json, { id, against: later, count: 3 })
  t.equal(json.changes.length, 3)
  t.strictSame((await run(['diff', later, 'latest', '--json'])).json(), {
    id: later,
    against: later,
    changes: [],
    count: 0
  })
  const missing = await run(['diff', '03_ibp_db_backup_1592922855871', '--json'])
  t.equal(missing.code, 4)
  t.match(missing.json(), { error: { exit_code: 4 } })
})

t.test('a diff that breaks off is no whole one', async (t) => {
  const change = { database: 'system', id: 'a\u001b[2J', change: 'created', bytes: {} }
  for (const [end, message] of Object.entries({
    '': /the reply was cut off/,
    '{"error":{"code":"DB_BACKUPS_DAMAGED","message":"chunk is gone"}}\n': /chunk is gone/,
    '<html>\n': /not of the operator's routes/
  })) {
    const server = createServer((_request, response) => {
      response.writeHead(200, { 'content-type': 'application/x-ndjson' })
      response.end(`${JSON.stringify(change)}\n${end}`)
    })
    const env = { BACKUPS_URL: await listen(t, server), BACKUPS_TOKEN: 'x' }
    const args = ['diff', '03_ibp_db_backup_1', '--retries', '0']
    const plain = await cli(args, { env })
    t.notOk([0, 130].includes(plain.code!), end)
    t.match(plain.stderr, message)
    t.equal(plain.stdout, 'created  system     "a\\u001b[2J"\n', 'what steers a terminal is spelled out')
    const json = await cli([...args, '--json'], { env })
    t.match(JSON.parse(json.stdout), { changes: [change], error: { message, exit_code: plain.code } })
    t.equal(json.code, plain.code)
  }
})

t.test('restore --dry-run names what would change, and writes nothing', async (t) => {
  const { on, backup, run, change } = await startHost(t)
  const id = await backup()
  const cwd = t.testdir({})
  await run(['get', id, '-o', 'b.json'], { cwd })
  await change()
  const before = await on.fetchAll(on.names.components)
  const told = await run(['restore', id, '--dry-run', '--skip-components', 'doc_00000002,nothing'])
  t.equal(told.code, 0)
  t.equal(told.stdout, 'changed  components "doc_00000001"  name\n')
  t.match(told.stderr, 'warning: ids to skip are of no document of components: "nothing"')
  t.match(told.stderr, 'a restore would change 1 document: 1 changed\n')
  t.match(told.stderr, '  components: 20 documents: 1 changed, 18 unchanged, 1 skipped')
  const json = (await run(['restore', 'latest', '-n', '--json'])).json()
  t.match(json, { id, count: 2, outcome: { databases: { components: { created: 1, changed: 1 } } } })
  t.strictSame(json.changes.map(({ id }: { id: string }) => id).sort(), ['doc_00000001', 'doc_00000002'])

  writeFileSync(join(cwd, 'b.json.gz'), gzipSync(readFileSync(join(cwd, 'b.json'))))
  for (const file of ['b.json', 'b.json.gz']) {
    const skip = ['--skip-components', 'doc_00000001', '--skip-components', 'other']
    const preview = await run(['restore', '--file', file, '--dry-run', ...skip], { cwd })
    t.equal(preview.code, 0, preview.stderr)
    t.equal(preview.stdout, 'created  components "doc_00000002"\n', file)
    t.match(preview.stderr, 'of no document of components: "other"')
  }
  t.strictSame(await on.fetchAll(on.names.components), before)
  t.equal((await run(['restore', id, '--dry-run', '--wait'])).code, 2)
})

t.test('verify tells what is wrong, and ends with 1', async (t) => {
  const { on, backup, run } = await startHost(t)
  const id = await backup()
  const good = await run(['verify', 'latest', '--progress'])
  t.equal(good.code, 0)
  t.match(
    good.stdout,
    new RegExp(`^${id} good \\(data, in [\\d.]+ s\\)\n  components: 20 documents in 1 chunk\n`)
  )
  t.equal((await run(['verify', id, '--depth', 'restore', '--json'])).json().depth, 'restore')
  t.equal((await run(['verify', id, '--depth', 'all'])).code, 2)
  const system = on.couch.use(on.names.system)
  const { rows } = await system.list({ startkey: 'backup_chunk_', endkey: 'backup_chunk_~' })
  await system.destroy(rows[0]!.id, rows[0]!.value.rev)
  const bad = await run(['verify', id])
  t.equal(bad.code, 1)
  t.match(bad.stdout, `${id} damaged: 1 problem (data`)
  t.match(bad.stdout, `components chunk "${rows[0]!.id}": `)
  const none = await run(['status', 'latest'])
  t.match(none, { code: 4, stderr: 'there is no good backup: "start" makes one\n' })
})

t.test('an interrupted verification goes on where it was', async (t) => {
  const asked: unknown[] = []
  const server = createServer(async (request, response) => {
    let text = ''
    for await (const piece of request) text += piece
    asked.push(JSON.parse(text))
    const error = {
      code: 'DB_BACKUPS_VERIFY_INTERRUPTED',
      message: 'interrupted',
      position: `p${asked.length}`
    }
    const report = { id: 'x', depth: 'data', good: true, complete: true, duration_ms: 1, databases: {} }
    const last = asked.length < 4 ? { error } : { report: { ...report, problem_count: 0, problems: [] } }
    response.end(`{"running":true}\n${JSON.stringify(last)}\n`)
  })
  const env = { BACKUPS_URL: await listen(t, server), BACKUPS_TOKEN: 'x' }
  const failed = await cli(['verify', '03_ibp_db_backup_1', '--retries', '0'], { env })
  t.match(failed, { code: 6, stderr: 'interrupted; --from p1 goes on where it was\n' })
  const args = ['verify', '03_ibp_db_backup_1', '--from', 'p1', '--retries', '1']
  t.match(await cli(args, { env }), { code: 0, stdout: /^x good/ })
  t.strictSame(
    asked.map((body) => (body as { from?: string }).from),
    [undefined, 'p1', 'p2', 'p3']
  )
})

t.test('rm removes what is confirmed', async (t) => {
  const { app, backup, run } = await startHost(t)
  const [first, second, third] = [await backup(), await backup(), await backup()]
  const asked = await run(['rm', first])
  t.match(asked, { code: 2, stderr: 'stdin is not a terminal; pass --yes to confirm\n' })
  const newest = await run(['rm', 'latest', '--yes'])
  t.equal(newest.code, 1)
  t.match(newest.stderr, `backup "${third}" cannot be removed: it is the newest good backup [409]`)
  const removed = await run(['rm', first, second, '--yes'])
  t.match(removed, { code: 0, stdout: `${first} removed\n${second} removed\n`, stderr: / freed\n$/ })
  t.strictSame((await app.dbBackups.list()).ids, [third])
  t.equal((await run(['rm', first, '--yes'])).code, 4)
})

t.test('prune shows its reasons, and removes without --dry-run only', async (t) => {
  const { app, backup, run } = await startHost(t, { keep: { last: 1 } })
  const [first, second] = [await backup(), await backup()]
  const dry = await run(['prune', '--dry-run'])
  t.equal(dry.code, 0)
  t.match(dry.stdout, `remove  ${first}  no rule keeps it\nkeep    ${second}  newest good backup, last 1`)
  t.match(dry.stderr, /^1 backup would be removed, 1 kept; [\d.]+ (bytes|KiB) would be freed\n$/)
  t.equal((await app.dbBackups.list()).ids.length, 2)
  t.match((await run(['prune', '--json'])).json(), { dryRun: false, removed: [{ id: first }] })
  t.strictSame((await app.dbBackups.list()).ids, [second])
  const without = await startHost(t)
  const refused = await without.run(['prune'])
  t.equal(refused.code, 1)
  t.match(refused.stderr, 'keep')
})

t.test('schedule tells the next and the last run', async (t) => {
  const none = await startHost(t)
  t.match(await none.run(['schedule']), { code: 0, stdout: /^the server makes no backups by itself/ })
  const { run } = await startHost(t, { schedule: { cron: '0 2 1 1 *', timezone: 'UTC', verify: 'daily' } })
  const { code, stdout } = await run(['schedule'])
  t.equal(code, 0)
  t.match(stdout, /^next backup +\d+ \w+ \d{4}, \d\d:\d\d, .* \(0 2 1 1 \*, UTC\)$/m)
  t.match(stdout, /^next verification +.* data\)$/m)
  t.match((await run(['schedule', '--json'])).json(), { schedule: { cron: '0 2 1 1 *' } })
})

t.test('list is a table on a terminal, and ids in a pipe', async (t) => {
  for (const prefix of ['/operator', null]) {
    const { app, backup, run } = await startHost(t, { prefix })
    t.match(await run(['list', '--long']), { stdout: '', stderr: /there are no backups: "start" makes one/ })
    const first = await backup({ protect: true, note: 'before \u001b[2Jx' })
    const second = await backup()
    const size = prefix ? '[\\d.]+ (bytes|KiB)' : '-'
    const { stdout, stderr } = await run(['list', '--long'])
    const lines = stdout.split('\n')
    t.match(lines[0], /^ID +AGE +STATE +DOCUMENTS +SIZE +ADDED +TAGS$/)
    const row = (id: string, tags: string) =>
      new RegExp(`^${id}  just now  complete +20 +${size} +[\\d.]+ (bytes|KiB)${tags}$`)
    t.match(lines[1], row(first, '  protected, "before \\\\u001b\\[2Jx"'))
    t.match(lines[2], row(second, ''))
    t.equal(stderr, '')
    const one = await run(['list', '-l', '-n', '1'])
    t.notMatch(one.stdout, first)
    t.equal(one.stderr, '1 older backup: --limit 2 shows them\n')
    t.equal((await run(['list'])).stdout, `${first}\n${second}\n`, 'ids in a pipe')
    t.strictSame((await run(['list', '--json'])).json(), { ids: [first, second] })
    const known = (await run(['list', '--json', '--long'])).json()
    t.match(known, { total: 2, ids: [first, second], backups: [{ protected: true }, { doc_count: 20 }] })
    t.equal((await run(['status', 'latest'])).stdout.split(' ')[0], second)
    t.equal((await run(['list', '-n', '0'])).code, 2)

    const client = {
      json: async ({ path }: { path: string[] }) =>
        path[0] === 'overview'
          ? { total: 1, backups: [await app.dbBackups.summary(second)] }
          : { ids: [second] }
    }
    const shown = (isTTY: boolean) =>
      list.run({ client, stdout: { isTTY } } as unknown as Context, [], { limit: '25' })
    t.match((await shown(true)).text, /^ID +AGE/)
    t.equal((await shown(false)).text, second)
  }
})

t.test("a host without the operator's routes is told as such", async (t) => {
  const { run, backup, url } = await startHost(t, { prefix: null })
  const id = await backup()
  for (const args of [
    ['diff', id],
    ['verify', id],
    ['rm', id, '--yes'],
    ['prune'],
    ['schedule'],
    ['restore', id, '--dry-run']
  ]) {
    const { code, stderr } = await run(args)
    t.equal(code, 1, args.join(' '))
    t.match(stderr, `the server has no operator's routes at ${url}/operator: its host has to register them`)
  }
  const page = await listen(
    t,
    createServer((_request, response) => response.end('<html>'))
  )
  t.match(await run(['schedule', '--operator', page]), { code: 1, stderr: /has no operator's routes at/ })
})

t.test("the operator's routes may be elsewhere", async (t) => {
  const { run, url } = await startHost(t, { prefix: '/admin/backups' })
  t.equal((await run(['schedule'])).code, 1)
  t.equal((await run(['schedule', '--operator', `${url}/admin/backups/`])).code, 0)
  const env = { BACKUPS_OPERATOR_URL: `${url}/admin/backups` }
  t.equal((await run(['schedule'], { env })).code, 0)
  const wrong = await run(['schedule'], { env: { ...env, BACKUPS_TOKEN: 'y' } })
  t.match(wrong, { code: 3, stderr: /does not know these credentials/ })
  t.match(await run(['schedule', '--operator', 'x']), { code: 2, stderr: '--operator is not a URL\n' })
})
