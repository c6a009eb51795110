import { LOGICAL_DATABASES } from './databases.js'

export const BACKUP_TYPE = 'athena_backup'
/** Type of the header of a backup that was removed, as long as there are parts that it made. */
export const REMOVED_TYPE = 'athena_backup_removed'
export const CHUNK_TYPE = 'athena_backup_chunk'
export const MANIFEST_TYPE = 'athena_backup_manifest'
export const LEASE_TYPE = 'athena_backup_lease'
export const NOTICE_TYPE = 'athena_backup_notice'
/** Type of the transactions of operations. */
export const TRANSACTION_TYPE = 'webhook_tx'

const OWN_TYPES: readonly string[] = [
  BACKUP_TYPE,
  REMOVED_TYPE,
  CHUNK_TYPE,
  MANIFEST_TYPE,
  LEASE_TYPE,
  NOTICE_TYPE
]
const SESSION_TYPE = 'session_athena'

/** Types that are never backed up: backups themselves, and what athena leaves out. */
const NEVER_BACKED_UP = [...OWN_TYPES, SESSION_TYPE, 'pillow_talk_doc', 'json_validation']

/**
 * Returns the types of documents that a backup leaves out.
 * @param ofHost those that the host has backups leave out
 * @param isBeforeRestore whether a restore makes it, which may write over documents of the host's types as well
 */
export const typesLeftOut = (ofHost: readonly string[] = [], isBeforeRestore = false): ReadonlySet<string> =>
  new Set([...NEVER_BACKED_UP, ...(isBeforeRestore ? [] : ofHost)])

/**
 * Returns the types of documents that an exact restore of a backup leaves alone: those that the backup left out, and
 * transactions, which clients follow, wherever the host keeps them.
 */
export const typesLeftAlone = (ofHost: readonly string[], isBeforeRestore = false): ReadonlySet<string> =>
  new Set([...typesLeftOut(ofHost, isBeforeRestore), TRANSACTION_TYPE])

/** Returns the types that a backup left out, as its summary tells them: without its own types. */
export const toldExcluded = (types: Iterable<string>): string[] =>
  [...types].filter((type) => !OWN_TYPES.includes(type))

/** Types that are never restored from an upload: backups, which stay where they are, and logins. */
export const INTERNAL_TYPES: ReadonlySet<string> = new Set([...OWN_TYPES, SESSION_TYPE])

/** Precedes the number in the id of a backup. */
export const BACKUP_PREFIX = '03_ibp_db_backup_'
/** Precedes the number of its backup in the id of a part. */
export const PART_PREFIX = { chunk: 'backup_chunk_', manifest: 'backup_manifest_' } as const
export const LEASE_ID = 'athena_backup_lease'
/** Precedes the transaction in the id of a notice. */
export const NOTICE_PREFIX = 'athena_backup_notice_'

export const BACKUP_ID = new RegExp(`^${BACKUP_PREFIX}[0-9]{1,20}$`)
/** Digits of the number of a part, at least. */
export const PART_DIGITS = 6
/** Recognizes the ids of parts; its group is the number of their backup. `repository/ids.ts` makes such ids. */
export const PART_ID = new RegExp(
  `^(?:${Object.values(PART_PREFIX).join('|')})([0-9]{1,20})_(?:${LOGICAL_DATABASES.join('|')})_[0-9]{${PART_DIGITS},}$`
)
const NOTICE_ID = new RegExp(`^${NOTICE_PREFIX}[0-9a-f]+$`)

/** Returns the number in a backup's id: milliseconds since the epoch, unless the clock was ahead. */
export const stampIn = (id: string): bigint => BigInt(id.slice(BACKUP_PREFIX.length))

/** Returns about when a backup began, in milliseconds since the epoch. */
export const beganAt = (id: string): number => Number(id.slice(BACKUP_PREFIX.length))

/** Has 20 digits, as no clock gives. */
const FIRST_FUTURE_STAMP = 9_000_000n * 10n ** 13n

/** Returns the id of the backup that has this number. */
export const backupId = (stamp: bigint | string): string => `${BACKUP_PREFIX}${stamp}`

/** Names a backup that is to be made at a time in milliseconds since the epoch, later than any that a clock names. */
export const futureBackupId = (at: number): string => backupId(FIRST_FUTURE_STAMP + BigInt(at))

export const isBackupId = (id: string): boolean => BACKUP_ID.test(id)

/** Returns whether a document is the plugin's or athena's. Ask only in the backups and system databases. */
export const isOwnDocument = (id: string, type: string | undefined): boolean =>
  type !== undefined &&
  OWN_TYPES.includes(type) &&
  (id === LEASE_ID || [BACKUP_ID, PART_ID, NOTICE_ID].some((form) => form.test(id)))

/**
 * Returns whether documents of a backup were found to be damaged. Damage of an index alone concerns the next backup only.
 * @param damaged what its header tells
 */
export const hasDamagedDocuments = (damaged: Damage | undefined): boolean =>
  Object.values(damaged?.databases ?? {}).some((found) => !found?.only_index)

interface Damage {
  databases?: Partial<Record<string, { only_index?: boolean }>>
}

/** The state of a backup. `damaged`: it is complete, and documents of it were found to be damaged. */
export type ToldState = 'running' | 'failed' | 'damaged' | 'good'

interface ToldBackup {
  in_progress?: boolean
  error?: unknown
  damaged?: Damage
}

/** Returns the state of a backup of which its header tells this. */
export function stateOf({ in_progress: running, error, damaged }: ToldBackup): ToldState {
  if (running) return 'running'
  if (error) return 'failed'
  return hasDamagedDocuments(damaged) ? 'damaged' : 'good'
}

/** Returns whether a backup, of which its header tells this, can be restored whole. */
export const isGoodBackup = (told: ToldBackup): boolean => stateOf(told) === 'good'
