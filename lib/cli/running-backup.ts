import { type BackupHead, readHead } from './backup-head.js'
import { progressText } from './backup-text.js'
import type { Client } from './client.js'
import { CliError } from './errors.js'
import { follow } from './follow.js'
import type { Progress } from './progress.js'

/** Earlier backups that are looked at for one that tells how many documents to expect. */
const LOOKED_AT = 3

/** Waits for the end of a backup, and shows its progress. @returns its head @throws CliError */
export async function followBackup(client: Client, id: string, progress: Progress): Promise<BackupHead> {
  return follow(client, { what: 'backup', id }, async () => {
    const expected = progress.isShown ? await expectedDocuments(client, id) : undefined
    return client.poll(async () => {
      const head = await readHead(client, id)
      if (!head.in_progress) return head
      if (expected) progress.documents(head.doc_count, expected, { about: true })
      else progress.state(progressText(head))
      return undefined
    })
  })
}

/** Returns how many documents the last complete backup before `id` has; `undefined` where none tells. */
async function expectedDocuments(client: Client, id: string): Promise<number | undefined> {
  try {
    const { ids } = await client.json<{ ids: string[] }>({ path: ['backups'] }, { idempotent: true })
    const earlier = ids.slice(0, Math.max(0, ids.indexOf(id))).slice(-LOOKED_AT)
    for (const before of earlier.reverse()) {
      const { in_progress, error, doc_count } = await readHead(client, before)
      if (!in_progress && !error) return doc_count
    }
  } catch (error) {
    // This loses only a progress bar.
    if (!(error instanceof CliError)) throw error
  }
  return undefined
}
