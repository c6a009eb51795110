import type { BackupEvent, OperationKind } from '../../types/events.js'
import type {
  MetricsOptions,
  PrometheusConfiguration,
  PrometheusCounter,
  PrometheusGauge,
  PrometheusHistogram
} from '../../types/metrics.js'
import type { VerifyDepth } from '../../types/verify.js'
import { LOGICAL_DATABASES } from '../databases.js'
import type { EventOf } from './event-stream.js'

/** Upper bounds of the histogram's buckets, in seconds. */
const BUCKETS = [0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200]
const EACH_KIND: Readonly<Record<OperationKind, true>> = {
  backup: true,
  restore: true,
  prune: true,
  rekey: true,
  verify: true,
  copy: true
}
/** All kinds of operations. */
export const KINDS = Object.keys(EACH_KIND) as OperationKind[]
const OPERATIONS = [...KINDS, 'dry_run'] as const
const RESULTS = ['created', 'changed', 'unchanged', 'skipped', 'failed', 'deleted'] as const

type Step = 'started' | 'finished' | 'failed'
type EndEvent = EventOf<`${OperationKind}_${'finished' | 'failed'}`>

/** Keeps Prometheus metrics up to date by events. Shares metrics that the registry has already. */
export class Metrics {
  readonly #metrics: ReturnType<typeof metricsOf>
  /** When the newest complete backup ended, in milliseconds since the epoch. */
  #lastBackup: number | undefined

  /** @throws TypeError when the registry has a metric of another kind under one of the names */
  constructor(options: MetricsOptions) {
    this.#metrics = metricsOf(options)
    this.#startAtZero()
  }

  readonly listener = (event: BackupEvent): void => {
    if (isStep(event, 'started')) this.#metrics.inProgress.inc({ operation: operationOf(event) }, 1)
    if (isStep(event, 'finished')) this.#succeeded(event)
    if (isStep(event, 'failed')) this.#failed(event)
    this.#countOf(event)
  }

