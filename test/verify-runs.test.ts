import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { VerifyInterruptedError } from '../lib/errors.js'
import { backUp, change, docs, documents, headerOf, remove, setupPair } from './helpers/chain.js'
import { setupDatabases } from './helpers/database.js'
import { poll } from './helpers/poll.js'
import { buildScheduled, HOUR, MINUTE, TestClock } from './helpers/scheduled.js'

const SCRATCH = 'db_backups_scratch_'

t.test('a verification that is interrupted goes on where it was, and reports the whole', async (t) => {
  const { on, pair } = await setupPair(t)
  for (let i = 0; i < 6; i++) {
    await on.write(on.names.components, documents(40, `more${i}`))
    await backUp(pair.chain)
  }
  const { id } = await backUp(pair.chain)
  const { verify } = pair.chain.app.dbBackups
  const { duration_ms: _, at: __, ...whole } = await verify(id)
  let from: string | undefined
  let interruptions = 0
  for (let ms = 0; ; ms += 3) {
    const abort = new AbortController()
    setTimeout(() => abort.abort(new Error('not now')), ms)
    try {
      const { duration_ms, at, ...report } = await verify(id, { signal: abort.signal, ...(from && { from }) })
      t.strictSame(report, whole)
      break
    } catch (error) {
      if (!(error instanceof VerifyInterruptedError)) throw error
      t.match(error, { code: 'DB_BACKUPS_VERIFY_INTERRUPTED', cause: { message: 'not now' } })
      from = error.position
      interruptions++
    }
  }
  t.ok(interruptions > 0, `${interruptions} times`)
  const other = await backUp(pair.chain)
  await t.rejects(verify(other.id, { from: from! }), { code: 'DB_BACKUPS_INVALID_PARAMETER' })
  await t.rejects(verify(id, { from: 'nothing' }), { code: 'DB_BACKUPS_INVALID_PARAMETER' })
})

t.test('one that restores compares with the backup, and leaves no database', async (t) => {
  const { on, pair } = await setupPair(t, { count: 60 })
  await on.write(on.names.components, [
    { _id: '_design/one', views: {} },
    { _id: 'att', _attachments: { a: { content_type: 'text/plain', data: 'aGVsbG8=' } } }
  ])
  await backUp(pair.chain)
  await change(on, on.names.components, docs('doc_00001'))
  await remove(on, on.names.components, 'doc_00002')
  const { id, dbs } = await backUp(pair.chain)
  const report = await pair.chain.app.dbBackups.verify(id, { depth: 'restore' })
  t.match(report, { good: true, problem_count: 0, problems: [] })
  for (const [key, { doc_count }] of Object.entries(dbs)) {
    const database = key.replace('athena_', '') as 'components'
    t.equal(report.databases[database]!.restored, doc_count, key)
  }
  const left = (await on.call('GET', '_all_dbs')).filter((name: string) => name.startsWith(SCRATCH))
  t.strictSame(left, [])
  t.match((await headerOf(on, id)).verified, { depth: 'restore', good: true })
  const { newest } = (await on.couch.use(on.names.system).get('athena_backup_lease')) as never as {
    newest: string
  }
  t.ok(id.endsWith(newest), 'the number of the newest backup is handed on')
})

t.test('what cannot be verified is refused', async (t) => {
  const { on, pair } = await setupPair(t, { count: 3 })
  const { verify } = pair.chain.app.dbBackups
  const { id } = await backUp(pair.chain)
  await t.rejects(verify('03_ibp_db_backup_1'), { code: 'DB_BACKUPS_NOT_FOUND' })
  await t.rejects(verify(id, { depth: 'deep' as 'data' }), { code: 'DB_BACKUPS_INVALID_PARAMETER' })
  const header = await headerOf(on, id)
  await on.couch.use(on.names.backups).insert({ ...header, error: 'broken' } as never)
  await t.rejects(verify(id), { code: 'DB_BACKUPS_NOT_VERIFIABLE', statusCode: 400 })
})

t.test('the newest backup is verified by one of the instances when that is due', async (t) => {
  const on = await setupDatabases(t)
  const schedule = { cron: '0 0 1 1 *', verify: { cron: '0 3 * * *', depth: 'data' as const } }
  const clocks = [0, 1].map(() => new TestClock('2026-11-26T02:50:00Z'))
  const hosts = await Promise.all(clocks.map((clock) => buildScheduled(t, { on, clock, schedule })))
  await poll('the first backup', async () => {
    const { ids } = await hosts[0]!.operations.list()
    const last = ids.at(-1)
    return last && (await hosts[0]!.operations.summary(last)).in_progress === false ? true : undefined
  })
  const { ids } = await hosts[0]!.operations.list()
  for (let passed = 0; passed < 30 * MINUTE; passed += MINUTE)
    await Promise.all(hosts.map((host) => host.pass(MINUTE, MINUTE)))
  await delay(50)
  await Promise.all(hosts.map((host) => host.pass(MINUTE, MINUTE)))
  const finished = hosts.flatMap(({ events }) => events.filter(({ type }) => type === 'verify_finished'))
  t.match(finished, [{ backup_id: ids.at(-1), depth: 'data', report: { good: true } }])
  t.equal(finished.length, 1, 'once')
  const states = hosts.map(({ operations }) => operations.schedule!.verify!)
  t.strictSame(states.map(({ last }) => last?.result).sort(), ['verified', 'verified_elsewhere'])
  for (const { last, next } of states) {
    t.match(last, { id: ids.at(-1), good: true })
    t.ok(next > Date.parse('2026-11-26T03:00:00Z') + 20 * HOUR)
  }
})
