import type { LogicalDatabase } from '../../types/databases.js'

const BACKUP_PREFIX = '03_ibp_db_backup_'

/** Range of ids that holds all backup headers. */
export const BACKUP_RANGE = { from: BACKUP_PREFIX, to: `${BACKUP_PREFIX}:` } as const

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
