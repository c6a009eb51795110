import { readHead } from '../backup-head.js'
import { backupText } from '../backup-text.js'
import { type Command, checkBackupId } from '../command.js'
import { EXIT } from '../errors.js'

export const status: Command = {
  summary: 'how a backup is',
  usage: '<id>',
  help: 'Ends with 1 when the backup has failed.',
  options: {},
  arguments: [1, 1],
  check: ([id]) => checkBackupId(id),
  async run({ client }, [id]) {
    const head = await readHead(client, id)
    return { result: head, text: backupText(head), exitCode: head.error ? EXIT.failed : EXIT.ok }
  }
}
