import type { LogicalDatabase } from '../../types/databases.js'
import type { CouchDatabase } from '../couch/database.js'
import { databaseOfKey } from '../databases.js'
import { MissingDatabaseError } from '../errors.js'
import type { LoadedBackup } from '../repository/loaded-backup.js'

interface LostDatabase {
  /** The newest complete backup of the same source databases, if any. */
  last: LoadedBackup | undefined
  sources: Record<LogicalDatabase, CouchDatabase>
  database: LogicalDatabase
  /** Names of the databases still to be backed up that existed at the beginning. */
  existing: ReadonlySet<string>
}

export async function namesOfExisting(sources: readonly CouchDatabase[]): Promise<Set<string>> {
  const found = await Promise.all(sources.map((source) => source.find()))
  return new Set(sources.filter((_source, i) => found[i]).map(({ name }) => name))
}

/**
 * Checks that the last complete backup holds nothing of a missing database, which was lost otherwise: backups
 * without it would replace good ones. @throws MissingDatabaseError
 */
export function refuseLost(lost: LostDatabase): void {
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
