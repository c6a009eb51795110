import { checkBackupId, LATEST, resolveBackupId } from '../backup-id.js'
import { type Change, ChangeList } from '../change-list.js'
import type { Command } from '../command.js'
import { readLines } from '../operator.js'

/** The databases as they are. */
const NOW = 'now'

export const diff: Command = {
  summary: 'show which documents differ from a backup',
  usage: '<id> [<id>|now] [--values]',
  help: `  --values     also the values of the members that differ

Compares the backup with another one, or with the databases as they are (now,
the default). "created" is not in the first backup, "deleted" only there. Prints
one document a line with the names of the members that differ, and how many
there are to stderr. Needs the operator's routes.`,
  options: { values: { type: 'boolean' } },
  arguments: [1, 2],
  completes: { arguments: [LATEST, NOW] },
  check([id, against = NOW]) {
    checkBackupId(id)
    if (against !== NOW) checkBackupId(against)
  },
  async run(context, [first, second = NOW], { values, json }) {
    const id = await resolveBackupId(context, first)
    const against = second === NOW ? NOW : await resolveBackupId(context, second)
    const changes = new ChangeList(context, json === true, { id, against })
    const query = { against, ...(values && { values: 'true' }) }
    try {
      context.progress.state(`comparing ${id} with ${against}`)
      await readLines(context.client, { path: ['backups', id, 'diff'], query }, 'end', (line) =>
        changes.add(line as unknown as Change)
      )
    } catch (error) {
      return await changes.fail(error)
    }
    await changes.end({ count: changes.count })
    return { result: null, text: null, note: `${id} and ${against} differ in ${changes.text}` }
  }
}
