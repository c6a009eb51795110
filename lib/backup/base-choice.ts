import type { DatabaseSummary } from '../../types/backups.js'
import type { LogicalDatabase } from '../../types/databases.js'
import { type CouchDatabase, type DatabaseInfo, isReplicated } from '../couch/database.js'
import { CouchError, expected } from '../couch/errors.js'
import { numberIn } from '../couch/source-watch.js'
import { DamagedBackupError, KeyUnavailableError, NotSealedBackupError, WrongKeyError } from '../errors.js'
import { toldExcluded } from '../own-documents.js'
import type { BaseDocuments } from '../repository/base.js'
import type { SourceIdentity } from '../repository/layout.js'
import type { LoadedBackup } from '../repository/loaded-backup.js'
import type { Owner } from '../repository/owner.js'
import type { Repository } from '../repository/repository.js'

export type FullReason = NonNullable<DatabaseSummary['full_reason']>

/** Bounds on how far backups share chunks. */
export interface IncrementalBounds {
  /** Most backups that are based on each other in a row. */
  chain: number
  /** Most of a database's bytes that may be dead lines, as a share. */
  waste: number
}

/** The base that a backup may have, and the bounds for it. */
export interface EarlierBackup extends IncrementalBounds {
  /** The backup that {@link openBase} has opened, or why it cannot be the base. */
  candidate: LoadedBackup | FullReason | undefined
  /** Whether to read everything, whatever earlier backups hold. */
  full: boolean
}

/** Number of changes up to which reading them is faster than a full backup, however few documents there are. */
const FEW = 1000
/** Share of changed documents beyond which a full backup is as fast. */
const MOSTLY = 0.5
/** Most changes that an incremental backup reads: each takes 12 to 32 bytes of memory. */
const MOST_CHANGES = 1_000_000

/** Complete backups that are searched for a base: the newest may be athena's, or of another version. */
const LOOKED_AT = 10

interface BackupSearch {
  /** The console that is backed up. */
  owner: Owner
  /** Id of the backup that is made. */
  except: string
  /** Types that it leaves out, as its header tells them. */
  excluded: readonly string[]
}

/**
 * Finds `last`, the newest complete backup that a restore has not made, and `base`, the newest that can be a base. The
 * two differ beside backups of earlier versions, of athena, of hosts that leave out other types, and before restores.
 * Where there is none of a kind, another complete backup stands in for it: it tells why the next is a full one.
 */
export async function lastComplete(
  repository: Repository,
  { owner, except, excluded }: BackupSearch
): Promise<{ last: LoadedBackup | undefined; base: LoadedBackup | undefined }> {
  const good: LoadedBackup[] = []
  const found = () => ({
    last: good.find((one) => !one.isBeforeRestore),
    base: good.find((one) => one.isCurrent && leavesOut(one, excluded))
  })
  for (const id of (await repository.list()).toReversed()) {
    const loaded = id === except ? null : await repository.load(id)
    if (!loaded?.isComplete || !loaded.isOf(owner)) continue
    good.push(loaded)
    const { last, base } = found()
    if ((last && base) || good.length >= LOOKED_AT) break
  }
  const { last = good[0], base = good.find((one) => one.isCurrent) ?? good[0] } = found()
  return { last, base }
}

const leavesOut = ({ header }: LoadedBackup, types: readonly string[]): boolean =>
  Object.values(header.dbs).every(
    ({ excluded_types: told }) => Array.isArray(told) && sameMembers(told, types)
  )

interface BaseQuestion {
  earlier: EarlierBackup
  database: LogicalDatabase
  source: CouchDatabase
  info: DatabaseInfo
  excludeTypes: ReadonlySet<string>
}

/** Finds what a database's backup can be based on, or why it has to be read in full. */
export async function chooseBase(question: BaseQuestion): Promise<BaseDocuments | FullReason> {
  const { earlier, database } = question
  const { candidate, full, chain } = earlier
  if (full) return 'asked_for'
  if (!candidate) return 'no_base'
  if (typeof candidate === 'string') return candidate
  if (candidate.isCurrent && (!candidate.isUntouched || candidate.isDamagedIn(database)))
    return 'damaged_base'
  const base = candidate.base(database)
  if (!base) return candidate.isCurrent ? 'not_in_base' : 'earlier_layout'
  if (candidate.chainLength >= chain) return 'chain_too_long'
  return (await whyNot(base, question, candidate.chainLength)) ?? base
}

