import Fastify from 'fastify'
import t from 'tap'
import { VerifyInterruptedError } from '../lib/errors.js'
import { createMemoryWebhookStore } from '../lib/index.js'
import { ActiveOperations } from '../lib/operations/active-operations.js'
import { Databases } from '../lib/operations/databases.js'
import { Instance } from '../lib/operations/instance.js'
import { Lifecycle } from '../lib/operations/lifecycle.js'
import { Verifies } from '../lib/operations/verifies.js'
import { resolveOptions } from '../lib/options.js'
import { apiOf } from './helpers/api.js'
import { backUp, change, docs, headerOf, remove, setupPair } from './helpers/chain.js'
import { setupDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { poll } from './helpers/poll.js'
import { buildScheduled, HOUR, MINUTE, SECOND, TestClock } from './helpers/scheduled.js'

const SCRATCH = 'db_backups_scratch_'

t.test('a verification that is interrupted goes on where it was, and reports the whole', async (t) => {
  const { on, pair } = await setupPair(t, { count: 60 })
  await backUp(pair.chain)
  await change(on, on.names.components, docs('doc_00001', 'new'))
  const { id } = await backUp(pair.chain)
  const { verify } = pair.chain.app.dbBackups
  const { duration_ms: _, at: __, ...whole } = await verify(id)
  let from: string | undefined
  let interruptions = 0
  for (let ms = 0; ; ms += 10) {
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
  const { newest } = (await on.couch.use(on.names.backups).get('athena_backup_lease')) as never as {
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
  const id = await apiOf(await buildHost(t, { on })).backup()
  const schedule = { cron: '0 0 1 1 *', verify: { cron: '0 3 * * *', depth: 'data' as const } }
  const due = Math.ceil(Date.now() / (24 * HOUR)) * 24 * HOUR + 3 * HOUR
  const clocks = [0, 1].map(() => new TestClock(new Date(due - 10 * MINUTE).toISOString()))
  const hosts = await Promise.all(clocks.map((clock) => buildScheduled(t, { on, clock, schedule })))
  const seen = (run: number) =>
    poll('both instances to see to it', () => {
      // One that found the other at work looks again some time later.
      for (const clock of clocks) clock.pass(SECOND)
      const last = hosts.map(({ operations }) => operations.schedule!.verify!.last?.due)
      return last.every((due) => due === run) ? true : undefined
    })
  await seen(due - 24 * HOUR)
  for (const clock of clocks) clock.pass(11 * MINUTE)
  await seen(due)
  const finished = hosts.flatMap(({ events }) => events.filter(({ type }) => type === 'verify_finished'))
  const expected = { backup_id: id, depth: 'data', report: { good: true } }
  t.match(finished, [expected, expected], 'for the run that was missed, and for the one that was due')
  t.equal(finished.length, 2, 'each once')
  const states = hosts.map(({ operations }) => operations.schedule!.verify!)
  t.strictSame(states.map(({ last }) => last?.result).sort(), ['verified', 'verified_elsewhere'])
  for (const { last, next } of states) {
    t.match(last, { id, due, good: true })
    t.equal(next, due + 24 * HOUR)
  }
})

t.test('what an instance that died has left is deleted by the one that takes its lease over', async (t) => {
  const on = await setupDatabases(t)
  const options = resolveOptions({
    couch: on.couch,
    databases: on.names,
    authorize: () => undefined,
    webhooks: createMemoryWebhookStore(),
    rebuildWhitelist: () => undefined,
    timeouts: { lease: 2000 }
  })
  const names = { ...on.names, backups: on.names.system }
  const make = () => {
    const instance = new Instance(options, Fastify().log)
    t.teardown(() => instance.close())
    const databases = new Databases(names, instance)
    const active = new ActiveOperations(instance, databases, async () => {})
    const verify = new Verifies(instance, databases)
    const kinds = { verify } as unknown as ConstructorParameters<typeof Lifecycle>[3]
    return { lifecycle: new Lifecycle(instance, active, databases, kinds), active }
  }
  const first = make()
  const { id } = await first.active.acquire('verify', () => ({ id: 'verify_restore_0123456789abcdef' }))
  const left = `${SCRATCH}${id}_components`
  await on.couch.db.create(left)
  first.active.abandonAll()
  const { lifecycle } = make()
  await poll('the take-over', async () => ((await lifecycle.recover()) === undefined ? true : undefined))
  t.notOk((await on.couch.db.list()).includes(left))
})
