import type { LogicalDatabase } from './databases.js'

/** A value for each database, or for some. */
export type ByDatabase<T> = Partial<Record<LogicalDatabase, T>>

/** Documents of one database: those that meet every member that is given. */
export interface DocumentChoice {
  /** Ids of the documents. Ids that no document has are told in `only_unknown` or `skip_unknown`. */
  ids?: readonly string[]
  /** Values of the documents' member `type`. */
  types?: readonly string[]
  /** A Mango selector that the documents match, as in `_find` of CouchDB. docs/selectors.md tells what it may have. */
  selector?: Record<string, unknown>
}

/** A change that a restore would make to a document. */
export interface DocumentChange {
  database: LogicalDatabase
  id: string
  change: 'created' | 'changed' | 'deleted'
}

/** A change, as passed to `onChange`. */
export interface FoundChange extends DocumentChange {
  /**
   * The top-level members of a changed document that differ; empty where they only stand in another
   * order. `_attachments` is told only where nothing else differs.
   */
  fields?: string[]
  /** More members differ, or a name is cut: at most 100 are told, and 4 KiB of names. */
  fields_truncated?: true
}
