export const BACKUP_TYPE = 'athena_backup'
export const CHUNK_TYPE = 'athena_backup_chunk'
export const MANIFEST_TYPE = 'athena_backup_manifest'
export const LEASE_TYPE = 'athena_backup_lease'
export const NOTICE_TYPE = 'athena_backup_notice'
/** Type of the transactions of operations. */
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

/** Returns the types that a backup left out, as its summary tells them: without its own types. */
export const toldExcluded = (types: Iterable<string>): string[] =>
  [...types].filter((type) => !OWN_TYPES.includes(type))

/** Types that are never restored from an upload: backups, which stay where they are, and logins. */
export const INTERNAL_TYPES: ReadonlySet<string> = new Set([...OWN_TYPES, SESSION_TYPE])

export const BACKUP_ID = /^03_ibp_db_backup_[0-9]{1,20}$/
const OTHER_ID =
  /^(athena_backup_lease|athena_backup_notice_[0-9a-f]+|backup_(chunk|manifest)_[0-9]{1,20}_(components|sessions|system)_[0-9]{6,})$/

export const isBackupId = (id: string): boolean => BACKUP_ID.test(id)

/**
 * Returns whether a document is a header, chunk, manifest, lease or notice of any version, or athena's. Only
 * the backups and system databases hold such; elsewhere, or with another type, it is the console's.
 */
export const isOwnDocument = (id: string, type: string | undefined): boolean =>
  type !== undefined && OWN_TYPES.includes(type) && (BACKUP_ID.test(id) || OTHER_ID.test(id))
