import type { DatabaseSummary } from '../../types/backups.js'
import type { LogicalDatabase } from '../../types/databases.js'
import type { BackupPhase } from '../../types/events.js'
import type { CouchDatabase } from '../couch/database.js'
import { apiKey, LOGICAL_DATABASES } from '../databases.js'
import type { LoadedBackup } from '../repository/loaded-backup.js'
import type { Repository } from '../repository/repository.js'
import { backupDatabase } from './database-backup.js'
import { namesOfExisting, refuseLost } from './lost-database.js'

/** Milliseconds between two writes of a running backup's header. */
const PROGRESS_INTERVAL = 2000

export interface BackupJobOptions {
  id: string
  sources: Record<LogicalDatabase, CouchDatabase>
  repository: Repository
  excludeTypes: ReadonlySet<string>
  onUnreadable: 'report' | 'fail'
  onPhase: (phase: BackupPhase) => void
}

/** Backs up the databases one by one, and checks what was stored. If this rejects, fail the backup. */
export async function runBackup(options: BackupJobOptions): Promise<LoadedBackup> {
  const { id, sources, repository, excludeTypes, onUnreadable } = options
  const backup = repository.running(id)
  const dbs: Record<string, DatabaseSummary> = {}
  let running = 0
  const progress = new ProgressWriter(() => backup.progress(dbs, running))
  try {
    // Except the first, which is read now.
    const existing = await namesOfExisting(LOGICAL_DATABASES.slice(1).map((database) => sources[database]))
    for (const database of LOGICAL_DATABASES) {
      const startedAt = performance.now()
      const summary = await backupDatabase({
        source: sources[database],
        backup,
        database,
        excludeTypes,
        onUnreadable,
        onProgress(documents) {
          running = documents
          progress.due()
        }
      })
      if (summary.missing) await refuseLost({ id, sources, repository, database, existing })
      running = 0
      dbs[apiKey(database)] = summary
      progress.check()
      options.onPhase({
        type: 'backup_database_finished',
        database,
        durationMs: performance.now() - startedAt,
        summary
      })
    }
  } finally {
    await progress.stop()
  }
  return backup.finish(dbs)
}

/** Writes progress at most once an interval, never two writes at a time. */
class ProgressWriter {
  readonly #write: () => Promise<void>
  #last = performance.now()
  #writing: Promise<void> = Promise.resolve()
  #busy = false
  #failure: { error: unknown } | undefined

  constructor(write: () => Promise<void>) {
    this.#write = write
  }

  /** Writes when it is time. @throws what the last write threw: a backup without a header need not go on */
  due(): void {
    if (this.#failure) throw this.#failure.error
    if (this.#busy || performance.now() - this.#last < PROGRESS_INTERVAL) return
    this.#last = performance.now()
    this.#start()
  }

  /** Writes now, unless a write is under way. @throws what the last write threw */
  check(): void {
    if (this.#failure) throw this.#failure.error
    if (!this.#busy) this.#start()
  }

  async stop(): Promise<void> {
    this.#busy = true
    await this.#writing
  }

  #start(): void {
    this.#busy = true
    this.#writing = this.#write().then(
      () => {
        this.#busy = false
      },
      (error: unknown) => {
        this.#failure = { error }
      }
    )
  }
}
