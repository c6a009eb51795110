import { backupOutcome, backupText } from '../backup-text.js'
import type { Command } from '../command.js'
import { followBackup } from '../running-backup.js'

export const start: Command = {
  summary: 'start a backup',
  usage: '[--wait]',
  help: `  --wait       follow the backup to its end; ends with 1 when it failed. An
               interrupt ends the waiting, not the backup. Documents that could
               not be read are counted on stderr; the backup of all others is
               complete, so the end is 0.

Prints the id of the backup to stdout, and all else to stderr.`,
  options: { wait: { type: 'boolean' } },
  arguments: [0, 0],
  async run({ client, progress }, _args, { wait }) {
    const call = { method: 'POST', path: ['backups'] } as const
    const { id, url } = await client.json<{ id: string; url: string }>(call, { idempotent: false })
    if (!wait) return { result: { id, url }, text: id }
    progress.note(`${id} started`)
    const head = await followBackup(client, id, progress)
    return { ...backupOutcome(head), text: id, note: backupText(head) }
  }
}
