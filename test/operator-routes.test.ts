import t, { type Test } from 'tap'
import {
  backUp,
  MANAGER,
  type OperatorConsole,
  READER,
  startConsole,
  startGatedConsole,
  systemChunkOf
} from './helpers/operator-console.js'
import { poll } from './helpers/poll.js'

const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "base-uri 'none'",
  "require-trusted-types-for 'script'"
]

async function cookieOf({ app, passwords }: OperatorConsole, email: string): Promise<string> {
  const payload = { email, password: passwords[email] }
  const { cookies } = await app.inject({ method: 'POST', url: '/api/v2/auth/login', payload })
  return `${cookies[0].name}=${cookies[0].value}`
}

// biome-ignore lint/suspicious/noExplicitAny: lines of any shape
const linesOf = ({ body }: { body: string }): any[] =>
  body
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))

/** Waits for the end of a preview, and returns its transaction. */
async function previewed(
  { app }: OperatorConsole,
  cookie: string,
  tx: string
): Promise<Record<string, unknown>> {
  for (;;) {
    const { json } = await app.inject({ url: `/api/v2/webhooks/txs/${tx}`, headers: { cookie } })
    const transaction = json()
    if (transaction.status !== 'pending') return transaction
  }
}

t.test('the page has a strict policy, which no other route gets', async (t) => {
  const { app } = await startConsole(t)
  for (const url of [
    '/operator/',
    '/operator/app.mjs',
    '/operator/style.css',
    '/operator/icon.svg',
    '/operator/config.json'
  ]) {
    const { statusCode, headers } = await app.inject(url)
    t.equal(statusCode, 200, url)
    t.strictSame(String(headers['content-security-policy']).split(';'), POLICY, url)
    t.match(headers, {
      'x-content-type-options': 'nosniff',
      'x-frame-options': 'DENY',
      'referrer-policy': 'no-referrer'
    })
  }
  t.match((await app.inject('/operator/app.mjs')).headers['content-type'], /^(text|application)\/javascript/)
  for (const url of ['/api/v2/backups', '/operator/api/overview', '/nowhere']) {
    t.notOk((await app.inject(url)).headers['content-security-policy'], url)
  }
})

t.test('the operator routes are for sessions with the action, and not for other sites', async (t) => {
  const console = await startConsole(t)
  const { app } = console
  const id = '03_ibp_db_backup_1592924104038'
  const routes = [
    { method: 'GET', url: '/operator/api/overview' },
    { method: 'GET', url: '/operator/api/schedule' },
    { method: 'GET', url: '/operator/api/restores/abc' },
    { method: 'GET', url: `/operator/api/backups/${id}` },
    { method: 'DELETE', url: `/operator/api/backups/${id}` },
    { method: 'GET', url: `/operator/api/backups/${id}/diff?against=now` },
    { method: 'POST', url: `/operator/api/backups/${id}/verify` },
    { method: 'POST', url: `/operator/api/backups/${id}/preview` },
    { method: 'POST', url: `/operator/api/backups/${id}/restore` },
    { method: 'PUT', url: '/operator/api/preview' },
    { method: 'POST', url: '/operator/api/backups' },
    { method: 'POST', url: '/operator/api/prune' },
    { method: 'POST', url: '/operator/api/cancel' }
  ] as const
  const reader = await cookieOf(console, READER)
  const manager = await cookieOf(console, MANAGER)
  for (const route of routes) {
    t.equal((await app.inject(route)).statusCode, 401, `${route.url}: nobody`)
    t.equal(
      (await app.inject({ ...route, headers: { cookie: reader } })).statusCode,
      403,
      `${route.url}: a reader`
    )
  }
  const forged = { cookie: manager, 'sec-fetch-site': 'same-site' }
  for (const [method, url] of [
    ['POST', '/api/v2/backups'],
    ['PUT', '/operator/api/preview'],
    ['POST', '/operator/api/backups'],
    ['DELETE', `/operator/api/backups/${id}`],
    ['POST', `/operator/api/backups/${id}/restore`],
    ['POST', '/operator/api/cancel'],
    ['POST', '/operator/api/prune']
  ] as const) {
    const { statusCode, json } = await app.inject({ method, url, headers: forged })
    t.match({ statusCode, ...json() }, { statusCode: 403, message: 'cross-site requests are refused' }, url)
  }
  t.strictSame(await app.dbBackups.list(), { ids: [] })
})

