export const BACKUP_TYPE = 'athena_backup'
export const CHUNK_TYPE = 'athena_backup_chunk'
export const MANIFEST_TYPE = 'athena_backup_manifest'
export const LEASE_TYPE = 'athena_backup_lease'
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

/** Returns the types that a backup left out, as its summary tells them: without those of backups. */
export const toldExcluded = (types: Iterable<string>): string[] =>
  [...types].filter((type) => !OWN_TYPES.includes(type))

/** Types that are never restored from an upload: backups, which stay where they are, and logins. */
export const INTERNAL_TYPES: ReadonlySet<string> = new Set([...OWN_TYPES, SESSION_TYPE])

export const BACKUP_ID = /^03_ibp_db_backup_[0-9]{1,20}$/
const OTHER_ID =
  /^(athena_backup_lease|athena_backup_notice_[0-9a-f]+|backup_(chunk|manifest)_[0-9]{1,20}_(components|sessions|system)_[0-9]{6,})$/

export const isBackupId = (id: string): boolean => BACKUP_ID.test(id)

/**
 * Returns whether a document is a header, chunk, manifest, lease or notice, of this version or of athena. Only the
 * database that keeps backups and the system database have such documents: anywhere else, and with a type of its own
 * there as well, a document of such an id is the console's.
 */
export const isOwnDocument = (id: string, type: string | undefined): boolean =>
  type !== undefined && OWN_TYPES.includes(type) && (BACKUP_ID.test(id) || OTHER_ID.test(id))
