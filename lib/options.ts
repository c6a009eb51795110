import { accessSync, constants, statSync } from 'node:fs'
import { type TProperties, type TSchema, Type } from '@sinclair/typebox'
import { Value, type ValueError } from '@sinclair/typebox/value'
import type { DatabaseNames } from '../types/databases.js'
import type { MetricsOptions } from '../types/metrics.js'
import type {
  BackupsOptions,
  DbBackupsOptions,
  Incremental,
  Limits,
  Retry,
  ScheduleOptions,
  Timeouts,
  VerifySchedule
} from '../types/options.js'
import { checkCouch } from './couch/connection.js'
import { LEAST_REQUEST_BYTES, REQUEST_BYTES } from './couch/request-size.js'
import { BACKGROUND } from './couch/retry.js'
import { apiKey, DATABASE_NAME, LOGICAL_DATABASES, SCRATCH_PREFIX } from './databases.js'
import { HostValueError } from './errors.js'
import { isObject } from './json/parsed.js'
import { LONGEST_LEASE } from './lease/lease-document.js'
import { problemOfKeep } from './retention/check-keep.js'
import { problemOf } from './schedule/due-times.js'
import { isPromise, nowOf } from './waits/host-code.js'

const integer = (minimum: number, maximum?: number) => Type.Optional(Type.Integer({ minimum, maximum }))

/** Node.js shortens longer timers to one millisecond. */
const LONGEST_TIMER = 2 ** 31 - 1
const Milliseconds = integer(1, LONGEST_TIMER)
const Count = integer(1, 1000)
const DAY = 24 * 3_600_000
const Positive = integer(1)
const Name = Type.Optional(Type.String({ minLength: 1 }))
const DatabaseName = Type.String({ pattern: DATABASE_NAME.source })
const Checked = Type.Optional(Type.Unknown())

const closed = { additionalProperties: false }
const group = <T extends TProperties>(members: T) => Type.Optional(Type.Object(members, closed))

export const Names = Type.Object(
  {
    components: DatabaseName,
    sessions: DatabaseName,
    system: DatabaseName,
    backups: Type.Optional(DatabaseName)
  },
  closed
)
const PublicUrl = Type.String({ pattern: '^https?://' })

const Schedule = Type.Object(
  {
    cron: Type.String({ minLength: 1, maxLength: 200 }),
    timezone: Name,
    jitter: integer(0, LONGEST_TIMER),
    unlessYoungerThan: integer(0, 366 * DAY),
    verify: Type.Optional(
      Type.Union([
        Type.Object(
          {
            cron: Type.String({ minLength: 1, maxLength: 200 }),
            depth: Type.Optional(
              Type.Union([Type.Literal('structure'), Type.Literal('data'), Type.Literal('restore')])
            )
          },
          closed
        ),
        Type.Literal('daily'),
        Type.Literal('weekly'),
        Type.Literal('monthly')
      ])
    )
  },
  closed
)

