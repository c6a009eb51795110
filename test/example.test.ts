import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { promisify } from 'node:util'
import nano from 'nano'
import t from 'tap'
import { givenCredentials } from '../examples/standalone/credentials.js'
import {
  type Example,
  prefixFor,
  refusedExample,
  startExample as start,
  startExampleWith
} from './helpers/example-process.js'
import { poll } from './helpers/poll.js'

async function documents(example: Example, database: string): Promise<Record<string, object>> {
  const { rows } = await example.couch
    .use(`${example.prefix}_${database}`)
    .list({ include_docs: true, attachments: true } as object)
  const found: Record<string, object> = {}
  // biome-ignore lint/suspicious/noExplicitAny: documents of any shape
  for (const { id, doc } of rows as any[]) {
    const { _rev, white_list, _attachments = {}, ...rest } = doc
    // `revpos` of an attachment differs from database to database
    const attachments = Object.entries<{ data: string; content_type: string }>(_attachments)
    found[id] = {
      ...rest,
      attachments: attachments.map(([name, { data, content_type }]) => [name, content_type, data])
    }
  }
  return found
}

// biome-ignore lint/suspicious/noExplicitAny: replies of any shape
async function followed(example: Example, started: Response): Promise<any> {
  const { url } = (await started.json()) as { url: string }
  return poll(url, async () => {
    const response = await example.call('GET', url.slice(example.url.length), { as: example.reader })
    // biome-ignore lint/suspicious/noExplicitAny: as above
    const transaction = (await response.json()) as any
    return transaction.status === 'pending' ? undefined : transaction
  })
}

// biome-ignore lint/suspicious/noExplicitAny: replies of any shape
async function backedUp(example: Example): Promise<{ id: string; text: string; backup: any }> {
  const started = await example.call('POST', '/ak/api/v2/backups')
  const { id, url } = (await started.json()) as { id: string; url: string }
  return poll(id, async () => {
    const text = await (await example.call('GET', url.slice(example.url.length))).text()
    const backup = JSON.parse(text)
    return backup.in_progress ? undefined : { id, text, backup }
  })
}

async function interrupted(example: Example): Promise<number | null> {
  example.child.kill('SIGINT')
  const [code] = await once(example.child, 'exit', { signal: AbortSignal.timeout(60_000) })
  return code
}

/** Logs in. @returns the session cookie, or `undefined` when the login is refused */
async function loggedIn(example: Example, password = example.password): Promise<string | undefined> {
  const body = JSON.stringify({ email: 'admin@example.com', password })
  const reply = await example.call('POST', '/api/v2/auth/login', { as: '', body })
  return reply.status === 200 ? reply.headers.get('set-cookie')!.split(';')[0] : undefined
}

/** Reads a path in a session. */
async function inSession(example: Example, path: string, cookie: string | undefined): Promise<Response> {
  return fetch(example.url + path, { headers: { cookie: cookie ?? '' } })
}

t.test('the example backs up, restores by id, and moves a backup to a second server', async (t) => {
  const [first, second] = await Promise.all([
    start(t, '--memory', '--prefix-db', prefixFor(t)),
    start(t, '--memory', '--prefix-db', prefixFor(t), '--no-seed')
  ])

  const before = {
    components: await documents(first, 'components'),
    sessions: await documents(first, 'sessions'),
    system: await documents(first, 'system')
  }
  const { id } = await backedUp(first)
  const appended = await first.call('PUT', `/ak/api/v2/backups/${id}/attachments/apollo`, {
    body: '{"attachment":"aGVsbG8="}'
  })
  t.strictSame(await appended.json(), { message: 'ok', att_name: 'apollo' })
  const got = await first.call('GET', `/ak/api/v2/backups/${id}`)
  const text = await got.text()
  const backup = JSON.parse(text)
  t.equal(backup.error, undefined)
  t.strictSame(backup._attachments, { apollo: Buffer.from('aGVsbG8=').toString('base64') })
  const listed = await first.call('GET', '/ak/api/v2/backups')
  t.strictSame(await listed.json(), { ids: [id] })

  const components = first.couch.use<{ broken?: boolean }>(`${first.prefix}_components`)
  await components.destroy('org1peer1', (await components.get('org1peer1'))._rev)
  await components.insert({ _rev: (await components.get('org1msp'))._rev, broken: true }, 'org1msp')
  t.notSame(await documents(first, 'components'), before.components, 'the database has changed')

  const restored = await followed(first, await first.call('PUT', `/ak/api/v2/backups/${id}`))
  t.equal(restored.status, 'success')
  t.match(restored.databases.components, { created: 1, changed: 1, unchanged: 4 })
  t.strictSame(await documents(first, 'components'), before.components, 'both are back')

  t.strictSame(await documents(second, 'components'), {}, 'the second server has none of it')
  t.strictSame(await documents(second, 'sessions'), {})
  t.notOk('00_settings_athena' in (await documents(second, 'system')))
  const cookie = await loggedIn(second)
  t.equal(
    (await inSession(second, '/operator/api/overview', cookie)).status,
    200,
    'its operator can log in before anything is restored'
  )
  const moved = await followed(second, await second.call('PUT', '/ak/api/v2/backups', { body: text }))
  t.equal(moved.status, 'success')
  t.strictSame(await documents(second, 'components'), before.components)
  // backups leave out a console's own sessions
  const kept = Object.entries(before.sessions).filter(
    ([, document]) => !('type' in document && document.type === 'session_athena')
  )
  t.strictSame(await documents(second, 'sessions'), Object.fromEntries(kept))
  const system = await documents(second, 'system')
  for (const [id, document] of Object.entries(before.system)) {
    t.strictSame(system[id], document, `${id} is the same`)
  }
  t.ok(await loggedIn(second), 'the login is the same with the settings of the first server')
  t.equal(await loggedIn(second, first.password), undefined, 'and not that of the first server')

  for (const example of [first, second]) t.equal(await interrupted(example), 0, 'SIGINT stops it cleanly')
})

