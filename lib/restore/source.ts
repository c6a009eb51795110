import type { LogicalDatabase } from '../../types/databases.js'
import type { DocumentBytes } from '../json/document.js'
import type { LargeDocument } from './large-document.js'

export type SourceDocument = DocumentBytes | LargeDocument

export const isLarge = (document: SourceDocument): document is LargeDocument => 'path' in document

/** A whole, checked backup to restore from. Every document comes once. */
export interface RestoreSource {
  /** Databases in the backup. */
  readonly databases: readonly LogicalDatabase[]
  /** How many documents a database has. */
  count(database: LogicalDatabase): number
  /**
   * The documents of a database, in groups small enough to be handled without a pause.
   * @param design only design documents, or only the others
   */
  documents(database: LogicalDatabase, design: boolean): AsyncIterable<SourceDocument[]>
  /** Removes what the source keeps on disk. */
  close(): Promise<void>
}

/** Documents in a group. */
export const GROUP = 250
