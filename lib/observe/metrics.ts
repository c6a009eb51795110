import type { BackupEvent } from '../../types/events.js'
import type {
  MetricsOptions,
  PrometheusConfiguration,
  PrometheusCounter,
  PrometheusGauge,
  PrometheusHistogram
} from '../../types/metrics.js'
import { LOGICAL_DATABASES } from '../databases.js'

/** Seconds. */
const BUCKETS = [0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200]
const OPERATIONS = ['backup', 'restore', 'dry_run'] as const
/** What a restore counts documents as. */
const RESULTS = ['created', 'changed', 'unchanged', 'skipped', 'failed', 'deleted'] as const

type EventOf<Type extends BackupEvent['type']> = Extract<BackupEvent, { type: Type }>

/** Prometheus metrics of the events. Those that the registry has already are shared. */
export class Metrics {
  readonly #duration: PrometheusHistogram
  readonly #documents: PrometheusCounter
  readonly #rawBytes: PrometheusCounter
  readonly #storedBytes: PrometheusCounter
  readonly #missing: PrometheusCounter
  readonly #retries: PrometheusCounter
  readonly #failures: PrometheusCounter
  readonly #recoveries: PrometheusCounter
  readonly #deliveries: PrometheusCounter
  readonly #inProgress: PrometheusGauge
  readonly #lastSuccess: PrometheusGauge
  /** Milliseconds. */
  #lastBackup: number | undefined

  /** @throws TypeError when the registry has a metric of another kind under one of the names */
  constructor(options: MetricsOptions) {
    const make = new MetricFactory(options)
    this.#duration = make.histogram(
      'db_backups_duration_seconds',
      'Time that backups and restores took, by operation and outcome (success, failure).',
      ['operation', 'outcome']
    )
    this.#documents = make.counter(
      'db_backups_documents_total',
      'Documents of finished databases, by operation, database and result.',
      ['operation', 'database', 'result']
    )
    this.#rawBytes = make.counter(
      'db_backups_raw_bytes_total',
      "Bytes of the documents' JSON that were backed up, by database.",
      ['database']
    )
    this.#storedBytes = make.counter(
      'db_backups_stored_bytes_total',
      'Bytes that backed-up documents take where backups are kept, by database.',
      ['database']
    )
    this.#missing = make.counter(
      'db_backups_missing_databases_total',
      'Databases that did not exist when they were to be backed up, by database.',
      ['database']
    )
    this.#retries = make.counter(
      'db_backups_retries_total',
      'Calls to the database that backups and restores had to make again.',
      ['operation']
    )
    this.#failures = make.counter(
      'db_backups_failures_total',
      'Backups and restores that failed on this instance.',
      ['operation']
    )
    this.#recoveries = make.counter(
      'db_backups_recoveries_total',
      'Backups and restores that were interrupted, because the instance that ran them had stopped.',
      ['operation']
    )
    this.#deliveries = make.counter(
      'db_backups_webhook_deliveries_total',
      "Restores whose clients' webhooks were called, by outcome (success, failure).",
      ['outcome']
    )
    this.#inProgress = make.gauge(
      'db_backups_in_progress',
      'Backups and restores that this instance is running.',
      ['operation']
    )
    this.#lastSuccess = make.gauge(
      'db_backups_last_success_timestamp_seconds',
      'When the last successful backup or restore ended. 0: there is no backup.',
      ['operation']
    )
    this.#begin()
  }

  readonly listener = (event: BackupEvent): void => {
    switch (event.type) {
      case 'backup_started':
      case 'restore_started':
        this.#inProgress.inc({ operation: operationOf(event) }, 1)
        break
      case 'backup_database_finished':
        this.#backedUp(event)
        break
      case 'restore_database_finished':
        this.#restored(event)
        break
      case 'backup_finished':
        this.foundBackup(event.backup.end_timestamp)
        this.#ended(event, 'success')
        break
      case 'restore_finished':
        this.#lastSuccess.set({ operation: operationOf(event) }, Date.now() / 1000)
        this.#ended(event, 'success')
        break
      case 'backup_failed':
      case 'restore_failed':
        this.#failures.inc({ operation: operationOf(event) }, 1)
        this.#ended(event, 'failure')
        break
      case 'retry':
        this.#retries.inc({ operation: event.operation }, 1)
        break
      case 'recovered':
        this.#recoveries.inc({ operation: event.operation }, 1)
        break
      case 'webhook_delivered':
        this.#deliveries.inc({ outcome: 'success' }, 1)
        break
      case 'webhook_failed':
        this.#deliveries.inc({ outcome: 'failure' }, 1)
        break
    }
  }

  /**
   * Notes the newest complete backup, unless a newer one is known.
   * @param endedAt milliseconds since the epoch; `undefined` when there is none
   */
  foundBackup(endedAt: number | undefined): void {
    if (endedAt === undefined ? this.#lastBackup !== undefined : endedAt <= (this.#lastBackup ?? 0)) return
    this.#lastBackup = endedAt
    this.#lastSuccess.set({ operation: 'backup' }, (endedAt ?? 0) / 1000)
  }

  /** Registers counters at zero, so that the first failure is an increase. */
  #begin(): void {
    for (const operation of OPERATIONS) {
      this.#failures.inc({ operation }, 0)
      this.#inProgress.inc({ operation }, 0)
      if (operation === 'dry_run') continue
      this.#retries.inc({ operation }, 0)
      this.#recoveries.inc({ operation }, 0)
    }
    for (const database of LOGICAL_DATABASES) this.#missing.inc({ database }, 0)
    for (const outcome of ['success', 'failure']) this.#deliveries.inc({ outcome }, 0)
  }

  #backedUp({ database, summary }: EventOf<'backup_database_finished'>): void {
    this.#documents.inc({ operation: 'backup', database, result: 'stored' }, summary.doc_count)
    this.#missing.inc({ database }, summary.missing ? 1 : 0)
    const unreadable = summary.unreadable_count ?? 0
    this.#documents.inc({ operation: 'backup', database, result: 'unreadable' }, unreadable)
    this.#rawBytes.inc({ database }, summary.raw_bytes)
    this.#storedBytes.inc({ database }, summary.stored_bytes)
  }

  #restored({ database, dryRun, counts }: EventOf<'restore_database_finished'>): void {
    if (dryRun) return
    for (const result of RESULTS)
      this.#documents.inc({ operation: 'restore', database, result }, counts[result])
  }

  #ended(
    event: EventOf<'backup_finished' | 'backup_failed' | 'restore_finished' | 'restore_failed'>,
    outcome: 'success' | 'failure'
  ): void {
    const operation = operationOf(event)
    this.#inProgress.inc({ operation }, -1)
    this.#duration.observe({ operation, outcome }, event.durationMs / 1000)
  }
}