  /** Counts what an event reports beside the step of its operation. */
  #countOf(event: BackupEvent): void {
    switch (event.type) {
      case 'backup_database_finished':
        this.#backedUp(event)
        break
      case 'restore_database_finished':
        this.#restored(event)
        break
      case 'backup_finished':
        this.#metrics.chainLength.set({}, event.backup.chain_length ?? 0)
        break
      case 'prune_finished':
        this.#metrics.pruned.inc({}, event.outcome.removed.length)
        this.#metrics.freedBytes.inc({}, event.outcome.freed_bytes)
        break
      case 'rekey_backup_finished':
        this.#metrics.rekeyedBytes.inc({}, event.bytes)
        break
      case 'verify_finished':
        this.foundVerified(event.report)
        break
      case 'copy_finished':
        this.#metrics.copiedBytes.inc({}, event.outcome.copied.bytes)
        break
      case 'retry':
        this.#metrics.retries.inc({ operation: event.operation }, 1)
        break
      case 'recovered':
        this.#metrics.recoveries.inc({ operation: event.operation }, 1)
        break
      case 'schedule_failed':
        this.#metrics.scheduleFailures.inc({}, 1)
        break
      case 'schedule_verify_failed':
        this.#metrics.verifyScheduleFailures.inc({}, 1)
        break
      case 'webhook_delivered':
        this.#metrics.deliveries.inc({ outcome: 'success' }, 1)
        break
      case 'webhook_failed':
        this.#metrics.deliveries.inc({ outcome: 'failure' }, 1)
        break
    }
  }

  /**
   * Notes when the newest complete backup ended, in milliseconds since the epoch; `undefined` when there is none.
   * Ignores a backup older than one that was noted.
   */
  foundBackup(endedAt: number | undefined): void {
    if (endedAt === undefined ? this.#lastBackup !== undefined : endedAt <= (this.#lastBackup ?? 0)) return
    this.#lastBackup = endedAt
    this.#metrics.lastSuccess.set({ operation: 'backup' }, (endedAt ?? 0) / 1000)
  }

  /** Notes the result of a verification, whichever instance ran it. */
  foundVerified({ at, depth, good }: { at: number; depth: VerifyDepth; good: boolean }): void {
    this.#metrics.verifiedAt.set({ depth }, at / 1000)
    this.#metrics.verifiedGood.set({ depth }, good ? 1 : 0)
  }

  /** Notes when the schedule runs next, in milliseconds since the epoch. */
  scheduledFor(next: number): void {
    this.#metrics.nextRun.set({ operation: 'backup' }, next / 1000)
  }

  /** Notes when a run of the schedule last had its backup, in milliseconds since the epoch. */
  scheduleWorked(at: number): void {
    this.#metrics.lastRun.set({ operation: 'backup' }, at / 1000)
  }

  /** Starts counters at zero, so that the first failure is an increase. */
  #startAtZero(): void {
    for (const operation of OPERATIONS) {
      this.#metrics.failures.inc({ operation }, 0)
      this.#metrics.inProgress.inc({ operation }, 0)
      if (operation === 'dry_run') continue
      this.#metrics.retries.inc({ operation }, 0)
      this.#metrics.recoveries.inc({ operation }, 0)
    }
    this.#metrics.pruned.inc({}, 0)
    this.#metrics.freedBytes.inc({}, 0)
    this.#metrics.rekeyedBytes.inc({}, 0)
    this.#metrics.copiedBytes.inc({}, 0)
    for (const database of LOGICAL_DATABASES) this.#metrics.missing.inc({ database }, 0)
    this.#metrics.scheduleFailures.inc({}, 0)
    this.#metrics.verifyScheduleFailures.inc({}, 0)
    for (const outcome of ['success', 'failure']) this.#metrics.deliveries.inc({ outcome }, 0)
  }

  #backedUp({ database, summary }: EventOf<'backup_database_finished'>): void {
    this.#metrics.documents.inc({ operation: 'backup', database, result: 'stored' }, summary.doc_count)
    this.#metrics.missing.inc({ database }, summary.missing ? 1 : 0)
    const unreadable = summary.unreadable_count ?? 0
    this.#metrics.documents.inc({ operation: 'backup', database, result: 'unreadable' }, unreadable)
    this.#metrics.rawBytes.inc({ database }, summary.raw_bytes)
    this.#metrics.storedBytes.inc({ database }, summary.stored_bytes)
    const { raw_bytes: raw, added_bytes: added = 0, wasted_bytes: wasted = 0 } = summary
    this.#metrics.addedBytes.inc({ database }, added)
    this.#metrics.wastedShare.set({ database }, wasted === 0 ? 0 : wasted / (raw + wasted))
    if (summary.full_reason) this.#metrics.fullReads.inc({ database, reason: summary.full_reason }, 1)
  }

  #restored({ database, dryRun, counts }: EventOf<'restore_database_finished'>): void {
    if (dryRun) return
    for (const result of RESULTS)
      this.#metrics.documents.inc({ operation: 'restore', database, result }, counts[result])
  }

  #succeeded(event: EventOf<`${OperationKind}_finished`>): void {
    // Another instance may have made a newer backup.
    if (event.type === 'backup_finished') this.foundBackup(event.backup.end_timestamp)
    else this.#metrics.lastSuccess.set({ operation: operationOf(event) }, Date.now() / 1000)
    this.#ended(event, 'success')
  }

  #failed(event: EventOf<`${OperationKind}_failed`>): void {
    this.#metrics.failures.inc({ operation: operationOf(event) }, 1)
    this.#ended(event, 'failure')
  }

  #ended(event: EndEvent, outcome: 'success' | 'failure'): void {
    const operation = operationOf(event)
    this.#metrics.inProgress.inc({ operation }, -1)
    this.#metrics.duration.observe({ operation, outcome }, event.durationMs / 1000)
  }
}

/** Returns whether an event reports a step of an operation of any kind. */
function isStep<S extends Step>(event: BackupEvent, step: S): event is EventOf<`${OperationKind}_${S}`> {
  return KINDS.some((kind) => event.type === `${kind}_${step}`)
}

/** Returns the kind of operation whose step an event reports. A dry run counts apart from restores. */
function operationOf(event: EventOf<`${OperationKind}_${Step}`>): (typeof OPERATIONS)[number] {
  if ('dryRun' in event && event.dryRun) return 'dry_run'
  return event.type.slice(0, event.type.lastIndexOf('_')) as OperationKind
}