/** Opens the backup that is to be the base. @returns the opened backup, or why it cannot be the base */
export async function openBase(
  repository: Repository,
  base: LoadedBackup | undefined
): Promise<LoadedBackup | FullReason | undefined> {
  if (!base) return undefined
  if (base.isCurrent && !repository.sealsLike(base)) return 'sealed_otherwise'
  try {
    return await base.open()
  } catch (error) {
    if (error instanceof DamagedBackupError) return 'damaged_base'
    if ([KeyUnavailableError, WrongKeyError, NotSealedBackupError].some((kind) => error instanceof kind))
      return 'sealed_otherwise'
    throw error
  }
}

/** Returns why a base cannot be trusted, if so. @param turn see {@link BaseDocuments.load} */
async function whyNot(
  base: BaseDocuments,
  question: BaseQuestion,
  turn: number
): Promise<FullReason | undefined> {
  const { source, info, excludeTypes } = question
  const now = identityOf(source, info)
  if (!now || !base.source) return 'not_told'
  if (base.source.name !== now.name) return 'other_database'
  if (base.source.created !== now.created) return 'created_again'
  if (!samePurges(base.source.purges, now.purges, isReplicated(info))) return 'purged'
  if (!isReplicated(info) && numberIn(info.update_seq ?? base.since) < numberIn(base.since))
    return 'sequence_reset'
  if (!sameMembers(base.excludedTypes, toldExcluded(excludeTypes))) return 'excluded_types'
  if (base.unreadable === undefined) return 'unreadable_documents'
  return (await tooManyChanges(base, source, info)) ?? (await damaged(base, turn))
}

/**
 * Returns why the changes since a base are not to be read, if so: they are too many, or the server does not count
 * them. A server that does not know the sequence counts all changes, which must not pass for a few.
 */
async function tooManyChanges(
  base: BaseDocuments,
  source: CouchDatabase,
  info: DatabaseInfo
): Promise<FullReason | undefined> {
  const changes = await source.countChanges(base.since).catch(expected(isRefused, undefined))
  if (changes === undefined) return 'not_told'
  // `info` was read earlier, so a feed from its start has at least as many changes.
  const all = info.doc_count + (info.doc_del_count ?? 0)
  // An empty base holds nothing that could be stale: a system database with only the lease, for example.
  if (base.documents === 0 && changes <= FEW) return undefined
  const most = Math.min(Math.max(FEW, all * MOSTLY), MOST_CHANGES)
  return changes >= all || changes > most ? 'mostly_changed' : undefined
}

/** Returns whether the server refused the sequence, which is none of its own. */
const isRefused = (error: unknown): boolean => error instanceof CouchError && error.status === 400

async function damaged(base: BaseDocuments, turn: number): Promise<FullReason | undefined> {
  try {
    await base.load(turn)
    return undefined
  } catch (error) {
    if (error instanceof DamagedBackupError) return 'damaged_base'
    throw error
  }
}

/** Returns what distinguishes a database from others of its name; `undefined` where the server tells too little. */
export function identityOf(source: CouchDatabase, info: DatabaseInfo): SourceIdentity | undefined {
  const { instance_start_time: created, purge_seq: purges } = info
  // CouchDB 2 tells "0" for every database.
  if (!created || created === '0' || purges === undefined) return undefined
  return { name: source.name, created, purges: String(purges) }
}

/** Returns whether nothing was purged since. Replicas count purges each for itself: only equal texts, or zeros, compare. */
const samePurges = (before: string, now: string, replicated: boolean): boolean =>
  before === now || (numberIn(before) === numberIn(now) && (!replicated || numberIn(now) === 0))

const sameMembers = (one: readonly string[], other: readonly string[]): boolean =>
  one.length === other.length && new Set([...one, ...other]).size === new Set(one).size
