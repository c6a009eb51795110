// Compiled by `npm run lint`, never run: each @ts-expect-error fails the compilation when there is no error.
import type { Readable } from 'node:stream'
import Fastify, { type FastifyInstance, type FastifyRequest } from 'fastify'
import nano from 'nano'
import * as prometheus from 'prom-client'
import dbBackups, {
  type BackupEvent,
  type BackupSummary,
  type CopyOutcome,
  createCouchWebhookStore,
  createMemoryWebhookStore,
  type DatabaseRestoreCounts,
  type DatabaseSummary,
  type DbBackups,
  type DbBackupsOptions,
  type DocumentDiff,
  type LogicalDatabase,
  dbBackups as named,
  OperationInProgressError,
  type PruneOutcome,
  type RekeyOutcome,
  type RemovedBackups,
  type RestoreOutcome,
  type ScheduleState,
  type VerifyReport,
  type WebhookStore
} from '../../lib/index.js'

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
const expectType = <Expected>() => ({
  of: <Actual>(_value: Actual, ..._same: Same<Actual, Expected> extends true ? [] : [never]): void => {}
})

const couch = nano('http://127.0.0.1:5984')
const options: DbBackupsOptions = {
  couch,
  databases: { components: 'a', sessions: 'b', system: 'c' },
  authorize: () => undefined,
  webhooks: createMemoryWebhookStore(),
  rebuildWhitelist: () => {}
}

export function registration(app: FastifyInstance): void {
  app.register(dbBackups, options)
  app.register(named, options)
  app.register(dbBackups, { ...options, couch: () => couch })
  // @ts-expect-error the options are required
  app.register(dbBackups)
  const { authorize: _authorize, ...unprotected } = options
  // @ts-expect-error there is no default for authorize
  app.register(dbBackups, unprotected)
  // @ts-expect-error there is no such option
  app.register(dbBackups, { ...options, authorise: () => {} })
}

export const everything: DbBackupsOptions = {
  ...options,
  databases: { components: 'a', sessions: 'b', system: 'c', backups: 'd' },
  webhooks: createCouchWebhookStore({ couch: () => couch, database: 'c' }),
  versions: async () => ({ tag: '1' }),
  publicUrl: 'https://console.example.com',
  excludeTypes: ['log'] as const,
  clientWebhook: { allow: (url) => url.hostname === 'example.com', attempts: 1, timeout: 1 },
  spoolDirectory: '/var/spool',
  limits: { uploadBytes: 1, inflatedBytes: 1, attachmentBytes: 1, spoolBytes: 1 },
  timeouts: { authorize: 1, control: 1, idle: 1, rebuildWhitelist: 1, lease: 2000, close: 1 },
  retry: { attempts: 1, wait: 1, longest: 1 }
}

export const wrong: DbBackupsOptions[] = [
  // @ts-expect-error a database is missing
  { ...options, databases: { components: 'a', sessions: 'b' } },
  // @ts-expect-error no such limit
  { ...options, limits: { bytes: 1 } },
  // @ts-expect-error no such option
  { ...options, authorise: () => undefined },
  // @ts-expect-error a URL is no nano
  { ...options, couch: 'http://127.0.0.1:5984' },
  // @ts-expect-error a boolean neither allows nor refuses
  { ...options, authorize: () => true },
  // @ts-expect-error the store lacks two methods
  { ...options, webhooks: { get: async () => null } }
]

export const hooks: DbBackupsOptions = {
  ...options,
  async authorize(request, context, reply) {
    expectType<FastifyRequest>().of(request)
    expectType<'session' | 'api-key'>().of(context.scheme)
    expectType<'blockchain.optools.settings'>().of(context.action)
    reply.code(403)
    return { name: 'a', uuid: 'b' }
  },
  async rebuildWhitelist(context) {
    expectType<string>().of(context.tx_id)
    // @ts-expect-error the context has nothing else
    context.database
  },
  onEvent(event) {
    expectType<BackupEvent>().of(event)
  }
}