function metricsOf(options: MetricsOptions) {
  const { Counter, Gauge, Histogram } = options.client
  const counter = (name: string, help: string, ...labelNames: string[]): PrometheusCounter =>
    sharedMetric(options, 'inc', { name, help, labelNames }, (all) => new Counter(all))
  const gauge = (name: string, help: string, ...labelNames: string[]): PrometheusGauge =>
    sharedMetric(options, 'set', { name, help, labelNames }, (all) => new Gauge(all))
  const duration = {
    name: 'db_backups_duration_seconds',
    help: 'Time that operations took, by operation and outcome (success, failure).',
    labelNames: ['operation', 'outcome']
  }
  return {
    duration: sharedMetric<PrometheusHistogram>(
      options,
      'observe',
      duration,
      (all) => new Histogram({ ...all, buckets: BUCKETS })
    ),
    documents: counter(
      'db_backups_documents_total',
      'Documents of finished databases, by operation, database and result.',
      'operation',
      'database',
      'result'
    ),
    rawBytes: counter(
      'db_backups_raw_bytes_total',
      "Bytes of the documents' JSON that were backed up, by database.",
      'database'
    ),
    storedBytes: counter(
      'db_backups_stored_bytes_total',
      'Bytes that backed-up documents take in the backups database, by source database.',
      'database'
    ),
    addedBytes: counter(
      'db_backups_added_bytes_total',
      'Bytes that backups have added to the backups database, by source database.',
      'database'
    ),
    fullReads: counter(
      'db_backups_full_reads_total',
      'Databases that were read in full, by database and reason.',
      'database',
      'reason'
    ),
    wastedShare: gauge(
      'db_backups_wasted_share',
      'Share of dead lines in what the last backup of this instance lists, by bytes (0 to 1) and by database.',
      'database'
    ),
    chainLength: gauge(
      'db_backups_chain_length',
      'Backups in the chain before the last backup of this instance.'
    ),
    missing: counter(
      'db_backups_missing_databases_total',
      'Databases that did not exist when a backup was to read them, by database.',
      'database'
    ),
    pruned: counter('db_backups_pruned_total', 'Backups that were removed.'),
    freedBytes: counter(
      'db_backups_freed_bytes_total',
      'Bytes of removed backups that the database gives back when it compacts.'
    ),
    rekeyedBytes: counter('db_backups_rekeyed_bytes_total', 'Stored bytes of chunks that were sealed anew.'),
    copiedBytes: counter('db_backups_copied_bytes_total', 'Bytes that were stored in other repositories.'),
    retries: counter('db_backups_retries_total', 'Calls to CouchDB that operations repeated.', 'operation'),
    failures: counter('db_backups_failures_total', 'Operations that failed on this instance.', 'operation'),
    recoveries: counter(
      'db_backups_recoveries_total',
      'Operations that this instance ended, because the instance that ran them had stopped.',
      'operation'
    ),
    deliveries: counter(
      'db_backups_webhook_deliveries_total',
      "Restores whose clients' webhooks were called, by outcome (success, failure).",
      'outcome'
    ),
    inProgress: gauge('db_backups_in_progress', 'Operations that this instance is running.', 'operation'),
    lastSuccess: gauge(
      'db_backups_last_success_timestamp_seconds',
      'When the last successful operation ended. 0: there is no backup.',
      'operation'
    ),
    nextRun: gauge(
      'db_backups_schedule_next_timestamp_seconds',
      'When the schedule of this instance runs next.',
      'operation'
    ),
    lastRun: gauge(
      'db_backups_schedule_last_success_timestamp_seconds',
      'When this instance last saw a scheduled run have its backup, whichever instance made it.',
      'operation'
    ),
    verifiedAt: gauge(
      'db_backups_verified_timestamp_seconds',
      'When a verification last ended, by depth.',
      'depth'
    ),
    verifiedGood: gauge(
      'db_backups_verified_good',
      '1 if the last verification found nothing wrong, else 0, by depth.',
      'depth'
    ),
    verifyScheduleFailures: counter(
      'db_backups_schedule_verify_failures_total',
      'Attempts of scheduled verifications that failed.'
    ),
    scheduleFailures: counter(
      'db_backups_schedule_failures_total',
      'Attempts of scheduled backups that failed.'
    )
  }
}

/**
 * Returns the registry's metric of a name, or makes it.
 * @param method identifies the kind of metric @throws TypeError for a metric of another kind
 */
function sharedMetric<Metric extends object>(
  { client, registry = client.register, prefix = '' }: MetricsOptions,
  method: keyof Metric,
  description: Omit<PrometheusConfiguration, 'registers'>,
  make: (configuration: PrometheusConfiguration) => Metric
): Metric {
  const name = prefix + description.name
  const existing = registry.getSingleMetric(name)
  if (!existing) {
    const metric = make({ ...description, name, registers: [] })
    registry.registerMetric(metric as never)
    return metric
  }
  if (typeof (existing as Metric)[method] === 'function') return existing as Metric
  throw new TypeError(`fastify-couchdb-backups: option "metrics.registry" has another metric named "${name}"`)
}
