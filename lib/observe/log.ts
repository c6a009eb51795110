import type { FastifyBaseLogger } from 'fastify'
import type {
  DatabaseRestoreCounts,
  Requester,
  RestoreOutcome,
  StoredDatabaseSummary,
  UnreadableDocument
} from '../../types/backups.js'
import type { BackupEvent } from '../../types/events.js'
import { cutError, cutText } from '../bytes/cut-text.js'
import type { Listener } from './event-stream.js'

interface Line {
  level: 'debug' | 'info' | 'warn' | 'error'
  message: string
  fields: object
}

/** Writes one line for each event: ids, counts and durations, no documents. */
export function logListener(log: FastifyBaseLogger): Listener {
  return (event) => {
    const { level, fields, message } = lineOf(event)
    log[level](
      { event: event.type, ...fields, ...('error' in event && { err: cutError(event.error) }) },
      message
    )
  }
}

function lineOf(event: BackupEvent): Line {
  switch (event.type) {
    case 'backup_started':
      return { level: 'info', message: 'backup started', fields: { id: event.id, ...requesterOf(event) } }
    case 'backup_database_finished': {
      const { id, database, summary } = event
      const { unreadable = [] } = summary
      const fields = { id, database, ...durationOf(event), ...sizeOf([summary]) }
      if (summary.missing)
        return {
          level: 'warn',
          message: `backup: database ${database} does not exist`,
          fields: { ...fields, missing: true }
        }
      if (unreadable.length === 0) return { level: 'info', message: `backup: ${database} finished`, fields }
      return {
        level: 'warn',
        message: `backup: ${database} finished without documents that could not be read`,
        fields: { ...fields, unreadableDocuments: unreadable.slice(0, NAMED).map(named) }
      }
    }
    case 'backup_finished': {
      const { dbs, missing_databases: missing } = event.backup
      const fields = {
        id: event.id,
        ...endOf(event),
        ...sizeOf(Object.values(dbs)),
        ...(missing && { missing })
      }
      const gaps = [
        ...(missing ? ['databases that do not exist'] : []),
        ...(fields.unreadable > 0 ? ['documents that could not be read'] : [])
      ]
      if (gaps.length === 0) return { level: 'info', message: 'backup finished', fields }
      return { level: 'warn', message: `backup finished without ${gaps.join(' and ')}`, fields }
    }
    case 'backup_failed':
      return {
        level: 'error',
        message: 'backup failed',
        fields: { id: event.id, ...endOf(event) }
      }
    case 'restore_started':
      return {
        level: 'info',
        message: 'restore started',
        fields: { ...restoreOf(event), ...requesterOf(event) }
      }
    case 'restore_checked':
      return {
        level: 'info',
        message: 'restore: the backup is checked',
        fields: { ...restoreOf(event), ...durationOf(event), documents: event.documents }
      }
    case 'restore_database_finished':
      return {
        level: 'info',
        message: `restore: ${event.database} finished`,
        fields: { ...restoreOf(event), database: event.database, ...durationOf(event), ...event.counts }
      }
    case 'restore_settings_document': {
      const { document, change, dryRun } = event
      return {
        level: dryRun ? 'info' : 'warn',
        message: `restore: a settings document ${dryRun ? 'would be' : 'is being'} ${change}`,
        fields: { ...restoreOf(event), document: cutText(document, MAX_ID), change }
      }
    }
    case 'restore_whitelist_rebuilt':
      return {
        level: 'info',
        message: 'restore: the white list is rebuilt',
        fields: { ...restoreOf(event), ...durationOf(event) }
      }
    case 'restore_finished':
      return {
        level: 'info',
        message: 'restore finished',
        fields: {
          ...restoreOf(event),
          ...endOf(event),
          ...totalOf(event.outcome),
          ...unknownOf(event.outcome)
        }
      }
    case 'restore_failed':
      return {
        level: 'error',
        message: 'restore failed',
        fields: {
          ...restoreOf(event),
          ...endOf(event),
          ...(event.outcome && { ...totalOf(event.outcome), ...unknownOf(event.outcome) })
        }
      }
    case 'retry': {
      const { attempt, waitMs } = event
      return {
        level: 'debug',
        message: `${event.operation}: a call to the database will be made again`,
        fields: { ...operationOf(event), attempt, waitMs: Math.round(waitMs) }
      }
    }
    case 'failure_not_recorded':
      return {
        level: 'error',
        message: `${event.operation}: its failure could not be written down; will try again`,
        fields: { ...operationOf(event) }
      }
    case 'lease_taken_over':
      return {
        level: 'warn',
        message: `${event.operation}: the instance that ran it has stopped`,
        fields: operationOf(event)
      }
    case 'recovered':
      return {
        level: 'warn',
        message: `${event.operation}: marked as interrupted`,
        fields: { ...operationOf(event), ...durationOf(event) }
      }
    case 'check_failed':
      return {
        level: 'warn',
        message: 'could not look for interrupted backups and restores; will try again',
        fields: {}
      }
    case 'webhook_delivered': {
      const { tx_id, attempts, status } = event
      return {
        level: 'info',
        message: "restore: the client's webhook was called",
        fields: { tx_id, attempts, status }
      }
    }
    case 'webhook_failed': {
      const { tx_id, attempts, status, reason } = event
      return {
        level: 'warn',
        message: "restore: the client's webhook could not be called",
        fields: { tx_id, attempts, status, reason }
      }
    }
  }
}

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

/** Documents that are named in a line. */
const NAMED = 20
const MAX_ID = 120

const named = ({ id, reason }: UnreadableDocument) => ({ id: id.slice(0, MAX_ID), reason })

function sizeOf(summaries: readonly StoredDatabaseSummary[]) {
  const sum = (member: 'doc_count' | 'conflict_count' | 'raw_bytes' | 'stored_bytes' | 'unreadable_count') =>
    summaries.reduce((total, summary) => total + (summary[member] ?? 0), 0)
  return {
    documents: sum('doc_count'),
    unreadable: sum('unreadable_count'),
    conflicts: sum('conflict_count'),
    rawBytes: sum('raw_bytes'),
    storedBytes: sum('stored_bytes')
  }
}

/** Returns how many ids of the skip lists no document has, when there are any. */
function unknownOf({ skip_unknown: unknown }: RestoreOutcome): { skipUnknown?: number } {
  if (!unknown) return {}
  return { skipUnknown: Object.values(unknown).reduce((sum, { count }) => sum + count, 0) }
}

const COUNTS = ['total', 'created', 'changed', 'unchanged', 'skipped', 'failed', 'deleted'] as const

/** Returns the counts of all databases together. */
function totalOf({ databases }: RestoreOutcome): DatabaseRestoreCounts {
  const all = Object.values(databases)
  const sum = (name: (typeof COUNTS)[number]) => all.reduce((total, counts) => total + counts[name], 0)
  return Object.fromEntries(COUNTS.map((name) => [name, sum(name)])) as Record<
    (typeof COUNTS)[number],
    number
  >
}
