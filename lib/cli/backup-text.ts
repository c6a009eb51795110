import type { BackupHead } from './backup-head.js'
import type { Outcome } from './command.js'
import { EXIT } from './errors.js'
import { count, duration } from './format.js'

export const backupOutcome = (head: BackupHead): Outcome => ({
  result: head,
  text: backupText(head),
  warning: warningOf(head),
  exitCode: head.error ? EXIT.failed : EXIT.ok
})

/** Tells the state of a backup in a line. */
export function backupText(head: BackupHead): string {
  const { id, start_timestamp: began, end_timestamp: ended } = head
  if (head.in_progress) return `${id} ${progressText(head)}`
  if (head.error) return `${id} failed: ${head.error}`
  const took = began !== undefined && ended !== undefined ? `, in ${duration(ended - began)}` : ''
  return `${id} complete: ${count(head.doc_count, 'document')}${took}`
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

function unreadableWarning({ unreadable_count: unreadable = 0 }: BackupHead): string | null {
  if (unreadable === 0) return null
  return `warning: the backup lacks ${count(unreadable, 'document')} that could not be read; get names them as "unreadable"`
}

/** Tells how far a running backup is. The number of documents to come is unknown. */
export function progressText({ doc_count: documents, dbs = {} }: BackupHead): string {
  const finished = Object.keys(dbs)
  const done = finished.length > 0 ? `; finished: ${finished.join(', ')}` : ''
  return `in progress: ${count(documents, 'document')}${done}`
}