function operationOf(event: BackupEvent): (typeof OPERATIONS)[number] {
  if (event.type.startsWith('backup_')) return 'backup'
  return 'dryRun' in event && event.dryRun ? 'dry_run' : 'restore'
}

/** Makes metrics, or returns those that the registry has. */
class MetricFactory {
  readonly #options: MetricsOptions

  constructor(options: MetricsOptions) {
    this.#options = options
  }

  counter(name: string, help: string, labelNames: string[]): PrometheusCounter {
    const { Counter } = this.#options.client
    return this.#shared(name, 'inc', (full) => new Counter(configuration(full, help, labelNames)))
  }

  gauge(name: string, help: string, labelNames: string[]): PrometheusGauge {
    const { Gauge } = this.#options.client
    return this.#shared(name, 'set', (full) => new Gauge(configuration(full, help, labelNames)))
  }

  histogram(name: string, help: string, labelNames: string[]): PrometheusHistogram {
    const { Histogram } = this.#options.client
    return this.#shared(
      name,
      'observe',
      (full) => new Histogram({ ...configuration(full, help, labelNames), buckets: BUCKETS })
    )
  }

  /**
   * Returns the registry's metric of a name, or makes it.
   * @param method a method that metrics of this kind have
   * @throws TypeError when the registry's is of another kind
   */
  #shared<Metric extends object>(name: string, method: keyof Metric, make: (full: string) => Metric): Metric {
    const { client, registry = client.register, prefix = '' } = this.#options
    const full = prefix + name
    const existing = registry.getSingleMetric(full)
    if (existing) {
      if (typeof (existing as Metric)[method] === 'function') return existing as Metric
      throw new TypeError(
        `fastify-couchdb-backups: option "metrics.registry" has another metric named "${full}"`
      )
    }
    const metric = make(full)
    registry.registerMetric(metric as never)
    return metric
  }
}

const configuration = (name: string, help: string, labelNames: string[]): PrometheusConfiguration => ({
  name,
  help,
  labelNames,
  registers: []
})
