import { Type } from '@sinclair/typebox'
import type { DatabaseNames, LogicalDatabase } from '../types/databases.js'

/** Databases in the order of backups and restores. */
export const LOGICAL_DATABASES: readonly LogicalDatabase[] = ['components', 'sessions', 'system']

/** Schema of the names that CouchDB takes for a database. */
export const DatabaseName = Type.String({ pattern: '^[a-z][a-z0-9_$()+/-]*$', maxLength: 238 })

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
