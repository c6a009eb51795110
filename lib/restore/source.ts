import type { LogicalDatabase } from '../../types/databases.js'
import type { AboutDatabase } from '../format/about-database.js'
import type { DocumentBytes } from '../json/document.js'
import type { LargeDocument } from './large-document.js'

export type LiveDocument = DocumentBytes & { rev: string }

export const isLive = (document: DocumentBytes): document is LiveDocument =>
  !document.deleted && document.rev !== undefined

export type SourceDocument = DocumentBytes | LargeDocument

export const isLarge = (document: SourceDocument): document is LargeDocument => 'parts' in document

/** Returns what is known of a document; of a large one, its attachments' data are left out. */
export const headOf = (document: SourceDocument): DocumentBytes =>
  isLarge(document) ? document.head : document

/** A whole, checked backup to restore from. Every document comes once. */
export interface RestoreSource {
  /**
   * What shows that a database holds a document already. A revision does where CouchDB made it from what the backup
   * holds; an upload only claims its revisions, so content is compared, and the database makes its own.
   */
  readonly proof: 'revision' | 'content'
  readonly databases: readonly LogicalDatabase[]
  /** What the backup tells of a database beside its documents. */
  about(database: LogicalDatabase): AboutDatabase
  count(database: LogicalDatabase): number
  /**
   * Yields the documents of a database in groups. The bytes of a group are valid until the next is asked for.
   * @param design only design documents, or only the others
   */
  documents(database: LogicalDatabase, design: boolean): AsyncIterable<SourceDocument[]>
  /** Removes what the source keeps on disk. */
  close(): Promise<void>
}