/** Checks options that are data. The compiler compares it with their types (test/types/schemas.ts). */
export const Options = Type.Object(
  {
    couch: Checked,
    authorize: Checked,
    webhooks: Checked,
    rebuildWhitelist: Checked,
    versions: Checked,
    onEvent: Checked,
    prefix: Type.Optional(Type.String()),
    logLevel: Checked,
    logSerializers: Checked,
    databases: Checked,
    backups: group({
      couch: Checked,
      database: Type.Optional(DatabaseName),
      console: Type.Optional(Type.String({ pattern: '^[A-Za-z0-9._:-]{1,64}$' }))
    }),
    publicUrl: Checked,
    // A header tells of these, and must fit an upload.
    excludeTypes: Type.Optional(Type.Array(Type.String({ maxLength: 200 }), { maxItems: 1000 })),
    settingsDocuments: Type.Optional(
      Type.Array(Type.String({ minLength: 1, maxLength: 512 }), { maxItems: 100 })
    ),
    safety: Type.Optional(Type.Boolean()),
    onUnreadable: Type.Optional(Type.Union([Type.Literal('report'), Type.Literal('fail')])),
    keep: Checked,
    keepFailed: integer(0, 3653 * DAY),
    schedule: Type.Optional(Type.Union([Schedule, Type.Literal('athena')])),
    securitySchemes: group({
      session: Name,
      'api-key': Name
    }),
    spoolDirectory: Name,
    metrics: group({
      client: Type.Any(),
      registry: Type.Optional(Type.Any()),
      prefix: Type.Optional(Type.String({ pattern: '^[a-zA-Z_:][a-zA-Z0-9_:]*$' }))
    }),
    clientWebhook: group({
      allow: Type.Optional(Type.Function([], Type.Unknown())),
      attempts: integer(1, 10),
      timeout: Milliseconds
    }),
    limits: group({
      uploadBytes: Positive,
      inflatedBytes: Positive,
      attachmentBytes: Positive,
      attachments: Positive,
      attachmentsBytes: Positive,
      spoolBytes: Positive,
      downloads: Count,
      uploads: Count,
      appends: Count,
      requestBytes: integer(LEAST_REQUEST_BYTES, Number.MAX_SAFE_INTEGER)
    }),
    timeouts: group({
      authorize: Milliseconds,
      control: Milliseconds,
      idle: Milliseconds,
      lease: integer(2000, LONGEST_LEASE),
      rebuildWhitelist: Milliseconds,
      webhooks: Milliseconds,
      versions: Milliseconds,
      key: Milliseconds,
      close: Milliseconds
    }),
    retry: group({
      attempts: integer(1, 100),
      wait: Milliseconds,
      longest: Milliseconds
    }),
    encryption: group({
      current: Type.String({ pattern: '^[A-Za-z0-9._:/-]{1,64}$' }),
      key: Type.Function([], Type.Unknown()),
      plain: Type.Optional(Type.Union([Type.Literal('read'), Type.Literal('refuse')]))
    }),
    incremental: group({
      chain: integer(0, 100_000),
      waste: Type.Optional(Type.Number({ minimum: 0.05, maximum: 0.9 }))
    })
  },
  closed
)

/** The option `schedule` with defaults. */
type ResolvedSchedule = Required<Omit<ScheduleOptions, 'verify'>> & {
  verify?: Required<VerifySchedule>
}

/** Options with defaults. Two getters call the host and may throw HostValueError; a copy keeps values. */
export interface ResolvedOptions extends DbBackupsOptions {
  readonly databases: Required<DatabaseNames>
  readonly publicUrl?: string
  excludeTypes: readonly string[]
  onUnreadable: NonNullable<DbBackupsOptions['onUnreadable']>
  keepFailed: number
  safety: boolean
  settingsDocuments: readonly string[]
  schedule?: ResolvedSchedule
  limits: Required<Limits>
  timeouts: Required<Timeouts>
  retry: Required<Retry>
  incremental: Required<Incremental>
}

const MINUTE = 60_000
const HOUR = 60 * MINUTE
/** The schedule that athena has by itself. */
const ATHENA_SCHEDULE = { cron: '0 1 * * *', jitter: 10 * MINUTE, unlessYoungerThan: 12 * HOUR }

const MiB = 1024 ** 2
const GiB = 1024 ** 3

