import type { FastifyBaseLogger } from 'fastify'
import type {
  DatabaseRestoreCounts,
  PruneOutcome,
  Requester,
  RestoreOutcome,
  SkipUnknown,
  StoredDatabaseSummary,
  UnreadableDocument
} from '../../types/backups.js'
import type { BackupEvent } from '../../types/events.js'
import { cutError, cutText } from '../bytes/cut-text.js'
import type { EventOf, Listener } from './event-stream.js'

type Line = [level: 'debug' | 'info' | 'warn' | 'error', message: string, fields?: object]

export function logListener(log: FastifyBaseLogger): Listener {
  return (event) => {
    const [level, message, fields] = lineOf(event)
    log[level](
      { event: event.type, ...fields, ...('error' in event && { err: cutError(event.error) }) },
      message
    )
  }
}

function lineOf(event: BackupEvent): Line {
  switch (event.type) {
    case 'backup_started':
      return ['info', 'backup started', { id: event.id, ...requesterOf(event) }]
    case 'backup_database_finished':
      return databaseLine(event)
    case 'backup_finished':
      return backupLine(event)
    case 'backup_failed':
      return ['error', 'backup failed', { id: event.id, ...endOf(event) }]
    case 'restore_started':
      return ['info', 'restore started', { ...restoreOf(event), ...requesterOf(event) }]
    case 'restore_checked': {
      const fields = { ...restoreOf(event), ...durationOf(event), documents: event.documents }
      return ['info', 'restore: the backup is checked', fields]
    }
    case 'restore_database_finished': {
      const { database, counts } = event
      const fields = { ...restoreOf(event), database, ...durationOf(event), ...counts }
      return ['info', `restore: ${database} finished`, fields]
    }
    case 'restore_settings_document': {
      const { change, dryRun } = event
      const message = `restore: a settings document ${dryRun ? 'would be' : 'is being'} ${change}`
      const fields = { ...restoreOf(event), document: cutText(event.document, MAX_ID), change }
      return [dryRun ? 'info' : 'warn', message, fields]
    }
    case 'restore_safety_backup_made': {
      const { safety_backup } = event
      const fields = { ...restoreOf(event), ...durationOf(event), safety_backup }
      return ['info', 'restore: its safety backup is made', fields]
    }
    case 'restore_whitelist_rebuilt':
      return ['info', 'restore: the white list is rebuilt', { ...restoreOf(event), ...durationOf(event) }]
    case 'restore_finished':
      return ['info', 'restore finished', restoreEndOf(event)]
    case 'restore_failed':
      return ['error', 'restore failed', restoreEndOf(event)]
    case 'prune_started':
      return ['info', 'prune started', { id: event.id }]
    case 'prune_finished':
      return ['info', 'prune finished', { id: event.id, ...endOf(event), ...prunedOf(event.outcome) }]
    case 'prune_failed':
      return ['error', 'prune failed', { id: event.id, ...endOf(event) }]
    case 'rekey_started':
      return ['info', 'rekey started', { id: event.id, key: event.key }]
    case 'rekey_backup_finished': {
      const { id, backup, chunks, bytes } = event
      return ['info', 'rekey: a backup is sealed', { id, backup, ...durationOf(event), chunks, bytes }]
    }
    case 'rekey_finished':
      return rekeyLine(event)
    case 'rekey_failed':
      return ['error', 'rekey failed', { id: event.id, ...endOf(event) }]
    case 'verify_started':
      return ['info', 'verify started', verifyOf(event)]
    case 'verify_finished':
      return verifyLine(event)
    case 'verify_failed':
      return ['error', 'verify failed', { ...verifyOf(event), ...endOf(event) }]
    case 'copy_started':
      return ['info', 'copy started', copyOf(event)]
    case 'copy_finished': {
      const { copied, reused, already } = event.outcome
      const counts = { copied: copied.parts, copiedBytes: copied.bytes, reused: reused.parts, already }
      return ['info', 'copy finished', { ...copyOf(event), ...endOf(event), ...counts }]
    }
    case 'copy_failed':
      return ['error', 'copy failed', { ...copyOf(event), ...endOf(event) }]
    case 'retry': {
      const fields = { ...operationOf(event), attempt: event.attempt, waitMs: Math.round(event.waitMs) }
      return ['debug', `${event.operation}: a call to the database will be made again`, fields]
    }
    case 'failure_not_recorded': {
      const message = `${event.operation}: its failure could not be written down; will try again`
      return ['error', message, operationOf(event)]
    }
    case 'lease_taken_over':
      return ['warn', `${event.operation}: the instance that ran it has stopped`, operationOf(event)]
    case 'recovered': {
      const fields = { ...operationOf(event), ...durationOf(event) }
      return ['warn', `${event.operation}: marked as interrupted`, fields]
    }
    case 'check_failed':
      return ['warn', 'could not look for interrupted backups and restores; will try again']
    case 'webhook_delivered': {
      const { tx_id, attempts, status } = event
      return ['info', "restore: the client's webhook was called", { tx_id, attempts, status }]
    }
    case 'webhook_failed': {
      const { tx_id, attempts, status, reason } = event
      return [
        'warn',
        "restore: the client's webhook could not be called",
        { tx_id, attempts, status, reason }
      ]
    }
    case 'schedule_skipped': {
      const { due, reason, id } = event
      const why = reason === 'younger' ? 'a good backup is young enough' : 'it is made already'
      const level = reason === 'younger' ? 'info' : 'debug'
      return [level, `schedule: no backup for this run, ${why}`, { ...dueOf({ due }), reason, id }]
    }
    case 'schedule_failed': {
      const { due, id, retryAt } = event
      const then = retryAt === undefined ? 'the next run comes first' : 'will try again'
      const fields = { ...dueOf({ due, retryAt }), ...(id !== undefined && { id }) }
      return ['error', `schedule: a backup failed; ${then}`, fields]
    }
    case 'schedule_verify_failed': {
      const { due, retryAt } = event
      const then = retryAt === undefined ? 'the next run comes first' : 'will try again'
      return ['error', `schedule: a verification failed; ${then}`, dueOf({ due, retryAt })]
    }
    case 'schedule_pruning_failed':
      return ['error', 'schedule: pruning after a backup failed', { id: event.id }]
  }
}

