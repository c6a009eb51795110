import type { LogicalDatabase } from '../../types/databases.js'
import { BACKUP_PREFIX, backupId, PART_DIGITS, PART_ID, PART_PREFIX, stampIn } from '../own-documents.js'

type PartKind = keyof typeof PART_PREFIX

/** Range of ids that holds all backup headers. */
export const BACKUP_RANGE = { from: BACKUP_PREFIX, to: `${BACKUP_PREFIX}:` } as const

/** Ranges of ids that hold all chunks and manifests, those of one backup next to each other. */
export const PART_RANGES = Object.values(PART_PREFIX).map((from) => ({ from, to: `${from}:` }))

/** Ids in a row with other documents, before the database is taken to answer a conflict to everything. */
export const TAKEN_IDS = 100

/** Ids have at most so many digits. */
const LAST_STAMP = 10n ** 20n - 1n

/**
 * Names a backup later than the number `newest` and the id `last`, whatever the clock says (milliseconds).
 * @param taken how many ids were tried that other documents have: the more, the further off is the next
 */
export function newBackupId(
  newest: bigint,
  last: string | undefined,
  taken: number,
  time: number
): { id: string; carried: bigint } {
  const known = last === undefined ? 0n : stampIn(last) + (taken > 0 ? 2n ** BigInt(taken) : 0n)
  const now = BigInt(time)
  const latest = newest > known ? newest : known
  const next = latest >= now ? latest + 1n : now
  const stamp = next <= LAST_STAMP ? next : now
  return { id: backupId(stamp), carried: stamp }
}

/** Returns how the ids of parts begin that a backup has made, of all databases or one. */
const partPrefix = (kind: PartKind, backup: string, database?: LogicalDatabase): string =>
  `${PART_PREFIX[kind]}${backup.slice(BACKUP_PREFIX.length)}_${database === undefined ? '' : `${database}_`}`

/** Returns the id of the chunk or manifest with this number, among those that a backup makes of one database. */
export const partId = (kind: PartKind, backup: string, database: LogicalDatabase, index: number): string =>
  partPrefix(kind, backup, database) + String(index).padStart(PART_DIGITS, '0')

/** Returns the id of the backup that has made a part, by the part's id; `undefined` when that is no part's. */
export function makerOf(part: string): string | undefined {
  const stamp = PART_ID.exec(part)?.[1]
  return stamp === undefined ? undefined : backupId(stamp)
}

/** Returns the number of a part among those of its kind that its backup has made of one database. */
export const numberOf = (part: string): number => Number(part.slice(part.lastIndexOf('_') + 1))

/** Returns the ranges of ids that hold all chunks and manifests of a backup, or of one database in it. */
export const partRanges = (backup: string, database?: LogicalDatabase): { from: string; to: string }[] =>
  (['chunk', 'manifest'] as const).map((kind) => {
    const from = partPrefix(kind, backup, database)
    return { from, to: `${from}\ufff0` }
  })

/** Returns ranges that hold these ids of parts: one for what each backup has made of each database. */
export function rangesOf(parts: readonly string[]): { from: string; to: string }[] {
  const ranges: { from: string; to: string }[] = []
  let prefix: string | undefined
  for (const id of parts.toSorted()) {
    // An id that is no part's has no prefix, with which all others would begin.
    if (!prefix || !id.startsWith(prefix)) {
      prefix = id.slice(0, id.lastIndexOf('_') + 1)
      ranges.push({ from: id, to: id })
    }
    ranges[ranges.length - 1].to = id
  }
  return ranges
}
