import type { Readable } from 'node:stream'
import type { LogicalDatabase } from './databases.js'

/** The other side of a comparison, and what to tell of the differences. */
export interface DiffOptions {
  /** `"now"`: the databases as they are; or the id of another backup. */
  against: string
  /** The databases to compare. Default: all. */
  databases?: readonly LogicalDatabase[]
  /** Also tell the values of the members that differ, see {@link DocumentDiff.values}. Default `false`. */
  values?: boolean
  /** Ends the stream with its reason. */
  signal?: AbortSignal
}

/** A member that differs, and its values. */
export interface FieldValues {
  field: string
  /** JSON text, as the database sent it. Absent where the member is not there, or too long. */
  before?: string
  /** JSON text, as the database sent it. Absent where the member is not there, or too long. */
  after?: string
  /** A value is left out: it takes more than 1,024 bytes, or all told of the document more than 16 KiB. */
  truncated?: true
}

/** A document that differs. `before` is the backup, `after` is what it is compared with, whatever that is. */
export interface DocumentDiff {
  database: LogicalDatabase
  /** The first bytes of the id, at most 512. */
  id: string
  /** Set when the id is longer. */
  id_truncated?: true
  /**
   * - `created`: not in the backup, but in what it is compared with.
   * - `changed`: in both, with other members or attachments.
   * - `deleted`: in the backup, but not in what it is compared with.
   * - `unknown`: one of the two could not be read; `reason` tells which and why.
   */
  change: 'created' | 'changed' | 'deleted' | 'unknown'
  /**
   * Names of a changed document's top-level members that differ; `_attachments` where a name, content type, length or
   * content of an attachment does. Never `_rev`. Empty where members only stand in another order.
   */
  fields?: string[]
  /** More members differ, or a name is cut: at most 100 are told, and 4 KiB of names. */
  fields_truncated?: true
  /**
   * Bytes of the document: of the names and values of its members but id and revision, and of its attachments as they are
   * downloaded. Those of an attachment whose length the database does not know are left out.
   */
  bytes: { before?: number; after?: number }
  /** Values of the members in `fields`, or of all of a created or deleted document. Only with the option `values`. */
  values?: FieldValues[]
  /** More members differ than are told. */
  values_truncated?: true
  /** Why a document is `unknown`. */
  reason?: string
}

/**
 * The documents that differ, in no order, each once. Nothing is read before the first read of the stream, and only as fast
 * as it is read. It ends when all were told; any failure destroys it with its error.
 */
export interface DiffStream extends Readable {
  [Symbol.asyncIterator](): NodeJS.AsyncIterator<DocumentDiff>
}
