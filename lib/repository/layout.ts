import type { DamagedBackup, DatabaseSummary, LastVerification, Requester } from '../../types/backups.js'
import type { LogicalDatabase } from '../../types/databases.js'
import type { CouchDatabase } from '../couch/database.js'
import type { StubMembers } from '../json/attachments.js'
import type { BACKUP_TYPE, CHUNK_TYPE, MANIFEST_TYPE } from '../own-documents.js'
import type { Keyring } from '../seal/keyring.js'
import type { KeyedMutex } from '../waits/keyed-mutex.js'
import { type Codec, sha256Of } from './codec.js'

/** Version of the layout. Increased when older versions of this package could not read a backup. */
export const LAYOUT = 4

/** The layouts that are written: of backups that are not sealed, and of those that are. */
export const PLAIN_LAYOUT = 3
export const SEALED_LAYOUT = LAYOUT

/** Bytes of lines in most chunks. */
export const CHUNK_BYTES = 2 * 1024 * 1024

/** The database that keeps backups, and how they are stored in it. */
export interface Store {
  db: CouchDatabase
  codec: Codec
  /** Gives the keys of sealed backups. Absent where nothing is sealed. */
  keyring?: Keyring
  /** Runs changes of a header one after another. */
  headerMutex: KeyedMutex
  /** Gives the time in milliseconds since the epoch. */
  now: () => number
  /** Bytes of lines in a chunk, unless it holds one document that is larger. */
  chunkBytes: number
}

export interface ChunkEntry {
  id: string
  rev: string
  docs: number
  /** Design documents among `docs`. */
  design: number
  /** Bytes of the lines, line ends included. */
  raw: number
  /** Bytes of the attachment. */
  stored: number
  /** SHA-256 of the attachment's bytes, hex. */
  sha256: string
  /** The key (see `largeKey`) of the one document of a chunk that is too large for memory, sealed where the chunk is. */
  large?: string
  /** Id of the key that the chunk is sealed with. Absent where it is not sealed. */
  sealed?: string
  /** Id of the chunk before it was first sealed anew. Indexes know it by this id. */
  was?: string
  /** Present where the chunk has less than half the usual bytes, and no more were taken. */
  whole?: true
  /** Lines (see `encodeLines`) whose documents had conflicting revisions. Absent where none had. */
  conflicts?: string
  /** The lines that do not count in the backup that lists the chunk. Absent where all lines count. */
  dead?: DeadLines
}

export interface DeadLines {
  docs: number
  raw: number
  /** See `encodeLines`. */
  lines: string
}

/** The identity of the database that was read, as its server tells. Any other value shows another database. */
export interface SourceIdentity {
  name: string
  created: string
  /** Purged documents are in no changes feed. */
  purges: string
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

export interface StoredDatabase {
  /** Older entries, moved out of the header. In order, before `chunks`. */
  manifests: { id: string; chunks: number; sha256: string }[]
  chunks: ChunkEntry[]
  /**
   * Chunks of lines `[key, ordinal]`, only in layout 2: the last version of a document that changed during the
   * backup; -1: deleted. The key is the id, or `largeKey` of a long one; earlier versions wrote ids of any
   * length.
   */
  superseded: ChunkEntry[]
  /** Chunks of lines by which the next backup finds versions: see `IndexWriter`. Absent in layout 2. */
  index?: ChunkEntry[]
  /** The key of the index's fingerprints, in hex. Absent in layout 2. */
  key?: string
  /** Ids of the keys that the chunks, those of the index among them, are sealed with. Absent where none is sealed. */
  sealed?: string[]
  /** Absent in layout 2, and where the server does not tell enough to read changes later. */
  source?: SourceIdentity
}

/** The seal of a header, which keeps others from reading or changing it. */
export interface HeaderSeal {
  /** Id of the key of the header itself. */
  key: string
  /** Ids of all keys that its chunks need, and their check values. */
  keys: Record<string, string>
  /** The header's texts with ids of documents, sealed. */
  texts?: string
  /** MAC of the header. Absent until the backup has ended. */
  mac?: string
}

/** Returns the id by which indexes know a chunk. */
export const nameOf = ({ id, was = id }: ChunkEntry): string => was

/** Returns the ids of the keys that chunks are sealed with, as a database tells them. */
export function keysOf(entries: readonly ChunkEntry[]): Pick<StoredDatabase, 'sealed'> {
  const sealed = new Set(entries.flatMap(({ sealed = [] }) => sealed))
  return sealed.size > 0 ? { sealed: [...sealed] } : {}
}

/** Returns the digest of what a header tells of its databases and lists for them: somebody may edit it later. */
export const contentDigest = (dbs: object, databases: object): string =>
  sha256Of(JSON.stringify({ dbs, databases }))

/** Returns the bytes of a chunk's lines that count. */
export const liveBytes = ({ raw, dead }: ChunkEntry): number => raw - (dead?.raw ?? 0)

/** Returns whether a chunk with so many bytes of lines should be joined with others. @param usual those of most */
export const isSmall = (bytes: number, usual: number): boolean => bytes < usual / 2

/** Returns the sum of what `of` tells of each item. */
export const sum = <T>(items: readonly T[], of: (item: T) => number): number =>
  items.reduce((total, item) => total + of(item), 0)

/** Returns how many documents of a chunk count. */
export const liveDocuments = ({ docs, dead }: ChunkEntry): number => docs - (dead?.docs ?? 0)

export interface HeaderDocument {
  type: typeof BACKUP_TYPE
  backup_version: string
  ibp_versions: Record<string, unknown>
  /** Absent where nobody asked; earlier versions did not tell. */
  requester?: Requester
  note?: string
  /** Pruning keeps it. */
  protected?: true
  doc_count: number
  dbs: Record<string, DatabaseSummary>
  in_progress: boolean
  start_timestamp: number
  end_timestamp?: number
  elapsed?: string
  error?: string
  /** Id of the backup whose chunks it shares. Absent where it was read in full. */
  base?: string
  /** Backups before it that were each the base of the next. */
  chain_length?: number
  /** Bytes that it has added to the database that keeps it. */
  added_bytes?: number
  /** The damage that a verification has found. Absent where none was found, or all is whole again. */
  damaged?: DamagedBackup
  /** The last verification that came to its end. */
  verified?: LastVerification
  storage: {
    layout: number
    /** The server instance that writes this backup. */
    instance: string
    /** Real name of the system database. Absent in headers of earlier versions. */
    system?: string
    /** Id of the console that makes it. Backups of earlier versions have it only where they lie on another server. */
    console?: string
    /** The transaction of the restore before which it was made, to take that back. */
    before_restore?: string
    databases: Partial<Record<LogicalDatabase, StoredDatabase>>
    /** See {@link contentDigest}. Absent in layout 2, and until the backup has ended. */
    sha256?: string
    /** Absent where the backup is not sealed. */
    seal?: HeaderSeal
  }
  _attachments?: Record<string, StubMembers>
}

export interface StoredHeader extends HeaderDocument {
  _id: string
  _rev: string
}

/** A header as its readers see it. Headers of backups that athena made may hold anything. */
export interface ToldHeader {
  in_progress?: boolean
  error?: unknown
  dbs: Record<string, Record<string, unknown>>
  [member: string]: unknown
}

/** A header as it was read, without the documents that athena's have inside. */
export interface Head extends ToldHeader {
  _id: string
  _rev: string
  _attachments?: Record<string, StubMembers>
  damaged?: DamagedBackup
  verified?: LastVerification
  /** Absent in a backup of athena's. */
  storage?: StoredHeader['storage']
}
