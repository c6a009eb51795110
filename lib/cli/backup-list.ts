import type { BackupSummary } from '../../types/backups.js'
import { beganAt, stateOf } from '../own-documents.js'
import { readHead } from './backup-head.js'
import type { Client } from './client.js'
import { CliError, EXIT, NoOperatorError, ReplyError } from './errors.js'
import { age, bytes, number } from './format.js'
import { quoted, table } from './text.js'

/** The known facts of a backup: without the operator's routes no sizes. */
type Listed = Partial<BackupSummary> & Pick<BackupSummary, 'id'>

/** How many backups are read at the same time. */
const READ_AT_ONCE = 4

/** Returns the newest backups, oldest first, and the number of all. */
export async function newestBackups(
  client: Client,
  limit: number
): Promise<{ total: number; backups: Listed[] }> {
  const call = { operator: true, path: ['overview'], query: { limit: String(limit) } } as const
  try {
    const { total, backups } = await client.json<{ total: number; backups: BackupSummary[] }>(call, {
      idempotent: true
    })
    return { total, backups: backups.reverse() }
  } catch (error) {
    const isRefused = error instanceof ReplyError && error.exitCode === EXIT.auth
    if (!isRefused && !(error instanceof NoOperatorError)) throw error
  }
  const { ids } = await client.json<{ ids: string[] }>({ path: ['backups'] }, { idempotent: true })
  const newest = ids.slice(-limit)
  const backups: Listed[] = []
  for (let at = 0; at < newest.length; at += READ_AT_ONCE) {
    const read = await Promise.all(newest.slice(at, at + READ_AT_ONCE).map((id) => headOf(client, id)))
    backups.push(...read.filter((head) => head !== undefined))
  }
  return { total: ids.length, backups }
}

/** Reads a backup without its documents by the backup API. One that cannot be read does not hide the others. */
async function headOf(client: Client, id: string): Promise<Listed | undefined> {
  try {
    return await readHead(client, id)
  } catch (error) {
    if (!(error instanceof CliError)) throw error
    // It was removed meanwhile.
    if (error.exitCode === EXIT.notFound) return undefined
    if (error.exitCode !== EXIT.failed) throw error
    return { id, error: error.message }
  }
}

const HEADS = ['ID', 'AGE', 'STATE', 'DOCUMENTS', 'SIZE', 'ADDED', 'TAGS']
const NUMBERS = [3, 4, 5]
const UNKNOWN = '-'

/** Lays out backups as a table. */
export function listText(backups: readonly Listed[], now = Date.now()): string {
  return table([HEADS, ...backups.map((backup) => rowOf(backup, now))], NUMBERS)
}

function rowOf(backup: Listed, now: number): string[] {
  const { id, start_timestamp: began = beganAt(id), doc_count: documents } = backup
  const state = STATES[stateOf(backup)]
  const size = state === 'complete' ? storedBytes(backup) : undefined
  const figure = (value: number | undefined, text: (value: number) => string) =>
    value === undefined ? UNKNOWN : text(value)
  return [
    id,
    age(began, now),
    state,
    figure(state === 'failed' ? undefined : documents, number),
    figure(size, bytes),
    figure(backup.added_bytes, bytes),
    tagsOf(backup).join(', ')
  ]
}

/** States as a list shows them. Damage is told by a tag. */
const STATES = { running: 'in progress', failed: 'failed', damaged: 'complete', good: 'complete' } as const

/** Returns what a backup takes; `undefined` where a database does not tell, as in old backups. */
function storedBytes({ dbs }: Listed): number | undefined {
  if (!dbs) return undefined
  let sum = 0
  for (const { stored_bytes: stored } of Object.values(dbs)) {
    if (stored === undefined) return undefined
    sum += stored
  }
  return sum
}

function tagsOf(backup: Listed): string[] {
  const { unreadable_count: unreadable = 0, missing_databases: missing = [], note } = backup
  return [
    ...(backup.protected ? ['protected'] : []),
    ...(backup.damaged ? ['damaged'] : []),
    ...(backup.sealed !== undefined ? ['sealed'] : []),
    ...(backup.verified?.good ? ['verified'] : []),
    ...(unreadable > 0 ? [`${number(unreadable)} unreadable`] : []),
    ...(missing.length > 0 ? [`without ${missing.join(', ')}`] : []),
    ...(note ? [quoted(note)] : [])
  ]
}