t.test('the example refuses unauthorized requests, and accepts a session under /api', async (t) => {
  const example = await start(t, '--memory', '--prefix-db', prefixFor(t))
  const status = async (method: string, path: string, as: string) =>
    (await example.call(method, path, { as })).status
  t.equal(await status('GET', '/ak/api/v2/backups', ''), 401, 'nobody')
  t.equal(await status('GET', '/ak/api/v2/backups', `${example.manager}x`), 401, 'a wrong secret')
  t.equal(await status('POST', '/ak/api/v2/backups', example.reader), 403, 'a reader')
  t.equal(await status('GET', '/api/v2/backups', example.manager), 401, 'an API key is no session')

  t.equal(await loggedIn(example, 'wrong'), undefined)
  const cookie = await loggedIn(example)
  const withCookie = (path: string) => inSession(example, path, cookie)
  t.equal((await withCookie('/api/v2/backups')).status, 200)
  t.equal((await withCookie('/ak/api/v2/backups')).status, 401, 'a session is no API key')
})

t.test(
  'the example makes a backup by its schedule right after the start, since the last one is missing',
  async (t) => {
    const example = await start(t, '--memory', '--prefix-db', prefixFor(t), '--schedule', '0 1 * * *')
    const cookie = await loggedIn(example)
    const overview = await poll('the scheduled backup', async () => {
      const reply = await inSession(example, '/operator/api/overview', cookie)
      // biome-ignore lint/suspicious/noExplicitAny: as above
      const found = (await reply.json()) as any
      return found.schedule.last ? found : undefined
    })
    const [backup] = overview.backups
    t.match(overview.schedule, {
      cron: '0 1 * * *',
      timezone: 'UTC',
      last: { result: 'made', id: backup.id }
    })
    t.equal(new Date(overview.schedule.next).toISOString().slice(10), 'T01:00:00.000Z')
    t.equal(backup.error, undefined)
    t.equal(await interrupted(example), 0)
  }
)

t.test('SIGINT while a backup runs ends it, and what is stored outlives a restart', async (t) => {
  const place = ['--data', t.testdir(), '--prefix-db', prefixFor(t)]
  const first = await start(t, ...place)
  const before = await documents(first, 'components')
  const started = await first.call('POST', '/ak/api/v2/backups')
  const { id } = (await started.json()) as { id: string }
  t.equal(await interrupted(first), 0)

  const again = await start(t, ...place)
  t.match(again.printed, 'These databases are from an earlier start. This start has seeded nothing.')
  t.match(again.printed, 'Credentials, kept with the data by an earlier start:')
  const { manager, reader, password } = first
  t.match(again, { manager, reader, password }, 'the credentials are the same')
  t.ok(await loggedIn(again))
  t.strictSame(await documents(again, 'components'), before)
  const got = await again.call('GET', `/ak/api/v2/backups/${id}`)
  const backup = (await got.json()) as { in_progress: boolean; error?: string; doc_count: number }
  t.equal(backup.in_progress, false)
  t.ok(backup.error ? backup.doc_count === 0 : backup.doc_count > 0, 'it is whole, or says why not')
  t.equal(await interrupted(again), 0)
})

const EMBEDDED = { COUCHDB_URL: '' }

t.test(
  'a second server on the data of a running one says so in a sentence, and leaves it alone',
  async (t) => {
    const place = ['--data', t.testdir(), '--prefix-db', 'athena']
    const first = await startExampleWith(t, EMBEDDED, ...place)
    const { code, errors } = await refusedExample(t, EMBEDDED, ...place)
    t.equal(code, 1)
    t.match(
      errors,
      /^the data in \S+couch is in use by another server: stop that server, or choose another directory with --data\n$/
    )
    t.equal((await first.call('GET', '/ak/api/v2/backups')).status, 200)
  }
)

