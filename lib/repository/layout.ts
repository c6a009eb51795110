import type { DatabaseSummary, Requester } from '../../types/backups.js'
import type { LogicalDatabase } from '../../types/databases.js'
import type { StubMembers } from '../json/attachments.js'
import type { BACKUP_TYPE, CHUNK_TYPE, MANIFEST_TYPE } from '../own-documents.js'

/** How backups of this version lie in CouchDB. Increased when older versions of this package could not read it. */
export const LAYOUT = 2

/** Bytes of lines in a chunk, unless it holds one document that is larger. */
export const CHUNK_BYTES = 2 * 1024 * 1024
export const CHUNK_ATTACHMENT = 'documents.ndjson.gz'
export const CHUNK_CONTENT_TYPE = 'application/gzip'

export interface ChunkEntry {
  id: string
  rev: string
  /** Documents (lines) in it. */
  docs: number
  /** Design documents among them. */
  design: number
  /** Bytes of the lines, line ends included. */
  raw: number
  /** Bytes of the attachment. */
  stored: number
  /** SHA-256 of the attachment's bytes, hex. */
  sha256: string
  /** Which document is in it, when it is one that is too large to be held in memory: see `largeKey`. */
  large?: string
}

/** Where the rest of a long list of chunks is. */
export interface ManifestEntry {
  id: string
  chunks: number
  sha256: string
}

export interface ManifestDocument {
  type: typeof MANIFEST_TYPE
  backup_id: string
  database: LogicalDatabase
  /** JSON of `ChunkEntry[]`: text, so that its digest can be checked. */
  entries: string
}

export interface ChunkDocument {
  type: typeof CHUNK_TYPE
  backup_id: string
  database: LogicalDatabase
  index: number
}

/** How one database of a backup is stored. */
export interface StoredDatabase {
  /** Older entries, moved out of the header. In order, before `chunks`. */
  manifests: ManifestEntry[]
  chunks: ChunkEntry[]
  /**
   * Chunks of lines `[key, ordinal]`: the last copy of a document that changed while it was being read; -1: deleted. The
   * key is the id, or what `largeKey` makes of a long one; earlier versions wrote ids of any length.
   */
  superseded: ChunkEntry[]
}

/** The header document as it lies in CouchDB. */
export interface HeaderDocument {
  type: typeof BACKUP_TYPE
  backup_version: string
  ibp_versions: Record<string, unknown>
  /** Absent where nobody asked; earlier versions did not tell. */
  requester?: Requester
  doc_count: number
  dbs: Record<string, DatabaseSummary>
  in_progress: boolean
  start_timestamp: number
  end_timestamp?: number
  elapsed?: string
  error?: string
  storage: {
    layout: number
    /** The server instance that writes this backup. */
    instance: string
    /** Real name of the system database that was backed up, where the lease lies. Earlier versions did not tell. */
    system?: string
    databases: Partial<Record<LogicalDatabase, StoredDatabase>>
  }
  _attachments?: Record<string, StubMembers>
}

export interface StoredHeader extends HeaderDocument {
  _id: string
  _rev: string
}

/**
 * Returns whether a backup is of other source databases: the lease of these does not tell whether it runs.
 * @param system real name of these databases' system database
 */
export const isOfOthers = ({ storage }: HeaderDocument, system: string): boolean =>
  storage.system !== undefined && storage.system !== system

/** Returns a header that lists what is stored of these databases, and nothing else. */
export const listing = (
  header: HeaderDocument,
  databases: HeaderDocument['storage']['databases']
): HeaderDocument => ({ ...header, storage: { ...header.storage, databases } })
