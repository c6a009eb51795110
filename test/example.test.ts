import { once } from 'node:events'
import t from 'tap'
import { type Example, prefixFor, startExample as start } from './helpers/example-process.js'
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

  const login = (password: string) =>
    example.call('POST', '/api/v2/auth/login', {
      as: '',
      body: JSON.stringify({ email: 'admin@example.com', password })
    })
  t.equal((await login('wrong')).status, 401)
  const cookie = (await login(example.password!)).headers.get('set-cookie')!.split(';')[0]
  const withCookie = (path: string) => fetch(example.url + path, { headers: { cookie } })
  t.equal((await withCookie('/api/v2/backups')).status, 200)
  t.equal((await withCookie('/ak/api/v2/backups')).status, 401, 'a session is no API key')
})

t.test(
  'the example makes a backup by its schedule right after the start, since the last one is missing',
  async (t) => {
    const example = await start(t, '--memory', '--prefix-db', prefixFor(t), '--schedule', '0 1 * * *')
    const get = async (path: string, init?: RequestInit) => fetch(example.url + path, init)
    const body = JSON.stringify({ email: 'admin@example.com', password: example.password })
    const headers = { 'content-type': 'application/json' }
    const login = await get('/api/v2/auth/login', { method: 'POST', body, headers })
    const cookie = login.headers.get('set-cookie')!.split(';')[0]
    const overview = await poll('the scheduled backup', async () => {
      const reply = await get('/operator/api/overview', { headers: { cookie } })
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
  t.strictSame(await documents(again, 'components'), before)
  const got = await again.call('GET', `/ak/api/v2/backups/${id}`)
  const backup = (await got.json()) as { in_progress: boolean; error?: string; doc_count: number }
  t.equal(backup.in_progress, false)
  t.ok(backup.error ? backup.doc_count === 0 : backup.doc_count > 0, 'it is whole, or says why not')
  t.equal(await interrupted(again), 0)
})
