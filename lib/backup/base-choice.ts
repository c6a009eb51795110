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

/** How far backups may go on sharing chunks. */
export interface IncrementalBounds {
  /** Most backups that are based on each other in a row. */
  chain: number
  /** Most of a database's stored bytes that may be documents that no longer count, as a share. */
  waste: number
}

/** The base that a backup may have, and the bounds for it. */
export interface EarlierBackup extends IncrementalBounds {
  /** The newest complete backup that can be a base, else the newest; opened, or why it could not be. */
  last: LoadedBackup | FullReason | undefined
  full: boolean
}

/** Changes from which it matters how many documents there are: fewer are read faster in any case. */
const FEW = 1000
/** Share of the documents beyond which a full backup is read as fast. */
const MOSTLY = 0.5
/** Most changes: what is known of each takes 12 to 32 bytes of memory. */
const MOST_CHANGES = 1_000_000

/** Complete backups that are looked at for a base: others may be of athena's, or of other versions. */
const LOOKED_AT = 10

interface Wanted {
  /** The console that is backed up. */
  owner: Owner
  /** Id of the backup that is made. */
  except: string
  /** Types that it leaves out, as it tells them. */
  excluded: readonly string[]
}

/**
 * Finds the newest complete backup that tells which of the source databases there are, and the newest that can be a
 * base: beside an earlier version, athena, hosts that leave out other types, or restores, they may be two.
 */
export async function lastComplete(
  repository: Repository,
  { owner, except, excluded }: Wanted
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
  const { last, full, chain } = earlier
  if (full) return 'asked_for'
  if (!last) return 'no_base'
  if (typeof last === 'string') return last
  if (last.isCurrent && (!last.isUntouched || last.isDamagedIn(database))) return 'damaged_base'
  const base = last.base(database)
  if (!base) return last.isCurrent ? 'not_in_base' : 'earlier_layout'
  if (last.chainLength >= chain) return 'chain_too_long'
  return (await whyNot(base, question, last.chainLength)) ?? base
}

/** Opens a backup to be based on. @returns why it cannot be; a damaged one is told from one with another seal */
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

/** @param turn which of its chunks are read */
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
 * Returns why the changes since a base are not to be read: they are too many, or the server does not count them. A server
 * that does not know a sequence sends all changes: that must not pass for a few.
 */
async function tooManyChanges(
  base: BaseDocuments,
  source: CouchDatabase,
  info: DatabaseInfo
): Promise<FullReason | undefined> {
  const changes = await source.countChanges(base.since).catch(expected(isRefused, undefined))
  if (changes === undefined) return 'not_told'
  // The documents were counted before, so that a feed from its start cannot have fewer.
  const all = info.doc_count + (info.doc_del_count ?? 0)
  // The database holds nothing that could be stale: one with only the lease is such a database.
  if (base.documents === 0 && changes <= FEW) return undefined
  const most = Math.min(Math.max(FEW, all * MOSTLY), MOST_CHANGES)
  return changes >= all || changes > most ? 'mostly_changed' : undefined
}

/** Returns whether the server does not take a sequence for one of its own. */
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

/** Returns what tells a database from another of its name; `undefined` where the server tells too little. */
export function identityOf(source: CouchDatabase, info: DatabaseInfo): SourceIdentity | undefined {
  const { instance_start_time: created, purge_seq: purges } = info
  // CouchDB 2 tells "0" for every database.
  if (!created || created === '0' || purges === undefined) return undefined
  return { name: source.name, created, purges: String(purges) }
}

/** Replicas of a cluster count purges by themselves, so that only none, or the same replicas, compare. */
const samePurges = (before: string, now: string, replicated: boolean): boolean =>
  before === now || (numberIn(before) === numberIn(now) && (!replicated || numberIn(now) === 0))

const sameMembers = (one: readonly string[], other: readonly string[]): boolean =>
  one.length === other.length && new Set([...one, ...other]).size === new Set(one).size
