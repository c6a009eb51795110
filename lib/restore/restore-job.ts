import type { RestoreFailure, RestoreOutcome, SettingsChange } from '../../types/backups.js'
import type { LogicalDatabase } from '../../types/databases.js'
import type { RestorePhase } from '../../types/events.js'
import type { TransactionUpdate } from '../../types/webhooks.js'
import { cutText, MOST, messageOf } from '../bytes/cut-text.js'
import type { CouchDatabase } from '../couch/database.js'
import { CouchError } from '../couch/errors.js'
import { IncompleteRestoreError } from '../errors.js'
import { type AboutDatabase, unreadableIds } from '../format/about-database.js'
import { isOwnDocument } from '../own-documents.js'
import { restoreDatabase } from './database-restore.js'
import { noCounts } from './no-counts.js'
import { SkipList } from './skip-list.js'
import type { RestoreSource } from './source.js'

/** Milliseconds between two updates of the transaction. */
const PROGRESS_INTERVAL = 2000
/** Failures, and ids that no document has, that are told by name. */
const NAMED = 20
/** Of those, how many a message names as well. */
const IN_MESSAGE = 5

export interface RestoreJobOptions {
  txId: string
  /** Checks the whole backup; nothing has been written before it resolves. */
  openSource: () => Promise<RestoreSource>
  targets: Record<LogicalDatabase, CouchDatabase>
  skip: Partial<Record<LogicalDatabase, readonly string[]>>
  internalTypes: ReadonlySet<string>
  /** Real name of the database that keeps backups. */
  backups: string
  keepTypes: ReadonlySet<string>
  /** Ids of the documents of the system database that hold a console's settings. */
  settings: readonly string[]
  dryRun: boolean
  exact: boolean
  /** Updates the transaction. */
  tell: (update: TransactionUpdate) => Promise<void>
  /** Rebuilds the white list. */
  rebuildWhitelist: () => Promise<void>
  onPhase: (phase: RestorePhase) => void
}

/** Steps of a restore: check, one for each database, white list. */
export const TOTAL_STEPS = 5

/**
 * Checks the backup, restores its databases one after another, and has the white list rebuilt. The transaction shows
 * how far it is; its end is the caller's to write.
 *
 * @throws IncompleteRestoreError when documents failed or the white list could not be rebuilt
 */
export async function runRestore(options: RestoreJobOptions): Promise<RestoreOutcome> {
  const { txId, targets, dryRun } = options
  const isOurs = (name: string) => name === options.backups || name === targets.system.name
  const outcome: RestoreOutcome = { tx_id: txId, databases: {}, failures: [] }
  const messages: string[] = []
  const progress = new Progress(options.tell)
  const step = (onStep: number, message: string) => {
    messages.push(message)
    return progress.step({ on_step: onStep, athena_messages: [...messages] })
  }
  const tellUnknown = async (database: LogicalDatabase, skip: SkipList) => {
    const unknown = skip.unknown()
    if (unknown.length === 0) return
    const ids = unknown.slice(0, NAMED).map((id) => cutText(id, MOST.name))
    outcome.skip_unknown = { ...outcome.skip_unknown, [database]: { count: unknown.length, ids } }
    messages.push(unknownMessage(database, unknown))
    await progress.step({ skip_unknown: outcome.skip_unknown, athena_messages: [...messages] })
  }
  const tellSettings = async (changed: SettingsChange) => {
    const before = (outcome.settings_documents ?? []).filter(({ id }) => id !== changed.id)
    outcome.settings_documents = [...before, changed]
    options.onPhase({ type: 'restore_settings_document', document: changed.id, change: changed.change })
    messages.push(settingsMessage(changed, dryRun))
    await progress.step({
      settings_documents: outcome.settings_documents,
      athena_messages: [...messages]
    })
  }
  try {
    await step(1, 'checking the backup')
    const checking = stopwatch()
    const source = await options.openSource()
    try {
      // Before anything is written.
      const unreadable = new Map(
        options.exact ? source.databases.map((name) => [name, unreadableIds(source.about(name))]) : []
      )
      const documents = Object.fromEntries(source.databases.map((name) => [name, source.count(name)]))
      options.onPhase({ type: 'restore_checked', durationMs: checking(), documents })
      let onStep = 2
      for (const database of ['components', 'sessions', 'system'] as const) {
        const present = source.databases.includes(database)
        await step(
          onStep++,
          present
            ? `${dryRun ? 'comparing' : 'restoring'} ${source.count(database)} documents of ${database}`
            : notHeld(database, source.about(database))
        )
        const skip = new SkipList(options.skip[database])
        if (!present) {
          await tellUnknown(database, skip)
          continue
        }
        const restoring = stopwatch()
        const counts = noCounts()
        outcome.databases[database] = counts
        progress.watch(() => ({ databases: structuredClone(outcome.databases) }))
        const copies = await restoreDatabase({
          source,
          target: targets[database],
          database,
          skip,
          internalTypes: options.internalTypes,
          isOwn: (id, type) => isOurs(targets[database].name) && isOwnDocument(id, type),
          // What the backup left out was not deleted in its source.
          keepTypes: new Set([...options.keepTypes, ...(source.about(database).excluded_types ?? [])]),
          keepIds: new Set(unreadable.get(database)),
          settings: new Set(database === 'system' ? options.settings : []),
          onSettings: (id, change) => tellSettings({ id, change }),
          dryRun,
          exact: options.exact,
          counts,
          onFailure(failure: RestoreFailure) {
            if (outcome.failures.length < NAMED) outcome.failures.push(cutFailure(failure))
          }
        })
        options.onPhase({
          type: 'restore_database_finished',
          database,
          durationMs: restoring(),
          counts: { ...counts }
        })
        if (options.exact && copies !== 'agree') {
          messages.push(maybeNotExact(database))
          await progress.step({ athena_messages: [...messages] })
        }
        await tellUnknown(database, skip)
      }
    } finally {
      await source.close()
    }
    const failed = Object.values(outcome.databases).reduce((sum, counts) => sum + counts.failed, 0)
    if (!dryRun) {
      await step(TOTAL_STEPS, 'rebuilding the component white list')
      const rebuilding = stopwatch()
      await rebuild(options, outcome, failed)
      options.onPhase({ type: 'restore_whitelist_rebuilt', durationMs: rebuilding() })
    }
    if (failed > 0) throw incomplete(outcome, failed)
    return outcome
  } catch (error) {
    // What was done and named before is told all the same.
    if (!(error instanceof CouchError) || Object.keys(outcome.databases).length === 0) throw error
    throw new IncompleteRestoreError(error.message, outcome, error)
  } finally {
    await progress.stop()
  }
}

