import { Type } from '@sinclair/typebox'
import type { LogicalDatabase } from '../types/databases.js'

/** In the order in which they are backed up and restored. */
export const LOGICAL_DATABASES: readonly LogicalDatabase[] = ['components', 'sessions', 'system']

/** Schema of the names that CouchDB takes for a database. */
export const DatabaseName = Type.String({ pattern: '^[a-z][a-z0-9_$()+/-]*$', maxLength: 238 })
