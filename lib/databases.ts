import type { DatabaseNames, LogicalDatabase } from '../types/databases.js'

/** Returns a value for each database, in the order in which they are backed up and restored. */
export const byDatabase = <T>(make: (database: LogicalDatabase) => T): Record<LogicalDatabase, T> => ({
  components: make('components'),
  sessions: make('sessions'),
  system: make('system')
})

/** The databases, in the order in which they are backed up and restored. */
export const LOGICAL_DATABASES: readonly LogicalDatabase[] = Object.values(byDatabase((database) => database))

/** A server: that of the source databases, that of the backups if they have one of their own, or that of a copy. */
export type CouchServer = 'databases' | 'backups' | 'destination'

/** Returns what people call a server. */
export const nameOfServer = (server: CouchServer): string => `the CouchDB of the ${server}`

/** Matches the names that CouchDB takes for a database. */
export const DATABASE_NAME = /^[a-z][a-z0-9_$()+/-]{0,237}$/

/** Precedes the names of scratch databases: no database of a host may be named so. */
export const SCRATCH_PREFIX = 'db_backups_scratch_'

/** Returns a database's key in the API, the same on every console, so that backups can move. */
export const apiKey = (database: LogicalDatabase): string => `athena_${database}`

/** Finds the database of a key of `dbs`, in every spelling that backups have used. */
export function databaseOfKey(key: string, names: DatabaseNames): LogicalDatabase | undefined {
  return LOGICAL_DATABASES.find(
    (database) =>
      key === names[database] ||
      key === apiKey(database) ||
      key === database ||
      key === `DB_${database.toUpperCase()}`
  )
}
