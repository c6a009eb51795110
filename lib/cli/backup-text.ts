import type { BackupHead } from './backup-head.js'
import type { Outcome } from './command.js'
import { EXIT } from './errors.js'

export const backupOutcome = (head: BackupHead): Outcome => ({
  result: head,
  text: backupText(head),
  warning: warningOf(head),
  exitCode: head.error ? EXIT.failed : EXIT.ok
})

function backupText(head: BackupHead): string {
  const { id, elapsed } = head
  if (head.in_progress) return `${id} ${progressText(head)}`
  if (head.error) return `${id} failed: ${head.error}`
  return `${id} complete: ${head.doc_count} documents${elapsed ? `, in ${elapsed}` : ''}`
}

/** Returns warnings about a backup; `null` for none. */
function warningOf(head: BackupHead): string | null {
  const warnings = head.in_progress ? [] : [missingWarning(head), unreadableWarning(head)]
  return warnings.filter((warning) => warning !== null).join('\n') || null
}

function missingWarning({ missing_databases: missing = [] }: BackupHead): string | null {
  if (missing.length === 0) return null
  return `warning: the backup holds nothing of ${missing.join(', ')}: no such database; is the name in the server's configuration right?`
}

function unreadableWarning({ unreadable_count: count = 0 }: BackupHead): string | null {
  if (count === 0) return null
  const documents = count === 1 ? '1 document' : `${count} documents`
  return `warning: the backup lacks ${documents} that could not be read; get names them as "unreadable"`
}

/** Tells how far a running backup is. The number of documents to come is unknown. */
export function progressText({ doc_count: documents, dbs = {} }: BackupHead): string {
  const finished = Object.keys(dbs)
  const done = finished.length > 0 ? `; finished: ${finished.join(', ')}` : ''
  return `in progress: ${documents} documents${done}`
}