t.test('the newest good backup may lack a sound index, which restores do not read', async (t) => {
  const console = await startConsole(t)
  const { app, on } = console
  const headers = { cookie: await cookieOf(console, MANAGER) }
  const { id } = await (await app.dbBackups.start()).finished
  const backups = on.couch.use(on.names.system)
  for (const [onlyIndex, expected] of [
    [true, { id }],
    [false, null]
  ] as const) {
    const components = { chunks: 1, ...(onlyIndex && { only_index: true }) }
    const damaged = { found: 1, databases: { components } }
    await backups.insert({ ...(await backups.get(id)), damaged } as never)
    const { json } = await app.inject({ url: '/operator/api/overview', headers })
    t.match(json().newest_good, expected)
  }
})

t.test('an overview has the newest backups first, without their documents', async (t) => {
  const console = await startConsole(t)
  const { app, on } = console
  const headers = { cookie: await cookieOf(console, MANAGER) }
  for (let i = 0; i < 3; i++) await (await app.dbBackups.start()).finished
  const { ids } = await app.dbBackups.list()
  const { json } = await app.inject({ url: '/operator/api/overview?limit=2', headers })
  const overview = json()
  t.match(overview, {
    user: MANAGER,
    total: 3,
    databases: on.names,
    schedule: null,
    newest_good: { id: ids[2] }
  })
  t.strictSame([overview.running, overview.restores], [[], []])
  t.strictSame(
    json().backups,
    [await app.dbBackups.summary(ids[2]), await app.dbBackups.summary(ids[1])].map((summary) =>
      JSON.parse(JSON.stringify(summary))
    )
  )
  const unlimited = await app.inject({ url: '/operator/api/overview?limit=0', headers })
  t.match(unlimited.json(), { statusCode: 400, message: /limit/ })
})

t.test('a backup is started with a note, protected and in full, and by whom', async (t) => {
  const console = await startConsole(t)
  const { app } = console
  const headers = { cookie: await cookieOf(console, MANAGER) }
  const post = (payload: object) =>
    app.inject({ method: 'POST', url: '/operator/api/backups', headers, payload })
  for (const wrong of [{ note: 'x'.repeat(1025) }, { protect: 'maybe' }])
    t.match((await post(wrong)).json(), { statusCode: 400 }, Object.keys(wrong).join())
  t.strictSame(await app.dbBackups.list(), { ids: [] })

  const wanted = { note: 'Before the upgrade', protect: true, full: true }
  const posing = await post({ ...wanted, requester: { name: 'somebody else' } })
  t.match(posing.json(), { statusCode: 400, message: /^body\/requester/ })
  t.strictSame(await app.dbBackups.list(), { ids: [] }, 'nobody else can be named')
  const { statusCode, json } = await post(wanted)
  t.match({ statusCode, ...json() }, { statusCode: 202, message: 'in-progress' })
  const summary = await poll('the backup', async () => {
    const found = await app.dbBackups.summary(json().id)
    return found.in_progress ? undefined : found
  })
  t.match(summary, { note: 'Before the upgrade', protected: true, requester: { name: MANAGER } })
  t.match(summary.dbs.athena_components, { full_reason: 'asked_for' })
})

t.test('pruning is looked at before it is done, and tells until when backups stay', async (t) => {
  const schedule = { cron: '0 1 * * *', unlessYoungerThan: 43_200_000 }
  const former = await startConsole(t)
  const made = [await backUp(former), await backUp(former), await backUp(former)]
  await former.app.close()
  const console = await startConsole(t, { on: former.on, schedule })
  const { app } = console
  await poll('the schedule', () => app.dbBackups.schedule?.last)
  const headers = { cookie: await cookieOf(console, MANAGER) }
  const call = async (payload: object) =>
    (await app.inject({ method: 'POST', url: '/operator/api/prune', headers, payload })).json()

  const look = await call({ dryRun: true })
  t.match(look, {
    dryRun: true,
    removed: [{ id: made[1], reasons: ['no rule keeps it'] }],
    kept: [{ id: made[0] }, { id: made[2], until: Number }]
  })
  t.ok(look.kept[1].until > Date.now() + 5 * 86_400_000, 'the newest of a day stays for seven')
  t.strictSame(await app.dbBackups.list(), { ids: made }, 'nothing was removed')
  t.match(await call({}), { dryRun: false, removed: [{ id: made[1] }] })
  t.strictSame(await app.dbBackups.list(), { ids: [made[0], made[2]] })

  const overview = await app.inject({ url: '/operator/api/overview', headers })
  t.strictSame(overview.json().schedule, JSON.parse(JSON.stringify(app.dbBackups.schedule)))
  t.match(overview.json().schedule, { cron: '0 1 * * *', last: { result: /^(made_elsewhere|skipped)$/ } })
})