/** Checks the options and fills in defaults. @throws TypeError that names the option */
export function resolveOptions(options: DbBackupsOptions): ResolvedOptions {
  for (const hook of ['authorize', 'rebuildWhitelist'] as const) {
    if (typeof options[hook] !== 'function') throw invalid(hook, 'must be a function')
  }
  const { webhooks, couch, versions, onEvent } = options
  if (onEvent !== undefined && typeof onEvent !== 'function') throw invalid('onEvent', 'must be a function')
  for (const method of ['create', 'update', 'get'] as const) {
    if (typeof webhooks?.[method] !== 'function')
      throw invalid('webhooks', `must have a function "${method}"`)
  }
  if (
    versions !== undefined &&
    typeof versions !== 'function' &&
    (typeof versions !== 'object' || versions === null || Array.isArray(versions))
  ) {
    throw invalid('versions', 'must be an object or a function')
  }
  checkServer('couch', couch)
  check(Options, options)
  if (options.backups) checkBackups(options.backups)
  const schedule = options.schedule === undefined ? undefined : scheduleOf(options.schedule)
  const keep = options.keep === undefined ? undefined : problemOfKeep(options.keep)
  if (keep) throw invalid(nameOf(`keep${keep.path}`), keep.message)
  if (options.metrics) checkMetrics(options.metrics)
  if (options.spoolDirectory !== undefined) checkDirectory(options.spoolDirectory)
  const databases = optionOf('databases', options.databases, (given) =>
    namesOf(given, options.backups?.database)
  )
  const publicUrl = optionOf('publicUrl', options.publicUrl, publicUrlOf)
  const uploadBytes = options.limits?.uploadBytes ?? GiB
  return {
    ...options,
    get databases() {
      return databases()
    },
    get publicUrl() {
      return publicUrl()
    },
    excludeTypes: options.excludeTypes ?? [],
    onUnreadable: options.onUnreadable ?? 'report',
    keepFailed: options.keepFailed ?? 7 * DAY,
    settingsDocuments: options.settingsDocuments ?? ['00_settings_athena'],
    safety: options.safety ?? true,
    schedule,
    limits: withDefaults(
      {
        uploadBytes,
        inflatedBytes: GiB,
        attachmentBytes: 32 * MiB,
        attachments: 1000,
        attachmentsBytes: 256 * MiB,
        spoolBytes: 2 * uploadBytes,
        downloads: 4,
        uploads: 4,
        appends: 16,
        requestBytes: REQUEST_BYTES
      },
      options.limits
    ),
    timeouts: withDefaults(
      {
        authorize: 10_000,
        control: 30_000,
        idle: 60_000,
        lease: 30_000,
        rebuildWhitelist: 120_000,
        webhooks: 120_000,
        versions: 10_000,
        key: 10_000,
        close: 10_000
      },
      options.timeouts
    ),
    retry: withDefaults(BACKGROUND, options.retry),
    incremental: withDefaults({ chain: 1000, waste: 0.25 }, options.incremental)
  }
}

/** Fills in options that a host has not set, or has set to `undefined`. */
function withDefaults<T extends object>(defaults: T, given: Partial<T> = {}): T {
  const set = Object.entries(given).filter(([, value]) => value !== undefined)
  return { ...defaults, ...Object.fromEntries(set) }
}

function checkMetrics({ client, registry = client?.register }: MetricsOptions): void {
  for (const kind of ['Counter', 'Gauge', 'Histogram'] as const) {
    if (typeof client?.[kind] !== 'function')
      throw invalid('metrics.client', 'must be the module prom-client')
  }
  for (const method of ['getSingleMetric', 'registerMetric'] as const) {
    if (typeof registry?.[method] !== 'function')
      throw invalid('metrics.registry', 'must be a registry of prom-client')
  }
}

/** Checks `value`, at path `under` of the options. @throws TypeError that names the option */
function check(schema: TSchema, value: unknown, under = ''): void {
  const [problem] = Value.Errors(schema, value)
  if (!problem) return
  const { path, message } = told(problem)
  throw invalid(nameOf(under + path), message)
}

/** Returns where an option is wrong, and why: of one that may be many things, what they are. */
function told({ path, message, schema, value, errors }: ValueError): { path: string; message: string } {
  const kinds: TSchema[] = schema.anyOf ?? []
  if (kinds.length === 0) return { path, message: message.toLowerCase() }
  const members = kinds.findIndex(({ type }) => type === 'object')
  if (members >= 0 && isObject(value)) {
    const [problem] = errors[members] ?? []
    if (problem) return told(problem)
  }
  const allowed = kinds.map((kind) => (kind.const === undefined ? 'an object' : JSON.stringify(kind.const)))
  return { path, message: `must be ${new Intl.ListFormat('en', { type: 'disjunction' }).format(allowed)}` }
}

