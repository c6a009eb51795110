import { readSkipList } from '../../json/read-skip-list.js'
import { atOnce } from '../../waits/steps.js'
import { uploadOf } from '../backup-file.js'
import { readHead } from '../backup-head.js'
import { checkBackupId, LATEST, resolveBackupId } from '../backup-id.js'
import type { Call } from '../client.js'
import type { Command, Context, Values } from '../command.js'
import { confirm } from '../confirm.js'
import { usageError } from '../errors.js'
import { previewBackup, previewFile, type Skip } from '../preview.js'
import { followTransaction, transactionId, transactionOutcome } from '../transaction.js'

export const restore: Command = {
  summary: 'restore a stored backup, or one in a file',
  usage: '<id> | --file FILE',
  help: `  --file FILE                restore the backup in FILE. gzip is sent as it is,
                             after a look at all of it. The server's limit on
                             uploads holds for what it inflates to, too
  --skip-system ID           leave this document of the system database alone;
                             may be repeated, or be several with commas between
                             them. One that has a comma goes in a JSON array.
  --skip-components ID       the same for the components database
  --client-webhook-url URL   receives a POST when the restore has ended
  -n, --dry-run              name the documents that would be created or
                             changed, and write nothing. Needs the operator's
                             routes
  --wait                     follow the restore to its end; ends with 1 when
                             it failed, naming documents not restored. Names
                             ids to skip that no document has, and documents
                             with the console's settings that were changed.
                             An interrupt ends the waiting, not the restore.
  -y, --yes                  do not ask

Asks for the server's host to be typed, since documents are overwritten. Warns
before it begins, unless --skip-system names 00_settings_athena: with the
settings of another console this one would use that one's databases and keys.`,
  options: {
    file: { type: 'string' },
    'skip-system': { type: 'string', multiple: true },
    'skip-components': { type: 'string', multiple: true },
    'client-webhook-url': { type: 'string' },
    wait: { type: 'boolean' },
    yes: { type: 'boolean', short: 'y' },
    'dry-run': { type: 'boolean', short: 'n' }
  },
  arguments: [0, 1],
  completes: { arguments: [LATEST], values: { file: 'file' } },
  check([id], values) {
    if ((id === undefined) === (values.file === undefined)) {
      throw usageError('restore takes either the id of a backup or --file')
    }
    if (id !== undefined) checkBackupId(id)
    for (const option of ['wait', 'client-webhook-url'])
      if (values['dry-run'] && values[option]) throw usageError(`--${option} cannot be used with --dry-run`)
    for (const option of SKIP_OPTIONS) idsOf(option, values)
  },
  async run(context, [given], values) {
    const { client, progress } = context
    const id = given === undefined ? undefined : await resolveBackupId(context, given)
    if (values['dry-run'])
      return id === undefined
        ? previewFile(context, String(values.file), skipOf(values), values.json === true)
        : previewBackup(context, id, skipOf(values), values.json === true)
    const call = await callOf(context, id, values)
    const warning = settingsWarning(values)
    if (values.yes) context.stderr.write(warning)
    else {
      const what = `Restoring ${id ?? values.file} overwrites documents of the databases of ${client.host}.`
      await confirm(context, `${what}\n${warning}`.trimEnd())
    }
    // Asked for before the restore begins, so that a failure leaves nothing behind.
    const asksTotal = id !== undefined && values.wait && progress.isShown
    const total = asksTotal ? (await readHead(client, id)).doc_count : undefined
    const { url } = await client.json<{ url?: string }>(call, { idempotent: false })
    progress.clear()
    const txId = transactionId(url)
    if (!values.wait) return { result: { tx_id: txId, url }, text: txId }
    progress.note(`${txId} started`)
    const transaction = await followTransaction(client, txId, progress, total)
    return transactionOutcome(txId, transaction)
  }
}

/** Returns the ids to be left alone, by database. */
const skipOf = (values: Values): Skip => ({
  system: idsOf('skip-system', values) ?? [],
  components: idsOf('skip-components', values) ?? []
})

async function callOf({ progress }: Context, id: string | undefined, values: Values): Promise<Call> {
  const url = values['client-webhook-url'] as string | undefined
  const query: Record<string, string> = {}
  for (const option of SKIP_OPTIONS) {
    const ids = idsOf(option, values)
    if (ids) query[option.replace('-', '_')] = JSON.stringify(ids)
  }
  if (id !== undefined)
    return { method: 'PUT', path: ['backups', id], query, json: { client_webhook_url: url } }
  const file = String(values.file)
  const upload = await uploadOf(file, url, (done, total) => progress.transfer(file, done, total))
  return { method: 'PUT', path: ['backups'], query, ...upload }
}

const SKIP_OPTIONS = ['skip-system', 'skip-components'] as const

/** The default settings document of consoles: no route tells `settingsDocuments`. */
const SETTINGS = '00_settings_athena'

/** Warns that a restore overwrites the console's settings; empty when they are skipped. */
function settingsWarning(values: Values): string {
  if (idsOf('skip-system', values)?.includes(SETTINGS)) return ''
  return `warning: where the backup has other settings of the console, they take the place of this console's: its names,
addresses and keys. --skip-system ${SETTINGS} leaves them alone.
`
}

/** Returns the ids that an option names; `undefined` without it. @throws CliError */
function idsOf(option: (typeof SKIP_OPTIONS)[number], values: Values): string[] | undefined {
  const given = values[option] as string[] | undefined
  return given?.flatMap((text) => {
    const list = atOnce(readSkipList(text))
    if (list) return list
    throw usageError(`--${option} must be the id of a document, or ids with commas between them`)
  })
}
