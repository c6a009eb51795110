import { Type } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import type { DatabaseNames } from '../types/databases.js'
import type { MetricsOptions } from '../types/metrics.js'
import type { DbBackupsOptions, Limits, Retry, Timeouts } from '../types/options.js'
import { BACKGROUND } from './couch/client.js'
import { connectionOf } from './couch/connection.js'
import { apiKey, LOGICAL_DATABASES } from './store/names.js'

const Milliseconds = Type.Optional(Type.Integer({ minimum: 1 }))
const Bytes = Type.Optional(Type.Integer({ minimum: 1 }))
const SchemeName = Type.String({ minLength: 1 })
const DatabaseName = Type.String({ pattern: '^[a-z][a-z0-9_$()+/-]*$', maxLength: 238 })

/** The part of the options that is data; hooks are checked one by one. */
const OptionsData = Type.Object({
  databases: Type.Object(
    {
      components: DatabaseName,
      sessions: DatabaseName,
      system: DatabaseName,
      backups: Type.Optional(DatabaseName)
    },
    { additionalProperties: false }
  ),
  publicUrl: Type.Optional(Type.String({ pattern: '^https?://' })),
  excludeTypes: Type.Optional(Type.Array(Type.String())),
  securitySchemes: Type.Optional(
    Type.Object(
      { session: Type.Optional(SchemeName), 'api-key': Type.Optional(SchemeName) },
      { additionalProperties: false }
    )
  ),
  spoolDirectory: Type.Optional(Type.String({ minLength: 1 })),
  metrics: Type.Optional(
    Type.Object(
      {
        client: Type.Any(),
        registry: Type.Optional(Type.Any()),
        prefix: Type.Optional(Type.String({ pattern: '^[a-zA-Z_:][a-zA-Z0-9_:]*$' }))
      },
      { additionalProperties: false }
    )
  ),
  clientWebhook: Type.Optional(
    Type.Object(
      {
        allow: Type.Optional(Type.Function([], Type.Unknown())),
        attempts: Type.Optional(Type.Integer({ minimum: 1, maximum: 10 })),
        timeout: Milliseconds
      },
      { additionalProperties: false }
    )
  ),
  limits: Type.Optional(
    Type.Object(
      {
        uploadBytes: Bytes,
        inflatedBytes: Bytes,
        attachmentBytes: Bytes,
        nesting: Type.Optional(Type.Integer({ minimum: 8, maximum: 100_000 })),
        spoolBytes: Bytes
      },
      { additionalProperties: false }
    )
  ),
  timeouts: Type.Optional(
    Type.Object(
      {
        authorize: Milliseconds,
        control: Milliseconds,
        idle: Milliseconds,
        lease: Type.Optional(Type.Integer({ minimum: 2000 })),
        rebuildWhitelist: Milliseconds,
        close: Milliseconds
      },
      { additionalProperties: false }
    )
  ),
  retry: Type.Optional(
    Type.Object(
      {
        attempts: Type.Optional(Type.Integer({ minimum: 1, maximum: 100 })),
        wait: Milliseconds,
        longest: Milliseconds
      },
      { additionalProperties: false }
    )
  )
})

/** Options with every default filled in. */
export interface ResolvedOptions extends DbBackupsOptions {
  databases: Required<DatabaseNames>
  excludeTypes: readonly string[]
  limits: Required<Limits>
  timeouts: Required<Timeouts>
  retry: Required<Retry>
}

const GiB = 1024 ** 3

/**
 * Checks the options and fills in defaults.
 * @throws TypeError that names the option
 */
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
    (typeof versions !== 'object' || versions === null)
  ) {
    throw invalid('versions', 'must be an object or a function')
  }
  if (typeof couch !== 'function') {
    try {
      connectionOf(couch)
    } catch {
      throw invalid('couch', 'must be a nano server scope, or a function that returns one')
    }
  }
  const [problem] = Value.Errors(OptionsData, options)
  if (problem) {
    throw invalid(problem.path.slice(1).replaceAll('/', '.'), problem.message.toLowerCase())
  }
  if (options.metrics) checkMetrics(options.metrics)
  const databases = { backups: options.databases.system, ...options.databases }
  checkNames(databases)
  const limits = {
    uploadBytes: 10 * GiB,
    inflatedBytes: 4 * GiB,
    attachmentBytes: 32 * 1024 ** 2,
    nesting: 512
  }
  const uploadBytes = options.limits?.uploadBytes ?? limits.uploadBytes
  return {
    ...options,
    databases,
    publicUrl: options.publicUrl?.replace(/\/+$/, ''),
    excludeTypes: options.excludeTypes ?? [],
    limits: { ...limits, spoolBytes: uploadBytes, ...options.limits },
    timeouts: {
      authorize: 10_000,
      control: 30_000,
      idle: 60_000,
      lease: 30_000,
      rebuildWhitelist: 120_000,
      close: 10_000,
      ...options.timeouts
    },
    retry: { ...BACKGROUND, ...options.retry }
  }
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

/** A key in a backup must mean one database, whoever made the backup. */
function checkNames(names: Required<DatabaseNames>): void {
  for (const database of LOGICAL_DATABASES) {
    for (const other of LOGICAL_DATABASES) {
      if (other === database) continue
      const taken = [names[other], apiKey(other), other]
      if (taken.includes(names[database])) {
        throw invalid(`databases.${database}`, `"${names[database]}" stands for ${other} in backups`)
      }
    }
  }
}

function invalid(option: string, problem: string): TypeError {
  return new TypeError(`fastify-couchdb-backups: option "${option}" ${problem}`)
}