async function rebuild(options: RestoreJobOptions, outcome: RestoreOutcome, failed: number): Promise<void> {
  try {
    await options.rebuildWhitelist()
  } catch (error) {
    throw new IncompleteRestoreError(
      `${failed > 0 ? incomplete(outcome, failed).message : 'the data was restored'}, but the component white list could not be rebuilt: ${cutText(messageOf(error), MOST.reason)}`,
      outcome
    )
  }
}

function incomplete(outcome: RestoreOutcome, failed: number): IncompleteRestoreError {
  const named = outcome.failures.slice(0, IN_MESSAGE).map(
    // CouchDB's reason alone may say nothing: for a document that is too large, it is the id.
    ({ database, id, reason, error }) =>
      cutText(`${database}/${id} (${[error, reason].filter(Boolean).join(': ')})`, MOST.inMessage)
  )
  const told = `${named.join(', ')}${andMore(failed - named.length)}`
  return new IncompleteRestoreError(`${failed} documents were not restored: ${told}`, outcome)
}

const notHeld = (database: LogicalDatabase, { missing }: AboutDatabase) =>
  missing
    ? `${database} did not exist when the backup was made: it is left as it is now`
    : `the backup does not hold ${database}`

/** A mistyped id overwrites what was to be left alone. */
function unknownMessage(database: LogicalDatabase, unknown: readonly string[]): string {
  const named = unknown.slice(0, IN_MESSAGE).map((id) => `"${cutText(id, MOST.inMessage)}"`)
  const told = `${named.join(', ')}${andMore(unknown.length - named.length)}`
  return `${unknown.length} ids to skip are of no document of ${database}: ${told}`
}

/** Another console's settings make a console use the databases and keys of that one. */
function settingsMessage({ id, change }: SettingsChange, dryRun: boolean): string {
  const what = `the settings document "${cutText(id, MOST.name)}" of system`
  return dryRun
    ? `${what} would be ${change}: skip it, unless the backup is of this console`
    : `${what} is being ${change}`
}

/** What is written is asked of the majority of copies; what there is beside it is known from one of them. */
const maybeNotExact = (database: LogicalDatabase) =>
  `the copies of ${database} were not seen to agree: a document that the backup does not hold may have been left`

const andMore = (count: number) => (count > 0 ? `, and ${count} more` : '')

const cutFailure = ({ database, id, error, reason }: RestoreFailure): RestoreFailure => ({
  database,
  id: cutText(id, MOST.name),
  error: cutText(error, MOST.name),
  reason: cutText(reason, MOST.reason)
})

/** Gives the milliseconds since it was started. */
function stopwatch(): () => number {
  const startedAt = performance.now()
  return () => performance.now() - startedAt
}

/** Keeps the transaction up to date: each step at once, counts at intervals. */
class Progress {
  readonly #tell: RestoreJobOptions['tell']
  #timer: NodeJS.Timeout | undefined
  #writing: Promise<unknown> = Promise.resolve()
  #busy = false

  constructor(tell: RestoreJobOptions['tell']) {
    this.#tell = tell
  }

  async step(update: TransactionUpdate): Promise<void> {
    await this.#writing
    this.#busy = true
    try {
      await this.#tell(update)
    } finally {
      this.#busy = false
    }
  }

  watch(counts: () => TransactionUpdate): void {
    clearInterval(this.#timer)
    this.#timer = setInterval(() => {
      if (this.#busy) return
      this.#busy = true
      // The next step or the end tells the same; there a failure to write counts.
      this.#writing = this.#tell(counts()).then(
        () => {
          this.#busy = false
        },
        () => {
          this.#busy = false
        }
      )
    }, PROGRESS_INTERVAL)
    this.#timer.unref()
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer)
    await this.#writing
  }
}