export const allowed: DbBackupsOptions[] = [
  { ...options, authorize: () => {} },
  { ...options, authorize: async () => {} },
  { ...options, authorize: () => ({ name: 'a' }) },
  { ...options, authorize: async () => ({ uuid: 'b' }) },
  { ...options, couch: () => couch },
  { ...options, rebuildWhitelist: async () => {} },
  { ...options, versions: { tag: '1' } },
  { ...options, versions: () => ({ tag: '1' }) },
  { ...options, onEvent: async () => {} },
  { ...options, metrics: { client: prometheus } },
  { ...options, metrics: { client: prometheus, registry: new prometheus.Registry(), prefix: 'a_' } }
]

export const refused: DbBackupsOptions[] = [
  // @ts-expect-error a name is a string
  { ...options, authorize: async () => ({ name: 1 }) },
  // @ts-expect-error credentials are there when they are asked for, or not at all
  { ...options, couch: async () => couch },
  // @ts-expect-error versions have names
  { ...options, versions: () => '2.5.0' },
  // @ts-expect-error there is no such event
  { ...options, onEvent: (event: { type: 'backup_paused' }) => event },
  // @ts-expect-error metrics need the client
  { ...options, metrics: { prefix: 'a_' } },
  // @ts-expect-error a registry is no client
  { ...options, metrics: { client: prometheus.register } },
  // @ts-expect-error a name is no registry
  { ...options, metrics: { client: prometheus, registry: 'default' } }
]

export function narrowing(event: BackupEvent): void {
  switch (event.type) {
    case 'backup_started':
      expectType<string>().of(event.id)
      // @ts-expect-error it has only begun
      event.durationMs
      break
    case 'backup_finished':
      expectType<BackupSummary>().of(event.backup)
      // @ts-expect-error it has not failed
      event.error
      break
    case 'backup_failed':
    case 'restore_failed':
      expectType<Error>().of(event.error)
      break
    case 'restore_started':
      expectType<string | undefined>().of(event.backup_id)
      // @ts-expect-error a restore is named by its transaction
      event.id
      break
    case 'restore_finished':
      expectType<RestoreOutcome>().of(event.outcome)
      expectType<number>().of(event.retries)
      break
    case 'backup_database_finished':
      expectType<string>().of(event.id)
      expectType<DatabaseSummary>().of(event.summary)
      break
    case 'restore_checked':
      expectType<Partial<Record<LogicalDatabase, number>>>().of(event.documents)
      break
    case 'restore_database_finished':
      expectType<DatabaseRestoreCounts>().of(event.counts)
      expectType<boolean>().of(event.dryRun)
      break
    case 'restore_settings_document':
      expectType<'created' | 'changed' | 'deleted'>().of(event.change)
      break
    case 'restore_safety_backup_made':
      expectType<string>().of(event.safety_backup)
      break
    case 'restore_whitelist_rebuilt':
      expectType<number>().of(event.durationMs)
      break
    case 'prune_started':
    case 'prune_finished':
    case 'prune_failed':
      expectType<string>().of(event.id)
      break
    case 'rekey_started':
      expectType<string>().of(event.key)
      break
    case 'rekey_backup_finished':
      expectType<string>().of(event.backup)
      break
    case 'rekey_finished':
      expectType<RekeyOutcome>().of(event.outcome)
      break
    case 'rekey_failed':
      expectType<Error>().of(event.error)
      break
    case 'verify_started':
    case 'verify_failed':
      expectType<'structure' | 'data' | 'restore'>().of(event.depth)
      break
    case 'verify_finished':
      expectType<boolean>().of(event.report.good)
      break
    case 'copy_started':
      expectType<string>().of(event.backup_id)
      break
    case 'copy_finished':
      expectType<CopyOutcome>().of(event.outcome)
      break
    case 'copy_failed':
      expectType<Error>().of(event.error)
      break
    case 'retry':
    case 'failure_not_recorded':
    case 'lease_taken_over':
    case 'recovered':
      expectType<'backup' | 'restore' | 'prune' | 'rekey' | 'verify' | 'copy'>().of(event.operation)
      break
    case 'check_failed':
      expectType<Error>().of(event.error)
      break
    case 'webhook_delivered':
      expectType<number>().of(event.status)
      break
    case 'webhook_failed':
      expectType<number | undefined>().of(event.status)
      expectType<string>().of(event.reason)
      break
    case 'schedule_skipped':
      expectType<'made_elsewhere' | 'younger'>().of(event.reason)
      break
    case 'schedule_failed':
      expectType<number | undefined>().of(event.retryAt)
      break
    case 'schedule_verify_failed':
      expectType<number>().of(event.due)
      break
    case 'schedule_pruning_failed':
      expectType<Error>().of(event.error)
      break
    default:
      expectType<never>().of(event)
  }
}

