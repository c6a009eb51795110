import type { DatabaseNames, LogicalDatabase } from '../../types/databases.js'
import { LOGICAL_DATABASES } from '../databases.js'

export { LOGICAL_DATABASES }

const BACKUP_PREFIX = '03_ibp_db_backup_'
export const BACKUP_TYPE = 'athena_backup'
export const CHUNK_TYPE = 'athena_backup_chunk'
export const MANIFEST_TYPE = 'athena_backup_manifest'
export const LEASE_TYPE = 'athena_backup_lease'
export const LEASE_ID = 'athena_backup_lease'
export const NOTICE_TYPE = 'athena_backup_notice'
/** Type of the documents that tell how operations go, restores among them. */
export const TRANSACTION_TYPE = 'webhook_tx'

const OWN_TYPES: readonly string[] = [BACKUP_TYPE, CHUNK_TYPE, MANIFEST_TYPE, LEASE_TYPE, NOTICE_TYPE]
const SESSION_TYPE = 'session_athena'

/** Types that are never backed up: backups themselves, and what athena leaves out. */
export const EXCLUDED_TYPES: readonly string[] = [
  ...OWN_TYPES,
  SESSION_TYPE,
  'pillow_talk_doc',
  'json_validation'
]

/** Types of documents that a backup left out, as it tells them: of those of backups nobody need be told. */
export const toldExcluded = (types: Iterable<string>): string[] =>
  [...types].filter((type) => !OWN_TYPES.includes(type))

/** Types that are never restored from an upload: backups, which stay where they are, and logins. */
export const INTERNAL_TYPES: ReadonlySet<string> = new Set([...OWN_TYPES, SESSION_TYPE])

const BACKUP_ID = /^03_ibp_db_backup_[0-9]{1,20}$/
const RESERVED_ID =
  /^(athena_backup_lease|athena_backup_notice_[0-9a-f]+|03_ibp_db_backup_[0-9]{1,20}|backup_(chunk|manifest)_[0-9]{1,20}_(components|sessions|system)_[0-9]{6,})$/

export const isBackupId = (id: string): boolean => BACKUP_ID.test(id)

/**
 * Whether a document is a header, chunk, manifest, lease or notice, of this version or of athena. Only the database that
 * keeps backups and the system database have such documents: anywhere else, and with a type of its own there as well, a
 * document of such an id is the console's.
 */
export const isOwnDocument = (id: string, type: string | undefined): boolean =>
  type !== undefined && OWN_TYPES.includes(type) && RESERVED_ID.test(id)

/** @param stamp milliseconds since the epoch, but for a backup that began when the clock had been ahead */
export const backupId = (stamp: bigint): string => `${BACKUP_PREFIX}${stamp}`

/** Ids in a row that other documents have, before the database is not believed: it answers a conflict to everything. */
export const TAKEN_IDS = 100

const serial = (index: number) => String(index).padStart(6, '0')
const stampOf = (id: string) => id.slice(BACKUP_PREFIX.length)

/** Returns the number in the id of a backup: about when it began, in milliseconds since the epoch. */
export const stampIn = (id: string): bigint => BigInt(stampOf(id))

/** Ids have at most so many digits. */
const LAST_STAMP = 10n ** 20n - 1n

/**
 * Returns the number for the id of a new backup: later than `newest`, whatever the clock says.
 * @param now milliseconds since the epoch
 */
export function stampAfter(newest: bigint, now: number): bigint {
  const next = newest >= BigInt(now) ? newest + 1n : BigInt(now)
  return next <= LAST_STAMP ? next : BigInt(now)
}

export const chunkId = (id: string, database: LogicalDatabase, index: number): string =>
  `backup_chunk_${stampOf(id)}_${database}_${serial(index)}`

export const manifestId = (id: string, database: LogicalDatabase, index: number): string =>
  `backup_manifest_${stampOf(id)}_${database}_${serial(index)}`

/** Ranges of ids that hold all chunks and manifests of a backup, or of one database in it. */
export const partRanges = (id: string, database?: LogicalDatabase): { from: string; to: string }[] =>
  ['chunk', 'manifest'].map((kind) => {
    const prefix = `backup_${kind}_${stampOf(id)}_${database === undefined ? '' : `${database}_`}`
    return { from: prefix, to: `${prefix}\ufff0` }
  })

const NOTICE_PREFIX = 'athena_backup_notice_'

/** Range of ids that holds all notices. */
export const NOTICE_RANGE = { from: NOTICE_PREFIX, to: `${NOTICE_PREFIX}\ufff0` } as const

export const noticeId = (txId: string): string => `${NOTICE_PREFIX}${txId}`

/** Returns the id of the transaction that a notice is about. */
export const transactionOf = (notice: string): string => notice.slice(NOTICE_PREFIX.length)

/** Range of ids that holds all backup headers. */
export const BACKUP_RANGE = { from: BACKUP_PREFIX, to: `${BACKUP_PREFIX}:` } as const

/** The key that names a database in what the API sends: the same on every console, so backups can move. */
export const apiKey = (database: LogicalDatabase): string => `athena_${database}`

/** Finds the database that a key of `dbs` means, in every spelling that backups have used. */
export function databaseOfKey(key: string, names: DatabaseNames): LogicalDatabase | undefined {
  return LOGICAL_DATABASES.find(
    (database) =>
      key === names[database] ||
      key === apiKey(database) ||
      key === database ||
      key === `DB_${database.toUpperCase()}`
  )
}