/** Returns times as people read them. */
const dueOf = ({ due, retryAt }: { due: number; retryAt?: number }) => ({
  due: new Date(due).toISOString(),
  ...(retryAt !== undefined && { retryAt: new Date(retryAt).toISOString() })
})

function databaseLine(event: EventOf<'backup_database_finished'>): Line {
  const { id, database, summary } = event
  const { missing, unreadable = [], base, full_reason: fullReason } = summary
  const shared = { ...(base && { base }), ...(fullReason && { fullReason }) }
  const fields = { id, database, ...durationOf(event), ...sizeOf([summary]), ...shared }
  if (missing) return ['warn', `backup: database ${database} does not exist`, { ...fields, missing }]
  if (unreadable.length === 0) return ['info', `backup: ${database} finished`, fields]
  const message = `backup: ${database} finished without documents that could not be read`
  return ['warn', message, { ...fields, unreadableDocuments: unreadable.slice(0, NAMED).map(named) }]
}

function backupLine(event: EventOf<'backup_finished'>): Line {
  const { dbs, missing_databases: missing, base } = event.backup
  const size = sizeOf(Object.values(dbs))
  const fields = {
    id: event.id,
    ...endOf(event),
    ...size,
    ...(base && { base }),
    ...(missing && { missing })
  }
  const gaps = [
    ...(missing ? ['databases that do not exist'] : []),
    ...(size.unreadable > 0 ? ['documents that could not be read'] : [])
  ]
  if (gaps.length === 0) return ['info', 'backup finished', fields]
  return ['warn', `backup finished without ${gaps.join(' and ')}`, fields]
}

const restoreEndOf = (event: EventOf<'restore_finished' | 'restore_failed'>) => ({
  ...restoreOf(event),
  ...endOf(event),
  ...(event.outcome && {
    ...totalOf(event.outcome),
    ...unknownOf(event.outcome),
    ...(event.outcome.safety_backup && { safety_backup: event.outcome.safety_backup })
  })
})

const verifyOf = ({ id, backup_id, depth }: { id: string; backup_id: string; depth: string }) => ({
  id,
  backup_id,
  depth
})

