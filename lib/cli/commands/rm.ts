import type { PruneDecision, RemovedBackups } from '../../../types/backups.js'
import { checkBackupId, LATEST, resolveBackupId } from '../backup-id.js'
import type { Command } from '../command.js'
import { confirm } from '../confirm.js'
import { bytes } from '../format.js'

export const rm: Command = {
  summary: 'remove backups',
  usage: '<id>... [--yes]',
  help: `  -y, --yes    do not ask

Asks for the server's host to be typed. What other backups share of it stays.
The newest good backup cannot be removed. Needs the operator's routes.`,
  options: { yes: { type: 'boolean', short: 'y' } },
  arguments: [1, Number.POSITIVE_INFINITY],
  completes: { arguments: [LATEST] },
  check: (ids) => ids.forEach(checkBackupId),
  async run(context, given, { yes }) {
    const { client, progress } = context
    const ids: string[] = []
    for (const id of given) ids.push(await resolveBackupId(context, id))
    if (!yes) {
      const what = `This removes from ${client.host} for good:\n${ids.map((id) => `  ${id}`).join('\n')}`
      await confirm(context, what, 'nothing was removed')
    }
    const removed: PruneDecision[] = []
    let freed = 0
    for (const id of new Set(ids)) {
      progress.state(`removing ${id}`)
      const call = { method: 'DELETE', operator: true, path: ['backups', id] } as const
      const outcome = await client.json<RemovedBackups>(call, { idempotent: false })
      progress.clear()
      // Told one by one: a failure of the next one leaves this one removed.
      progress.note(`${id} removed`)
      removed.push(...outcome.removed)
      freed += outcome.freed_bytes
    }
    return {
      result: { removed, freed_bytes: freed },
      text: removed.map(({ id }) => `${id} removed`).join('\n'),
      note: `${bytes(freed)} freed`
    }
  }
}
