import { listText, newestBackups } from '../backup-list.js'
import type { Command, Values } from '../command.js'
import { usageError } from '../errors.js'
import { count } from '../format.js'

/** Most backups that the operator's routes tell of. */
const MOST = 1000

export const list: Command = {
  summary: 'list the backups, oldest first',
  usage: '[--long]',
  help: `  -l, --long     the table also where stdout is not a terminal; with --json
                 also what is known of each backup
  -n, --limit N  rows of the table: the newest (default 25)

On a terminal a table, in a pipe the ids of all backups. A host without the
operator's routes tells no sizes.`,
  options: {
    long: { type: 'boolean', short: 'l' },
    limit: { type: 'string', short: 'n', default: '25' }
  },
  arguments: [0, 0],
  check: (_args, values) => void limitOf(values),
  async run({ client, stdout }, _args, values) {
    if (!values.long && (values.json || !stdout.isTTY)) {
      const { ids } = await client.json<{ ids: string[] }>({ path: ['backups'] }, { idempotent: true })
      return { result: { ids }, text: ids.join('\n') }
    }
    const { total, backups } = await newestBackups(client, limitOf(values))
    const older = total - backups.length
    return {
      result: { total, ids: backups.map(({ id }) => id), backups },
      text: backups.length > 0 ? listText(backups) : null,
      note: backups.length === 0 ? 'there are no backups: "start" makes one' : olderText(older, total)
    }
  }
}

const olderText = (older: number, total: number) =>
  older > 0 ? `${count(older, 'older backup')}: --limit ${Math.min(total, MOST)} shows them` : undefined

function limitOf({ limit }: Values): number {
  const number = Number(limit)
  if (/^\d+$/.test(String(limit)) && number >= 1 && number <= MOST) return number
  throw usageError(`--limit must be a number, 1 to ${MOST}`)
}