/** Returns the name of an option, given by its path. */
const nameOf = (path: string): string => path.replace(/^\//, '').replaceAll('/', '.')

/** Returns a function that gives an option, checked now, or each time if the host gave a function. */
function optionOf<Given, Value>(
  option: string,
  given: Given | (() => Given),
  checked: (given: Given) => Value
): () => Value {
  if (typeof given !== 'function') {
    const value = checked(given)
    return () => value
  }
  const read = given as () => Given
  if (isPromise(nowOf(read))) throw invalid(option, 'must give a value, not a promise')
  return () => {
    const value = read()
    try {
      return checked(value)
    } catch (error) {
      throw new HostValueError(option, `what cannot be used: ${(error as Error).message}`)
    }
  }
}

/** @throws TypeError that names the option */
function checkServer(option: string, couch: DbBackupsOptions['couch']): void {
  try {
    checkCouch(couch)
  } catch (error) {
    throw invalid(option, (error as Error).message)
  }
}

/** @throws TypeError that names the member */
function checkBackups({ couch, database, console }: BackupsOptions): void {
  if (database?.startsWith(SCRATCH_PREFIX)) throw invalid('backups.database', scratchProblem(database))
  if (couch === undefined) {
    if (console !== undefined) throw invalid('backups.console', 'needs "backups.couch"')
    return
  }
  checkServer('backups.couch', couch)
  if (database === undefined)
    throw invalid('backups.database', 'must name the database on the server of "backups.couch"')
}

const scratchProblem = (name: string): string => `"${name}" is a name that verifications use, and delete`

/** @throws TypeError where two databases have one name, or one the name that stands for another in backups */
function namesOf(given: DatabaseNames, backups: string | undefined): Required<DatabaseNames> {
  check(Names, given, 'databases')
  for (const [database, name] of Object.entries(given))
    if (name?.startsWith(SCRATCH_PREFIX)) throw invalid(`databases.${database}`, scratchProblem(name))
  if (backups !== undefined && given.backups !== undefined)
    throw invalid('backups.database', 'and option "databases.backups" are both given: leave out one')
  for (const database of LOGICAL_DATABASES) {
    const name = given[database]
    for (const other of LOGICAL_DATABASES) {
      if (other === database) continue
      if (name === given[other])
        throw invalid(
          `databases.${database}`,
          `names the database of ${other}, "${name}": each needs its own`
        )
      if ([apiKey(other), other].includes(name))
        throw invalid(`databases.${database}`, `"${name}" stands for ${other} in backups`)
    }
  }
  return withDefaults({ ...given, backups: backups ?? given.system }, given)
}

function publicUrlOf(given: string | undefined): string | undefined {
  if (given === undefined) return undefined
  check(PublicUrl, given, 'publicUrl')
  const url = URL.canParse(given) ? new URL(given) : undefined
  if (!url || url.search || url.hash || url.username || url.password)
    throw invalid('publicUrl', 'must be an origin and, where there is one, a path')
  return given.replace(/\/+$/, '')
}

/** @throws TypeError that names the member */
function scheduleOf(given: ScheduleOptions | 'athena'): ResolvedSchedule {
  const { verify: wanted, ...members }: ScheduleOptions = typeof given === 'object' ? given : ATHENA_SCHEDULE
  const schedule = withDefaults({ ...members, timezone: 'UTC', jitter: 0, unlessYoungerThan: 0 }, members)
  const wrong = problemOf(schedule)
  if (wrong) throw invalid(`schedule.${wrong.member}`, wrong.problem)
  if (wanted === undefined) return schedule
  const verify = verifyOf(wanted)
  const wrongVerify = problemOf({ ...schedule, cron: verify.cron, jitter: 0 })
  if (wrongVerify) throw invalid(`schedule.verify.${wrongVerify.member}`, wrongVerify.problem)
  return { ...schedule, verify }
}

/** When verifications are due by their names. */
const VERIFY_CRON = { daily: '0 3 * * *', weekly: '0 3 * * 0', monthly: '0 3 1 * *' } as const

function verifyOf(given: NonNullable<ScheduleOptions['verify']>): Required<VerifySchedule> {
  if (typeof given === 'string') return { cron: VERIFY_CRON[given], depth: 'data' }
  return { cron: given.cron, depth: given.depth ?? 'data' }
}

function checkDirectory(path: string): void {
  try {
    if (!statSync(path).isDirectory()) throw invalid('spoolDirectory', `is no directory: "${path}"`)
    accessSync(path, constants.W_OK | constants.X_OK)
  } catch (error) {
    if (error instanceof TypeError) throw error
    const { code } = error as NodeJS.ErrnoException
    throw invalid('spoolDirectory', `must be there and writable: "${path}" (${code}). Create it first`)
  }
}

function invalid(option: string, problem: string): TypeError {
  return new TypeError(`fastify-couchdb-backups: option "${option}" ${problem}`)
}
