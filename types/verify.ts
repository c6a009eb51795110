import type { LogicalDatabase } from './databases.js'

/**
 * How far a backup is verified. `structure`: its header, its manifests, whether every chunk is there, counts and
 * references. `data`: also every byte against its digest, and every line: each is a document, counts are exact, none
 * comes twice. `restore`: also restored into scratch databases, and compared with them document by document.
 */
export type VerifyDepth = 'structure' | 'data' | 'restore'

/** How a backup is verified. */
export interface VerifyOptions {
  /** Default `data`. */
  depth?: VerifyDepth
  /** Goes on where a verification of the same backup and depth was interrupted: `position` of a VerifyInterruptedError. */
  from?: string
  /** Interrupts the verification. */
  signal?: AbortSignal
}

/** Something that is wrong with a backup. */
export interface VerifyProblem {
  database: LogicalDatabase
  /**
   * The part that is wrong: the header, a manifest (entries of chunks), a chunk of documents, the `index` by which the
   * next backup finds documents (they are whole without it), or a document that could not be restored as it is stored.
   */
  part: 'header' | 'manifest' | 'chunk' | 'index' | 'document'
  /** Id of the part's document in the database that keeps the backups, or of the document itself. */
  id: string
  reason: string
  /** Ids of the first documents that are concerned, at most 10, where they are known. Long ones are cut, and say so. */
  documents?: string[]
  /** All backups that share the part, at most 100, this one first. */
  backups: string[]
}

/** The counts of what was verified of one database. */
export interface VerifiedDatabase {
  /** Chunks of documents; with `structure`, those that are listed. */
  chunks: number
  documents: number
  /** Bytes of the documents' JSON. */
  bytes: number
  /** Documents that were restored and compared. Only with `restore`. */
  restored?: number
}

/** The result of a verification, and of those that it goes on from: what was checked, and what is wrong. */
export interface VerifyReport {
  /** The backup. */
  id: string
  depth: VerifyDepth
  /** Whether nothing is wrong. */
  good: boolean
  /** Whether all was looked at: a verification ends early when 1,000 parts are damaged. */
  complete: boolean
  /** When the verification ended, in milliseconds since the epoch. */
  at: number
  /** How long the verification ran, in milliseconds, without the time between interruptions. */
  duration_ms: number
  databases: Partial<Record<LogicalDatabase, VerifiedDatabase>>
  problem_count: number
  /** The first problems, at most 100. */
  problems: VerifyProblem[]
}
