import type { LogicalDatabase } from '../../types/databases.js'
import type { CouchDatabase } from '../couch/database.js'
import { BACKUP_TYPE, isOwnDocument, TRANSACTION_TYPE } from '../own-documents.js'
import type { ReportOptions, RestoreReport } from './restore-report.js'
import { COMPARE_BATCH, type IsOwn, TargetView } from './target.js'

/** Documents of a page that are looked at though their ids are not those of the plugin's own: transactions have any. */
const MOST_OTHER_IDS = 20

export interface SafetyOptions extends Pick<ReportOptions, 'onPhase'> {
  /** Makes a backup before anything is written, and returns its id. Absent where none is to be made. */
  backUpFirst?: () => Promise<string>
  targets: Record<LogicalDatabase, CouchDatabase>
  /** Tells whether a target may hold documents of the plugin itself. */
  holdsOwn: (target: CouchDatabase) => boolean
}

/** Makes a backup, if one is to be made, unless these databases hold nothing that a restore could overwrite. */
export async function makeSafetyBackup(
  databases: readonly LogicalDatabase[],
  options: SafetyOptions,
  report: RestoreReport
): Promise<void> {
  const { backUpFirst, onPhase } = options
  const startedAt = performance.now()
  if (!backUpFirst || !(await holdsAny(databases, options))) return
  await report.beginSafetyBackup()
  const id = await backUpFirst()
  await report.addSafetyBackup(id)
  onPhase({
    type: 'restore_safety_backup_made',
    safety_backup: id,
    durationMs: performance.now() - startedAt
  })
}

async function holdsAny(
  databases: readonly LogicalDatabase[],
  { targets, holdsOwn }: Pick<SafetyOptions, 'targets' | 'holdsOwn'>
): Promise<boolean> {
  for (const database of databases) {
    const target = targets[database]
    const mayHoldOwn = holdsOwn(target)
    // The restore's own transaction is there already.
    const isOwn: IsOwn = (id, type) => mayHoldOwn && (type === TRANSACTION_TYPE || isOwnDocument(id, type))
    if (await holdsDocuments(target, isOwn)) return true
  }
  return false
}

/** Returns whether a database has documents, but for the plugin's own. @throws CouchError */
async function holdsDocuments(db: CouchDatabase, isOwn: IsOwn): Promise<boolean> {
  const view = await TargetView.find(db, isOwn)
  if (!view) return false
  // A replica that lags may lack all documents.
  if (view.replicas !== 'agree') return true
  for await (const rows of view.rows('revision')) {
    const ids = rows.map(({ id }) => id)
    const others = ids.filter((id) => !isOwn(id, BACKUP_TYPE))
    if (others.length > MOST_OTHER_IDS || (await anyOther(view, ids))) return true
  }
  return false
}

async function anyOther(view: TargetView, ids: readonly string[]): Promise<boolean> {
  for (let i = 0; i < ids.length; i += COMPARE_BATCH) {
    for await (const { state } of view.current(ids.slice(i, i + COMPARE_BATCH)))
      if (state === 'live' || state === 'unreadable') return true
  }
  return false
}