export async function decorator(body: Readable): Promise<void> {
  const { dbBackups: operations } = Fastify()
  expectType<DbBackups>().of(operations)
  const { id, finished } = await operations.start()
  expectType<string>().of(id)
  expectType<BackupSummary>().of(await finished)
  const restored = await operations.restore({ id }, { skip: { system: ['a'] }, dryRun: true, exact: true })
  expectType<RestoreOutcome>().of(await restored.finished)
  await operations.restore({ body })
  expectType<ScheduleState | undefined>().of(operations.schedule)
  // @ts-expect-error either an id or a body
  await operations.restore({})
  // @ts-expect-error there is no such database
  await operations.restore({ id }, { skip: { users: ['a'] } })
  const content = await operations.get(id)
  expectType<Readable>().of(content.body)
  expectType<string | undefined>().of(content.summary.error)
  expectType<string>().of(content.etag)
  expectType<number | undefined>().of(content.length)
  expectType<Readable | undefined>().of(content.bodyFrom?.(1))
  // @ts-expect-error not every backup can be read from a byte on
  content.bodyFrom(1)
  expectType<{ ids: string[] }>().of(await operations.list())
  for await (const diff of operations.diff('a', { against: 'now', databases: ['system'], values: true })) {
    expectType<DocumentDiff>().of(diff)
    expectType<'created' | 'changed' | 'deleted' | 'unknown'>().of(diff.change)
  }
  // @ts-expect-error what it is compared with is required
  operations.diff('a', {})
  await operations.attach(id, 'name', Buffer.alloc(1), { contentType: 'text/plain' })
  // @ts-expect-error a number cannot be stored as it is
  await operations.attach(id, 'name', 1)
  expectType<RemovedBackups>().of(await operations.remove(id))
  const pruned = await operations.prune({
    keep: { last: 3 },
    keepFailed: 0,
    dryRun: true,
    legacy: true,
    orphans: true
  })
  expectType<PruneOutcome>().of(pruned)
  expectType<RekeyOutcome>().of(await operations.rekey())
  const to = { couch: nano('http://elsewhere'), database: 'backups' }
  expectType<CopyOutcome>().of(await operations.copy(id, { to, signal: new AbortController().signal }))
  // @ts-expect-error a copy goes to a database
  await operations.copy(id, { to: { couch: to.couch } })
  expectType<string[]>().of(pruned.kept.flatMap(({ reasons }) => reasons))
  const report = await operations.verify(id, { depth: 'restore', signal: new AbortController().signal })
  expectType<VerifyReport>().of(report)
  expectType<string[]>().of(report.problems.flatMap(({ backups }) => backups))
  // @ts-expect-error there is no such depth
  await operations.verify(id, { depth: 'all' })
  await operations.prune({ keep: 'athena' })
  // @ts-expect-error there are no other rules by name
  await operations.prune({ keep: 'restic' })
}

export function errors(error: unknown): 400 | undefined {
  if (!(error instanceof OperationInProgressError)) return
  expectType<'backup' | 'restore' | 'prune' | 'rekey' | 'verify' | 'copy'>().of(error.operation)
  expectType<string>().of(error.id)
  return error.statusCode
}

export async function store(webhooks: WebhookStore): Promise<void> {
  const transaction = await webhooks.get('a')
  expectType<'pending' | 'success' | 'error' | undefined>().of(transaction?.status)
  await webhooks.update('a', { status: 'success' })
  // @ts-expect-error the id of a transaction does not change
  await webhooks.update('a', { tx_id: 'b' })
  // @ts-expect-error there is no such status
  await webhooks.update('a', { status: 'done' })
}