function verifyLine(event: EventOf<'verify_finished'>): Line {
  const { good, complete, databases, problem_count: problems, problems: named } = event.report
  const checked = Object.values(databases)
  const sum = (member: 'chunks' | 'documents' | 'bytes') =>
    checked.reduce((all, counts) => all + counts[member], 0)
  const counts = { chunks: sum('chunks'), documents: sum('documents'), bytes: sum('bytes') }
  const fields = { ...verifyOf(event), ...endOf(event), ...counts }
  if (good) return ['info', 'verify finished: the backup is whole', fields]
  const shown = named.slice(0, NAMED).map(({ database, part, id, reason }) => ({
    database,
    part,
    id: cutText(id, MAX_ID),
    reason: cutText(reason, MAX_ID)
  }))
  return ['error', 'verify finished: the backup is damaged', { ...fields, complete, problems, named: shown }]
}

const prunedOf = ({ kept, removed, parts, freed_bytes: freedBytes, orphans }: PruneOutcome) => ({
  kept: kept.length,
  removed: removed.length,
  // The oldest are removed first.
  removedBackups: removed.slice(0, NAMED).map(({ id }) => id),
  parts,
  freedBytes,
  orphans: orphans.parts
})

function rekeyLine(event: EventOf<'rekey_finished'>): Line {
  const { key, rekeyed, unchanged, left, chunks, bytes, parts, freed_bytes: freedBytes } = event.outcome
  const counts = { rekeyed: rekeyed.length, unchanged, left: left.length, chunks, bytes, parts, freedBytes }
  const fields = { id: event.id, ...endOf(event), key, ...counts }
  if (left.length === 0) return ['info', 'rekey finished', fields]
  return ['warn', 'rekey finished, and left something', { ...fields, leftBackups: left.slice(0, NAMED) }]
}

const copyOf = ({ id, backup_id, database }: { id: string; backup_id: string; database: string }) => ({
  id,
  backup_id,
  database
})

const operationOf = ({ operation, id }: { operation: string; id: string }) => ({ operation, id })

const restoreOf = ({ tx_id, backup_id, dryRun }: { tx_id: string; backup_id?: string; dryRun: boolean }) => ({
  tx_id,
  ...(backup_id === undefined ? undefined : { backup_id }),
  dryRun
})

const requesterOf = ({ requester }: { requester?: Requester }) => (requester ? { requester } : {})

const durationOf = ({ durationMs }: { durationMs: number }) => ({ durationMs: Math.round(durationMs) })

const endOf = ({ durationMs, retries }: { durationMs: number; retries: number }) => ({
  ...durationOf({ durationMs }),
  retries
})

const NAMED = 20
const MAX_ID = 120

const named = ({ id, reason }: UnreadableDocument) => ({ id: id.slice(0, MAX_ID), reason })

type SummedMember =
  | 'doc_count'
  | 'conflict_count'
  | 'raw_bytes'
  | 'stored_bytes'
  | 'added_bytes'
  | 'unreadable_count'

function sizeOf(summaries: readonly StoredDatabaseSummary[]) {
  const sum = (member: SummedMember) =>
    summaries.reduce((total, summary) => total + (summary[member] ?? 0), 0)
  return {
    documents: sum('doc_count'),
    unreadable: sum('unreadable_count'),
    conflicts: sum('conflict_count'),
    rawBytes: sum('raw_bytes'),
    storedBytes: sum('stored_bytes'),
    addedBytes: sum('added_bytes')
  }
}

/** Returns how many listed ids no document has, when there are any. */
function unknownOf({ skip_unknown: skip, only_unknown: only }: RestoreOutcome): {
  skipUnknown?: number
  onlyUnknown?: number
} {
  const sum = (unknown: SkipUnknown) => Object.values(unknown).reduce((all, { count }) => all + count, 0)
  return { ...(skip && { skipUnknown: sum(skip) }), ...(only && { onlyUnknown: sum(only) }) }
}

const COUNTS = ['total', 'created', 'changed', 'unchanged', 'skipped', 'failed', 'deleted'] as const

function totalOf({ databases }: RestoreOutcome): Partial<DatabaseRestoreCounts> {
  const all = Object.values(databases)
  return Object.fromEntries(COUNTS.map((name) => [name, all.reduce((sum, counts) => sum + counts[name], 0)]))
}
