import type { RestoreOutcome } from '../../types/backups.js'
import { textUploadOf } from './backup-file.js'
import { type Change, ChangeList } from './change-list.js'
import type { Context, Outcome } from './command.js'
import { EXIT } from './errors.js'
import { count } from './format.js'
import { readLines } from './operator.js'
import { quoted } from './text.js'
import { countLines, followTransaction, type Transaction, unknownText } from './transaction.js'

/** Ids of documents to leave alone, by database. */
export type Skip = Record<'system' | 'components', string[]>

/** Writes which documents a restore of a stored backup would change, all of them. @throws CliError */
export async function previewBackup(
  context: Context,
  id: string,
  skip: Skip,
  json: boolean
): Promise<Outcome> {
  const changes = new ChangeList(context, json, { id })
  const call = { method: 'POST', path: ['backups', id, 'preview'], json: { skip } } as const
  context.progress.state(`comparing ${id} with the databases`)
  try {
    const { outcome } = await readLines(context.client, call, 'outcome', (line) =>
      changes.add(line as unknown as Change)
    )
    return await conclude(changes, outcome as RestoreOutcome)
  } catch (error) {
    return await changes.fail(error)
  }
}

/** Writes which documents a restore of a file would change: the first hundred, as its transaction tells. @throws CliError */
export async function previewFile(
  context: Context,
  path: string,
  skip: Skip,
  json: boolean
): Promise<Outcome> {
  const { client, progress } = context
  const upload = await textUploadOf(path, (done, total) => progress.transfer(path, done, total))
  const query = { skip_system: skip.system, skip_components: skip.components }
  const call = { method: 'PUT', operator: true, path: ['preview'], query, ...upload } as const
  const { tx_id: txId } = await client.json<{ tx_id: string }>(call, { idempotent: false })
  progress.clear()
  const transaction = await followTransaction(client, txId, progress)
  const changes = new ChangeList(context, json, { file: path })
  for (const change of transaction.changes ?? []) await changes.add(change)
  return conclude(changes, transaction)
}

type RestoreEnd = Pick<
  Transaction,
  | 'status'
  | 'databases'
  | 'failures'
  | 'settings_documents'
  | 'skip_unknown'
  | 'changes_count'
  | 'athena_messages'
>

async function conclude(changes: ChangeList, told: RestoreEnd): Promise<Outcome> {
  const { databases = {}, failures = [], settings_documents: settings = [], status, changes_count } = told
  const unnamed = Math.max(0, (changes_count ?? changes.count) - changes.count)
  // The first changes stand in the outcome as well.
  await changes.end({ count: changes.count + unnamed, outcome: { ...told, changes: undefined } })
  const failed = status === 'error' || Object.values(databases).some(({ failed }) => failed > 0)
  const lines = [
    `a restore would change ${changes.text}${unnamed > 0 ? `, and ${count(unnamed, 'document')} more` : ''}`,
    ...countLines({ databases, failures }),
    ...(status === 'error' ? [`failed: ${told.athena_messages?.at(-1) ?? 'no reason told'}`] : [])
  ]
  const warnings = settings.map(
    ({ id, change }) =>
      `warning: the settings document ${quoted(id)} of system would be ${change}: --skip-system leaves it alone, unless the backup is of this console\n`
  )
  return {
    result: null,
    text: null,
    note: lines.join('\n'),
    warning: (unknownText(told) + warnings.join('')).trimEnd(),
    exitCode: failed ? EXIT.failed : EXIT.ok
  }
}
