import { readHead } from '../backup-head.js'
import { backupOutcome } from '../backup-text.js'
import { type Command, checkBackupId } from '../command.js'

export const status: Command = {
  summary: 'how a backup is',
  usage: '<id>',
  help: `Ends with 1 when the backup has failed. Documents that could not be read are
counted on stderr.`,
  options: {},
  arguments: [1, 1],
  check: ([id]) => checkBackupId(id),
  async run({ client }, [id]) {
    return backupOutcome(await readHead(client, id))
  }
}
