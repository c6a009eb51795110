import type { DatabaseSummary } from '../../types/backups.js'
import type { LogicalDatabase } from '../../types/databases.js'
import type { BackupPhase } from '../../types/events.js'
import type { CouchDatabase } from '../couch/database.js'
import { apiKey, databaseOfKey, LOGICAL_DATABASES } from '../databases.js'
import { MissingDatabaseError } from '../errors.js'
import type { Progress } from '../observe/progress.js'
import { toldExcluded } from '../own-documents.js'
import type { LoadedBackup } from '../repository/loaded-backup.js'
import type { Owner } from '../repository/owner.js'
import type { Repository } from '../repository/repository.js'
import { AtIntervals } from '../waits/at-intervals.js'
import { type IncrementalBounds, lastComplete, openBase } from './base-choice.js'
import { backupDatabase } from './database-backup.js'

interface BackupJobOptions {
  id: string
  /** The console that is backed up. */
  owner: Owner
  sources: Record<LogicalDatabase, CouchDatabase>
  repository: Repository
  excludeTypes: ReadonlySet<string>
  onUnreadable: 'report' | 'fail'
  /** Whether to read everything, whatever earlier backups hold. */
  full: boolean
  incremental: IncrementalBounds
  /** Whether a database may be missing that the last backup holds: it is being restored. */
  mayLack: boolean
  progress: Progress
  onPhase: (phase: BackupPhase) => void
}

/** Backs up the databases one by one, and checks what was stored. The caller fails the backup if this rejects. */
export async function runBackup(options: BackupJobOptions): Promise<LoadedBackup> {
  const { id, owner, sources, repository, excludeTypes, onUnreadable, full, incremental } = options
  const backup = repository.runningBackup(id)
  const dbs: Record<string, DatabaseSummary> = {}
  let base: LoadedBackup | undefined
  let inCurrent = 0
  const progress = new AtIntervals(() => backup.progress(dbs, inCurrent))
  try {
    await backup.ready()
    const earlier = await lastComplete(repository, {
      owner,
      except: id,
      excluded: toldExcluded(excludeTypes)
    })
    base = earlier.base
    expectAsIn(earlier.last, options.progress)
    const candidate = await openBase(repository, base)
    // The first database is looked up when it is read, at once.
    const existing = await namesOfExisting(LOGICAL_DATABASES.slice(1).map((database) => sources[database]))
    for (const database of LOGICAL_DATABASES) {
      const startedAt = performance.now()
      const summary = await backupDatabase({
        source: sources[database],
        backup,
        database,
        excludeTypes,
        onUnreadable,
        earlier: { candidate, full, ...incremental },
        onProgress(documents, bytes) {
          inCurrent = documents
          options.progress.at(documents, bytes)
          progress.due()
        }
      })
      if (summary.missing) {
        const last = options.mayLack ? undefined : earlier.last
        refuseLost({ last, sources, database, existing })
      }
      inCurrent = 0
      dbs[apiKey(database)] = summary
      options.progress.finished(summary.doc_count, summary.raw_bytes)
      progress.now()
      options.onPhase({
        type: 'backup_database_finished',
        database,
        durationMs: performance.now() - startedAt,
        summary
      })
    }
  } finally {
    await progress.settle()
  }
  const isBased = Object.values(dbs).some(({ base }) => base !== undefined)
  return backup.finish(dbs, isBased ? base : undefined)
}

/** Tells `progress` to expect as much as the last complete backup holds. */
function expectAsIn(last: LoadedBackup | undefined, progress: Progress): void {
  const held: Partial<DatabaseSummary>[] = Object.values(last?.header.dbs ?? {})
  const sum = (member: 'doc_count' | 'raw_bytes') =>
    held.reduce((total, database) => total + (database[member] ?? 0), 0)
  progress.expect(sum('doc_count'), sum('raw_bytes'))
}

interface LostDatabase {
  /** The newest complete backup of the same source databases, if any. */
  last: LoadedBackup | undefined
  sources: Record<LogicalDatabase, CouchDatabase>
  database: LogicalDatabase
  /** Names of the databases, but for the first, that existed when the backup began. */
  existing: ReadonlySet<string>
}

async function namesOfExisting(sources: readonly CouchDatabase[]): Promise<Set<string>> {
  const found = await Promise.all(sources.map((source) => source.find()))
  return new Set(sources.filter((_source, i) => found[i]).map(({ name }) => name))
}

/**
 * Refuses a missing database that was lost: one that existed when the backup began, or of which the last complete
 * backup holds documents. Backups without it would replace good ones. @throws MissingDatabaseError
 */
function refuseLost(lost: LostDatabase): void {
  const { last, sources, database, existing } = lost
  if (existing.has(sources[database].name))
    throw new MissingDatabaseError(`database "${sources[database].name}" was deleted while the backup ran`)
  if (!last || !holdsDocuments(last, lost)) return
  throw new MissingDatabaseError(
    `database "${sources[database].name}" does not exist, but backup "${last.id}" holds documents of it: restore them, check option "databases.${database}", or create the database if it is to be empty`
  )
}

function holdsDocuments({ header }: LoadedBackup, { sources, database }: LostDatabase): boolean {
  const { components, sessions, system } = sources
  const names = { components: components.name, sessions: sessions.name, system: system.name }
  const key = Object.keys(header.dbs).find((name) => databaseOfKey(name, names) === database)
  // Athena's backups do not always count documents.
  return key !== undefined && header.dbs[key].doc_count !== 0
}
