import type {
  DatabaseRestoreCounts,
  RestoreFailure,
  RestoreOutcome,
  SettingsChange
} from '../../types/backups.js'
import type { LogicalDatabase } from '../../types/databases.js'
import type { RestorePhase } from '../../types/events.js'
import type { FoundChange } from '../../types/restores.js'
import type { TransactionUpdate } from '../../types/webhooks.js'
import { cutText, MOST } from '../bytes/cut-text.js'
import type { AboutDatabase } from '../format/about-database.js'
import { AtIntervals, PROGRESS_INTERVAL } from '../waits/at-intervals.js'

/** Failures, and ids that no document has, that are told by name. */
const NAMED = 20
/** Changes that are told by name, and bytes of JSON that these take at most. */
const NAMED_CHANGES = 100
const CHANGES_BYTES = 32 * 1024
/** Failures and ids that a message names. */
const IN_MESSAGE = 5

export interface ReportOptions {
  txId: string
  dryRun: boolean
  tell: (update: TransactionUpdate) => Promise<void>
  /** Called for every change that a dry run finds. */
  onChange?: (change: FoundChange) => Promise<void>
  onPhase: (phase: RestorePhase) => void
}

/** Collects what a restore does, and tells the transaction as it goes on. */
export class RestoreReport {
  readonly outcome: RestoreOutcome
  readonly #options: ReportOptions
  readonly #messages: string[] = []
  #step = 0
  #changesBytes = 0
  #timer: NodeJS.Timeout | undefined
  /** The next step or the end tells the same; there a failure to write counts. */
  readonly #counts = new AtIntervals(() =>
    this.#options.tell({ databases: structuredClone(this.outcome.databases) }).catch(() => undefined)
  )

  constructor(options: ReportOptions) {
    this.outcome = {
      tx_id: options.txId,
      databases: {},
      failures: [],
      ...(options.dryRun && { changes: [], changes_count: 0 })
    }
    this.#options = options
  }

  get failed(): number {
    return Object.values(this.outcome.databases).reduce((sum, counts) => sum + counts.failed, 0)
  }

  async nextStep(message: string): Promise<void> {
    await this.#tell(message, { on_step: ++this.#step })
  }

  /** Returns the counts of a database, to be kept up to date; the transaction shows them at intervals. */
  begin(database: LogicalDatabase): DatabaseRestoreCounts {
    const counts = { total: 0, created: 0, changed: 0, unchanged: 0, skipped: 0, failed: 0, deleted: 0 }
    this.outcome.databases[database] = counts
    this.#showProgress()
    return counts
  }

  /** Shows in the transaction, at intervals, that the restore goes on. */
  #showProgress(): void {
    this.#timer ??= setInterval(() => this.#counts.now(), PROGRESS_INTERVAL).unref()
  }

  addFailure(failure: RestoreFailure): void {
    if (this.outcome.failures.length < NAMED) this.outcome.failures.push(cutFailure(failure))
  }

  /** Tells of listed ids that no document has. */
  async addUnknown(
    member: 'skip_unknown' | 'only_unknown',
    database: LogicalDatabase,
    unknown: readonly string[]
  ): Promise<void> {
    if (unknown.length === 0) return
    const ids = unknown.slice(0, NAMED).map((id) => cutText(id, MOST.name))
    const all = { ...this.outcome[member], [database]: { count: unknown.length, ids } }
    this.outcome[member] = all
    const verb = member === 'skip_unknown' ? 'skip' : 'restore'
    await this.#tell(unknownMessage(verb, database, unknown), { [member]: all })
  }

  /** Tells that the databases are being backed up, which may take long. */
  async beginSafetyBackup(): Promise<void> {
    this.#showProgress()
    await this.#tell('making a backup of the databases as they are')
  }

  /** Tells by which backup the restore can be taken back. */
  async addSafetyBackup(id: string): Promise<void> {
    this.outcome.safety_backup = id
    await this.#tell(`made backup "${id}": restored exactly, it takes this restore back`, {
      safety_backup: id
    })
  }

  /** Whether somebody is told of every change. */
  get tellsChanges(): boolean {
    return this.#options.onChange !== undefined
  }

  /** Notes a change that a dry run has found, and waits until the host has taken it. */
  addChange(change: FoundChange): Promise<void> | undefined {
    const { outcome } = this
    const { changes = [] } = outcome
    outcome.changes = changes
    outcome.changes_count = (outcome.changes_count ?? 0) + 1
    if (changes.length < NAMED_CHANGES && this.#changesBytes < CHANGES_BYTES) {
      const { database, id, change: what } = change
      const short = { database, id: cutText(id, MOST.name), change: what }
      this.#changesBytes += Buffer.byteLength(JSON.stringify(short)) + 1
      // The first that has no room is the end: those that are told are the first.
      if (this.#changesBytes < CHANGES_BYTES) changes.push(short)
    }
    return this.#options.onChange?.(change)
  }

  /** Tells of a document with settings that is about to be changed, or would be. */
  async addSettings(changed: SettingsChange): Promise<void> {
    const before = (this.outcome.settings_documents ?? []).filter(({ id }) => id !== changed.id)
    const all = [...before, changed]
    this.outcome.settings_documents = all
    const { id: document, change } = changed
    this.#options.onPhase({ type: 'restore_settings_document', document, change })
    await this.#tell(settingsMessage(changed, this.#options.dryRun), { settings_documents: all })
  }

  /** Tells that documents may be left: a majority confirms written documents, only one replica lists all others. */
  async addMaybeNotExact(database: LogicalDatabase): Promise<void> {
    await this.#tell(
      `the replicas of ${database} were not seen to agree: a document that the backup does not hold may have been left`
    )
  }

  /** Says which documents were not restored. */
  failureMessage(): string {
    const named = this.outcome.failures.slice(0, IN_MESSAGE).map(
      // CouchDB's reason alone may be useless: for a document that is too large, it is the id.
      ({ database, id, reason, error }) =>
        cutText(`${database}/${id} (${[error, reason].filter(Boolean).join(': ')})`, MOST.inMessage)
    )
    const { failed } = this
    return `${failed} documents were not restored: ${named.join(', ')}${andMore(failed - named.length)}`
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer)
    await this.#counts.settle()
  }

  async #tell(message: string, update: TransactionUpdate = {}): Promise<void> {
    this.#messages.push(message)
    const told = { ...update, athena_messages: [...this.#messages] }
    await this.#counts.instead(() => this.#options.tell(told))
  }
}

