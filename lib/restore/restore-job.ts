import type { RestoreOutcome } from '../../types/backups.js'
import type { LogicalDatabase } from '../../types/databases.js'
import { cutText, MOST, messageOf } from '../bytes/cut-text.js'
import { CouchError } from '../couch/errors.js'
import { LOGICAL_DATABASES } from '../databases.js'
import { CancelledError, IncompleteRestoreError, LeaseLostError } from '../errors.js'
import { unreadableIds } from '../format/about-database.js'
import type { Progress } from '../observe/progress.js'
import { isOwnDocument } from '../own-documents.js'
import { restoreDatabase } from './database-restore.js'
import { notHeld, type ReportOptions, RestoreReport } from './restore-report.js'
import { makeSafetyBackup, type SafetyOptions } from './safety-backup.js'
import { isChosen, type RestoreChoice, Scope } from './scope.js'
import type { RestoreSource } from './source.js'

export interface RestoreJobOptions extends ReportOptions, SafetyOptions {
  /** Checks what is wanted of the backup; nothing has been written before it resolves. */
  openSource: (wanted: readonly LogicalDatabase[]) => Promise<RestoreSource>
  choice: RestoreChoice
  internalTypes: ReadonlySet<string>
  keepTypes: ReadonlySet<string>
  /** Ids of the documents of the system database that hold a console's settings. */
  settings: readonly string[]
  exact: boolean
  rebuildWhitelist: () => Promise<void>
  progress: Progress
  /** Whether requests were cut off that may have written something. */
  isCut: () => boolean
}

/** Steps of a restore: check, one for each database, white list. */
export const TOTAL_STEPS = 5

/** Runs a restore, white list included, but does not record its end. @throws IncompleteRestoreError */
export async function runRestore(options: RestoreJobOptions): Promise<RestoreOutcome> {
  const report = new RestoreReport(options)
  const { outcome } = report
  try {
    await restoreDatabases(options, report)
    if (!options.dryRun) await rebuildWhitelist(options, report)
    if (report.failed > 0) throw new IncompleteRestoreError(report.failureMessage(), outcome)
    return outcome
  } catch (error) {
    if (error instanceof CancelledError) throw cancelled(error, outcome, options)
    // The error carries what was done before.
    if (!isOfDatabase(error) || Object.keys(outcome.databases).length === 0) throw error
    throw new IncompleteRestoreError(error.message, outcome, error)
  } finally {
    await report.stop()
  }
}

/** Tells what a cancelled restore has written. Nothing was, where no database was begun. */
function cancelled(
  error: CancelledError,
  outcome: RestoreOutcome,
  { dryRun, isCut }: Pick<RestoreJobOptions, 'dryRun' | 'isCut'>
): Error {
  const begun = Object.values(outcome.databases)
  if (dryRun || begun.length === 0) return error
  const written = begun.reduce((sum, { created, changed, deleted }) => sum + created + changed + deleted, 0)
  const more = isCut() ? ', and requests were cut off that may have written more' : ''
  return new IncompleteRestoreError(
    `${error.message}: ${written} documents had been written${more}; the white list was not rebuilt`,
    outcome,
    error
  )
}

/** Returns whether a server, rather than this process, ended a restore. */
const isOfDatabase = (error: unknown): error is Error =>
  error instanceof CouchError || error instanceof LeaseLostError

async function restoreDatabases(options: RestoreJobOptions, report: RestoreReport): Promise<void> {
  await report.nextStep('checking the backup')
  const elapsed = stopwatch()
  const wanted = LOGICAL_DATABASES.filter((database) => isChosen(database, options.choice))
  const source = await options.openSource(wanted)
  try {
    const databases = source.databases.filter((database) => wanted.includes(database))
    // Checked before anything is written.
    if (options.exact) for (const database of databases) unreadableIds(source.about(database))
    const documents = Object.fromEntries(databases.map((name) => [name, source.count(name)]))
    options.onPhase({ type: 'restore_checked', durationMs: elapsed(), documents })
    expectAll(databases, source, options.progress)
    await makeSafetyBackup(databases, options, report)
    for (const database of LOGICAL_DATABASES) await restoreOne(database, source, options, report)
  } finally {
    await source.close()
  }
}

/** Expects every document of these databases to be looked at. */
function expectAll(databases: readonly LogicalDatabase[], source: RestoreSource, progress: Progress): void {
  const bytes = databases.map((database) => source.bytes(database))
  const documents = databases.map((database) => source.count(database))
  const sum = (amounts: readonly number[]) => amounts.reduce((total, amount) => total + amount, 0)
  const known = bytes.filter((amount) => amount !== undefined)
  progress.expect(sum(documents), known.length === bytes.length ? sum(known) : undefined)
}

/** Restores one database, or tells why not. */
async function restoreOne(
  database: LogicalDatabase,
  source: RestoreSource,
  options: RestoreJobOptions,
  report: RestoreReport
): Promise<void> {
  if (!isChosen(database, options.choice))
    return report.nextStep(`${database} is not to be restored: it is left as it is`)
  const scope = new Scope(database, options.choice)
  if (source.databases.includes(database)) {
    const verb = options.dryRun ? 'comparing' : 'restoring'
    const { only, exclude } = options.choice
    const part = only || exclude[database] ? 'what is chosen of ' : ''
    await report.nextStep(`${verb} ${part}${source.count(database)} documents of ${database}`)
    await restoreHeld(database, source, scope, options, report)
  } else await report.nextStep(notHeld(database, source.about(database)))
  await report.addUnknown('skip_unknown', database, scope.unknownLeft())
  await report.addUnknown('only_unknown', database, scope.unknownChosen())
}

async function restoreHeld(
  database: LogicalDatabase,
  source: RestoreSource,
  scope: Scope,
  options: RestoreJobOptions,
  report: RestoreReport
): Promise<void> {
  const { targets, exact, dryRun, internalTypes } = options
  const target = targets[database]
  const holdsOwn = options.holdsOwn(target)
  const about = source.about(database)
  const counts = report.begin(database)
  const elapsed = stopwatch()
  const replicas = await restoreDatabase({
    source,
    target,
    database,
    scope,
    internalTypes,
    isOwn: (id, type) => holdsOwn && isOwnDocument(id, type),
    // Documents that the backup left out were not deleted in its source.
    keepTypes: new Set([...options.keepTypes, ...(about.excluded_types ?? [])]),
    keepIds: new Set(exact ? unreadableIds(about) : []),
    settings: new Set(database === 'system' ? options.settings : []),
    dryRun,
    exact,
    counts,
    progress: options.progress,
    report
  })
  options.progress.finished()
  options.onPhase({
    type: 'restore_database_finished',
    database,
    durationMs: elapsed(),
    counts: { ...counts }
  })
  if (exact && replicas !== 'agree') await report.addMaybeNotExact(database)
}

async function rebuildWhitelist(options: RestoreJobOptions, report: RestoreReport): Promise<void> {
  await report.nextStep('rebuilding the component white list')
  const elapsed = stopwatch()
  try {
    await options.rebuildWhitelist()
  } catch (error) {
    const data = report.failed > 0 ? report.failureMessage() : 'the data was restored'
    const reason = cutText(messageOf(error), MOST.reason)
    throw new IncompleteRestoreError(
      `${data}, but the component white list could not be rebuilt: ${reason}`,
      report.outcome
    )
  }
  options.onPhase({ type: 'restore_whitelist_rebuilt', durationMs: elapsed() })
}

function stopwatch(): () => number {
  const startedAt = performance.now()
  return () => performance.now() - startedAt
}
