import type { BackupHead } from './backup-head.js'

/** What a backup is, for people. */
export function backupText(head: BackupHead): string {
  const { id, elapsed } = head
  if (head.in_progress) return `${id} ${progressText(head)}`
  if (head.error) return `${id} failed: ${head.error}`
  return `${id} complete: ${head.doc_count} documents${elapsed ? `, in ${elapsed}` : ''}`
}

/** How far a running backup is. Nobody knows how many documents there will be. */
export function progressText({ doc_count: documents, dbs = {} }: BackupHead): string {
  const finished = Object.keys(dbs)
  const done = finished.length > 0 ? `; finished: ${finished.join(', ')}` : ''
  return `in progress: ${documents} documents${done}`
}
