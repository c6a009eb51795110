import type { DatabaseSummary, Requester } from '../../types/backups.js'
import type { LogicalDatabase } from '../../types/databases.js'
import type { BackupPhase } from '../../types/events.js'
import type { CouchDatabase } from '../couch/database.js'
import { apiKey, LOGICAL_DATABASES } from '../databases.js'
import { BackupDeletedError } from '../errors.js'
import { BACKUP_TYPE } from '../own-documents.js'
import { type HeaderDocument, LAYOUT, listing, type StoredDatabase } from '../repository/layout.js'
import type { Repository } from '../repository/repository.js'
import { backupDatabase } from './database-backup.js'
import { namesOfExisting, refuseLost } from './lost-database.js'

/** Milliseconds between two writes of a running backup's header. */
const PROGRESS_INTERVAL = 2000

/** Version of what the API sends as a backup. */
const BACKUP_VERSION = '1.0.0'

export interface BackupJobOptions {
  id: string
  sources: Record<LogicalDatabase, CouchDatabase>
  repository: Repository
  excludeTypes: ReadonlySet<string>
  onUnreadable: 'report' | 'fail'
  onPhase: (phase: BackupPhase) => void
}

/** Returns the header of a backup that has just begun. */
export const newHeader = (about: {
  instance: string
  /** Real name of the system database. */
  system: string
  versions: Record<string, unknown>
  requester?: Requester
}): HeaderDocument => ({
  type: BACKUP_TYPE,
  backup_version: BACKUP_VERSION,
  ibp_versions: about.versions,
  ...(about.requester && { requester: about.requester }),
  doc_count: 0,
  dbs: {},
  in_progress: true,
  start_timestamp: Date.now(),
  storage: { layout: LAYOUT, instance: about.instance, system: about.system, databases: {} }
})

/**
 * Backs up all databases, one after another, into an existing header, and checks that everything was stored.
 * The header is finished when this resolves; when it rejects, see {@link markFailed}.
 */
export async function runBackup(options: BackupJobOptions): Promise<void> {
  const { id, sources, repository, excludeTypes, onUnreadable } = options
  const beganAt = performance.now()
  const dbs: Record<string, DatabaseSummary> = {}
  const databases: Partial<Record<LogicalDatabase, StoredDatabase>> = {}
  const finished = () => Object.values(dbs).reduce((sum, db) => sum + db.doc_count, 0)
  let running = 0
  const update = (change: (header: HeaderDocument) => HeaderDocument) =>
    repository.update(id, (header) => {
      // Not the one that this backup began with.
      if (!header.in_progress) throw new BackupDeletedError(id)
      return change(header)
    })
  const progress = new ProgressWriter(() =>
    update((header) => ({ ...header, doc_count: finished() + running, dbs }))
  )
  try {
    // Not of the first, which is read now.
    const existing = await namesOfExisting(LOGICAL_DATABASES.slice(1).map((database) => sources[database]))
    for (const database of LOGICAL_DATABASES) {
      const startedAt = performance.now()
      const { summary, stored } = await backupDatabase({
        source: sources[database],
        repository,
        backup: id,
        database,
        excludeTypes,
        onUnreadable,
        onProgress(documents) {
          running = documents
          progress.due()
        }
      })
      if (stored) databases[database] = stored
      else await refuseLost({ id, sources, repository, database, existing })
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
  await repository.parts.check(id, Object.values(databases))
  const took = Math.round(performance.now() - beganAt)
  await update((header) => ({
    ...listing(header, databases),
    doc_count: finished(),
    dbs,
    in_progress: false,
    // The clock may have been set meanwhile.
    end_timestamp: header.start_timestamp + took,
    elapsed: elapsed(took)
  }))
}

/**
 * Ends a backup that did not succeed: the header says why, and holds nothing; its parts are deleted, also when the header
 * is gone. A backup that is complete, because only what came after its end failed, is left as it is.
 *
 * @param took milliseconds, where this instance has made it
 */
export async function markFailed(
  repository: Repository,
  id: string,
  reason: string,
  took?: number
): Promise<void> {
  let complete = false
  try {
    await repository.update(id, (header) => {
      complete = !header.in_progress && header.error === undefined
      return header.in_progress ? failed(header, reason, took) : null
    })
  } catch (error) {
    if (!(error instanceof BackupDeletedError)) throw error
  }
  if (!complete) await repository.parts.remove(id)
}

function failed(header: HeaderDocument, reason: string, took?: number): HeaderDocument {
  const start = header.start_timestamp
  // Another instance began it, whose clock may be ahead, unless the time is known that it took.
  const end = took === undefined ? Math.max(Date.now(), start) : start + Math.round(took)
  return {
    ...listing(header, {}),
    doc_count: 0,
    dbs: {},
    in_progress: false,
    error: reason,
    end_timestamp: end,
    elapsed: elapsed(end - start)
  }
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

  /** Writes when it is time. @throws what the last write threw: a backup whose header is gone need not go on */
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

const UNITS: readonly [name: string, ms: number][] = [
  ['days', 86_400_000],
  ['hours', 3_600_000],
  ['mins', 60_000],
  ['secs', 1000]
]

/** Returns a duration for people: `"23.8 secs"`. */
function elapsed(ms: number): string {
  const unit = UNITS.find(([, size]) => ms >= size)
  return unit ? `${(ms / unit[1]).toFixed(1)} ${unit[0]}` : `${Math.round(ms)} ms`
}
