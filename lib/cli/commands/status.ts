import { readHead } from '../backup-head.js'
import { checkBackupId, LATEST, resolveBackupId } from '../backup-id.js'
import { backupOutcome } from '../backup-text.js'
import type { Command, Context, Outcome } from '../command.js'
import { followBackup } from '../running-backup.js'
import { followTransaction, isTransactionId, readTransaction, transactionOutcome } from '../transaction.js'

export const status: Command = {
  summary: 'show the state of a backup or a restore',
  usage: '<id> [--wait]',
  help: `  --wait       follow the backup or the restore to its end

<id> is the id of a backup, or of the transaction of a restore. Ends with 1
when the backup or the restore has failed. Documents that could not be read are
counted on stderr.`,
  options: { wait: { type: 'boolean' } },
  arguments: [1, 1],
  completes: { arguments: [LATEST] },
  check([id]) {
    if (!isTransactionId(id)) checkBackupId(id)
  },
  async run(context, [given], { wait }) {
    if (isTransactionId(given)) return restoreStatus(context, given, wait === true)
    const id = await resolveBackupId(context, given)
    const { client, progress } = context
    return backupOutcome(wait ? await followBackup(client, id, progress) : await readHead(client, id))
  }
}

async function restoreStatus({ client, progress }: Context, id: string, wait: boolean): Promise<Outcome> {
  const transaction = wait ? await followTransaction(client, id, progress) : await readTransaction(client, id)
  return transactionOutcome(id, transaction)
}