/** Says why a restore does nothing to a database. */
export const notHeld = (database: LogicalDatabase, { missing }: AboutDatabase) =>
  missing
    ? `${database} did not exist when the backup was made: it is left as it is now`
    : `the backup does not hold ${database}`

/** Names chosen ids that no document has: a mistyped one overwrites what was to be left alone. */
function unknownMessage(
  verb: 'skip' | 'restore',
  database: LogicalDatabase,
  unknown: readonly string[]
): string {
  const named = unknown.slice(0, IN_MESSAGE).map((id) => `"${cutText(id, MOST.inMessage)}"`)
  const told = `${named.join(', ')}${andMore(unknown.length - named.length)}`
  return `${unknown.length} ids to ${verb} are of no document of ${database}: ${told}`
}

/** Warns of a settings document: those of another console make this one use the databases and keys of that one. */
function settingsMessage({ id, change }: SettingsChange, dryRun: boolean): string {
  const what = `the settings document "${cutText(id, MOST.name)}" of system`
  return dryRun
    ? `${what} would be ${change}: skip it, unless the backup is of this console`
    : `${what} is being ${change}`
}

const andMore = (count: number) => (count > 0 ? `, and ${count} more` : '')

const cutFailure = ({ database, id, error, reason }: RestoreFailure): RestoreFailure => ({
  database,
  id: cutText(id, MOST.name),
  error: cutText(error, MOST.name),
  reason: cutText(reason, MOST.reason)
})
