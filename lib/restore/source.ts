import type { LogicalDatabase } from '../../types/databases.js'
import type { AboutDatabase } from '../format/about-database.js'
import type { DocumentBytes } from '../json/document.js'
import type { LargeDocument } from './large-document.js'

export type LiveDocument = DocumentBytes & { rev: string }

export const isLive = (document: DocumentBytes): document is LiveDocument =>
  !document.deleted && document.rev !== undefined

export type SourceDocument = DocumentBytes | LargeDocument

export const isLarge = (document: SourceDocument): document is LargeDocument => 'parts' in document

/** Returns what is known of a document. The head of a large one lacks its attachments' data. */
export const headOf = (document: SourceDocument): DocumentBytes =>
  isLarge(document) ? document.head : document

/** A whole, checked backup to restore from. Every document comes once. */
export interface RestoreSource {
  /** The proof that a document is there: its revision, or its content where an upload claims revisions. */
  readonly proof: 'revision' | 'content'
  readonly databases: readonly LogicalDatabase[]
  about(database: LogicalDatabase): AboutDatabase
  count(database: LogicalDatabase): number
  /** Returns the bytes of a database's documents, where they are known before they are read. */
  bytes(database: LogicalDatabase): number | undefined
  /** Yields groups of design documents, or of others. A group is valid until the next is asked for. */
  documents(database: LogicalDatabase, design: boolean): AsyncIterable<SourceDocument[]>
  close(): Promise<void>
}