t.test('a port that is in use is told in a sentence', async (t) => {
  const other = createServer().listen(0, '127.0.0.1')
  await once(other, 'listening')
  t.teardown(() => other.close())
  const { port } = other.address() as { port: number }
  const options = ['--memory', '--prefix-db', prefixFor(t), '--schedule', '0 1 * * *', '--port', `${port}`]
  const { code, errors } = await refusedExample(t, {}, ...options)
  t.equal(code, 1)
  t.equal(errors, `port ${port} is in use: stop what listens there, or choose another port with --port\n`)
})

const SECRETS = {
  MANAGER_KEY: 'me:0123456789abcdef0123456789abcdef',
  MANAGER_PASSWORD: 'correct horse battery staple',
  READER_KEY: 'you:fedcba9876543210fedcba9876543210',
  READER_PASSWORD: 'something else'
}

t.test('credentials of the environment are used, and neither printed nor kept', async (t) => {
  const example = await startExampleWith(t, SECRETS, '--memory', '--prefix-db', prefixFor(t))
  const backups = (as: string) => example.call('GET', '/ak/api/v2/backups', { as })
  t.equal((await backups(SECRETS.MANAGER_KEY)).status, 200)
  t.equal((await backups(SECRETS.READER_KEY)).status, 403)
  t.ok(await loggedIn(example, SECRETS.MANAGER_PASSWORD))
  for (const [variable, value] of Object.entries(SECRETS)) {
    t.notMatch(example.printed, value.replace(/^.*:/, ''), `${variable} is not printed`)
    t.match(example.printed, variable, 'but where it is from')
  }
  const system = example.couch.use(`${example.prefix}_system`)
  await t.rejects(system.get('_local/example_credentials'), /missing/)
})

t.test('a credential of the environment takes the place of the one that is kept', async (t) => {
  const place = ['--data', t.testdir(), '--prefix-db', prefixFor(t)]
  const first = await start(t, ...place)
  t.equal(await interrupted(first), 0)
  const { MANAGER_KEY, MANAGER_PASSWORD } = SECRETS
  const again = await startExampleWith(t, { MANAGER_KEY, MANAGER_PASSWORD }, ...place)
  const status = async (as: string) => (await again.call('GET', '/ak/api/v2/backups', { as })).status
  t.equal(await status(MANAGER_KEY), 200)
  t.equal(await status(first.manager), 401, 'the key that was kept is gone')
  t.equal(await loggedIn(again, first.password), undefined)
  t.ok(await loggedIn(again, MANAGER_PASSWORD))
  t.equal(again.reader, first.reader, 'the reader has the one that was kept')
})

t.test('a credential that cannot be used is refused by the name of its variable', async (t) => {
  const { code, errors } = await refusedExample(t, { MANAGER_KEY: 'me:short' }, '--memory')
  t.equal(code, 1)
  t.match(errors, /^MANAGER_KEY must be KEY:SECRET: .*\n$/)
  const refused = (env: NodeJS.ProcessEnv, message: RegExp) =>
    t.throws(() => givenCredentials({ ...SECRETS, ...env }), { message })
  refused({ READER_KEY: `${SECRETS.READER_KEY} with blanks` }, /^READER_KEY must be KEY:SECRET/)
  refused({ READER_PASSWORD: 'x'.repeat(129) }, /^READER_PASSWORD must not have more than 128/)
  refused({ READER_KEY: SECRETS.MANAGER_KEY }, /^MANAGER_KEY and READER_KEY must have different keys/)
})

t.test('the variables that the example prints can be pasted into another terminal', async (t) => {
  const { MANAGER_KEY } = SECRETS
  const example = await startExampleWith(t, { MANAGER_KEY }, '--memory', '--prefix-db', prefixFor(t))
  const [, heading, assignments] = /^(For another terminal.*)\n((?: +\w+=.*\n)+)/m.exec(example.printed)!
  t.match(heading, /in which MANAGER_KEY(, COUCHDB_URL)? must be set as well/)
  const names = ['KEY', 'READER', 'URL', 'API', 'DB']
  const script = `${assignments}printf '%s\\n' ${names.map((name) => `"$${name}"`).join(' ')}`
  const env = { ...process.env, MANAGER_KEY }
  const { stdout } = await promisify(execFile)('bash', ['-euc', script], { env })
  const [key, reader, url, api, db] = stdout.split('\n')
  t.match(example, { reader, url })
  const authorization = `Basic ${btoa(key!)}`
  t.equal((await fetch(`${api}/backups`, { headers: { authorization } })).status, 200)
  const components = await nano(db!).use(`${example.prefix}_components`).list()
  t.equal(components.rows.length, 6, 'DB is the address of the database')
})