t.test('a preview counts and writes nothing, from a stored backup and from a file', async (t) => {
  const console = await startConsole(t)
  const { app, on } = console
  const headers = { cookie: await cookieOf(console, MANAGER) }
  const { id, finished } = await app.dbBackups.start()
  await finished
  const components = on.couch.use(on.names.components)
  for (const lost of ['org1peer1', 'org1peer2'])
    await components.destroy(lost, (await components.get(lost))._rev)
  const before = await on.fetchAll(on.names.components)

  const stored = await app.inject({
    method: 'POST',
    url: `/operator/api/backups/${id}/preview`,
    headers,
    payload: { skip: { components: ['org1peer2'], system: ['a', 'b'] } }
  })
  t.match(stored.headers, { 'content-type': /^application\/x-ndjson/, 'cache-control': /no-store/ })
  const [first, change, { outcome }, ...more] = linesOf(stored)
  t.match(first, { running: true, id: String })
  t.strictSame(change, { database: 'components', id: 'org1peer1', change: 'created' })
  t.match(outcome, {
    databases: { components: { total: 6, created: 1, changed: 0, unchanged: 4, skipped: 1 } },
    skip_unknown: { system: { count: 2, ids: ['a', 'b'] } }
  })
  t.strictSame(more, [])
  t.match(await previewed(console, headers.cookie, first.id), {
    status: 'success',
    by: MANAGER,
    dry_run: true
  })
  const file = await app.inject({
    method: 'PUT',
    url: '/operator/api/preview',
    headers: { ...headers, 'content-type': 'application/json' },
    payload: JSON.stringify({ dbs: { components: { docs: [{ _id: 'new' }] } } })
  })
  t.match(await previewed(console, headers.cookie, file.json().tx_id), {
    status: 'success',
    databases: { components: { total: 1, created: 1 } }
  })
  t.strictSame(await on.fetchAll(on.names.components), before)
})

t.test('a preview is refused for what cannot be restored', async (t: Test) => {
  const console = await startConsole(t)
  const { app } = console
  const headers = { cookie: await cookieOf(console, MANAGER) }
  const post = async (url: string) => (await app.inject({ method: 'POST', url, headers, payload: {} })).json()
  const put = async (url: string, payload?: string) => {
    const type = payload === undefined ? {} : { 'content-type': 'application/json' }
    const reply = await app.inject({ method: 'PUT', url, headers: { ...headers, ...type }, payload })
    return reply.json()
  }
  t.match(await post('/operator/api/backups/03_ibp_db_backup_1/preview'), { statusCode: 404 })
  t.match(await post('/operator/api/backups/other/preview'), { statusCode: 400, message: /id/ })
  t.match(await put('/operator/api/preview', '{"dbs":'), { statusCode: 400 })
  t.match(await put('/operator/api/preview', '{"dbs":{"nope":{}}}'), {
    statusCode: 400,
    message: /dbs\.nope/
  })
  const { id, finished } = await app.dbBackups.start()
  t.match(await put('/operator/api/preview', '{"dbs":{}}'), {
    statusCode: 400,
    message: 'backup_in_progress',
    id
  })
  await finished
})

t.test('a verification tells its id while it runs, and takes long positions', async (t) => {
  const console = await startGatedConsole(t)
  const { app, gate } = console
  const headers = { cookie: await cookieOf(console, MANAGER) }
  const id = await backUp(console)
  const chunk = await systemChunkOf(console, id)
  const verify = (payload: object) =>
    app.inject({ method: 'POST', url: `/operator/api/backups/${id}/verify`, headers, payload })

  const letGo = gate.hold(chunk)
  const other = app.dbBackups.verify(id, { depth: 'restore' })
  await gate.held(chunk)
  const verifying = verify({ depth: 'data' })
  const own = await poll('its own', () => app.dbBackups.running.find(({ depth }) => depth === 'data'))
  const payload = { id: own.id }
  // The id is told before the end.
  await new Promise((resolve) => setTimeout(resolve, 500))
  await app.inject({ method: 'POST', url: '/operator/api/cancel', headers, payload })
  const [first, { error }, ...more] = linesOf(await verifying)
  t.strictSame([first, more], [{ running: true, id: own.id }, []])
  t.match(error, { code: 'DB_BACKUPS_VERIFY_INTERRUPTED', position: String })
  letGo()
  t.match(await other, { good: true })

  const long = await verify({ depth: 'data', from: 'x'.repeat(1024 * 1024) })
  t.match(long.json(), { statusCode: 400, message: 'options/from is not a position' })
})
