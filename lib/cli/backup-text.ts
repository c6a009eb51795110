import type { BackupHead } from './backup-head.js'
import type { Outcome } from './command.js'
import { EXIT } from './errors.js'

/** What a command that shows a backup says in the end. */
export const backupOutcome = (head: BackupHead): Outcome => ({
  result: head,
  text: backupText(head),
  warning: warningOf(head),
  exitCode: head.error ? EXIT.failed : EXIT.ok
})

/** What a backup is, for people. */
function backupText(head: BackupHead): string {
  const { id, elapsed } = head
  if (head.in_progress) return `${id} ${progressText(head)}`
  if (head.error) return `${id} failed: ${head.error}`
  return `${id} complete: ${head.doc_count} documents${elapsed ? `, in ${elapsed}` : ''}`
}

function warningOf({
  in_progress,
  missing_databases: missing = [],
  unreadable_count: unreadable = 0
}: BackupHead): string | null {
  if (in_progress) return null
  const lines: string[] = []
  if (missing.length > 0)
    lines.push(
      `warning: the backup holds nothing of ${missing.join(', ')}: no such database; is the name in the server's configuration right?`
    )
  if (unreadable > 0) {
    const documents = unreadable === 1 ? '1 document' : `${unreadable} documents`
    lines.push(
      `warning: the backup lacks ${documents} that could not be read; get names them as "unreadable"`
    )
  }
  return lines.join('\n') || null
}

/** How far a running backup is. Nobody knows how many documents there will be. */
export function progressText({ doc_count: documents, dbs = {} }: BackupHead): string {
  const finished = Object.keys(dbs)
  const done = finished.length > 0 ? `; finished: ${finished.join(', ')}` : ''
  return `in progress: ${documents} documents${done}`
}
