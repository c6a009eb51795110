import type { LogicalDatabase } from './databases.js'

/** Something of each database, or of some. */
export type ByDatabase<T> = Partial<Record<LogicalDatabase, T>>

/** Documents of one database: those that meet every member that is given. */
export interface DocumentChoice {
  /** Their ids. Those that no document has are told in `only_unknown` or `skip_unknown`. */
  ids?: readonly string[]
  /** Values of their member `type`. */
  types?: readonly string[]
  /** A Mango selector that they match, as in `_find` of CouchDB. See docs/selectors.md for what is known of it. */
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
