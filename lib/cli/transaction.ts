import type { DatabaseRestoreCounts, RestoreOutcome } from '../../types/backups.js'
import type { WebhookTransaction } from '../../types/webhooks.js'
import type { Client } from './client.js'
import type { Outcome } from './command.js'
import { CliError, EXIT } from './errors.js'
import { follow } from './follow.js'
import { count, number } from './format.js'
import type { Progress } from './progress.js'
import { quoted } from './text.js'

/** The host's transaction: a host's own store may omit members. */
export type Transaction = Partial<WebhookTransaction>

/** Returns only the id in a transaction's URL: credentials go nowhere but to `BACKUPS_URL`. */
export function transactionId(url: unknown): string {
  const id = /\/webhooks\/txs\/([\w-]+)$/.exec(String(url))?.[1]
  if (id === undefined) throw new CliError('the reply does not name the transaction of the restore')
  return id
}

/** Tells ids of transactions from those of backups. */
export const isTransactionId = (id: string): boolean => /^[0-9a-f]{32}$/.test(id)

/** @throws CliError when what comes is not a transaction */
export async function readTransaction(client: Client, id: string): Promise<Transaction> {
  const call = { path: ['webhooks', 'txs', id] }
  const transaction = await client.json<Transaction>(call, { idempotent: true })
  if (!['pending', 'success', 'error'].includes(String(transaction.status)))
    throw new CliError(`transaction ${id} has no status`)
  return transaction
}

/**
 * Waits for the end of a restore, and shows its progress.
 * @param total documents of the backup, where they are known
 */
export async function followTransaction(
  client: Client,
  id: string,
  progress: Progress,
  total?: number
): Promise<Transaction> {
  let told = 0
  return follow(client, { what: 'restore', id }, () =>
    client.poll(async () => {
      const transaction = await readTransaction(client, id)
      const { status, athena_messages: messages = [] } = transaction
      for (; told < messages.length; told++) progress.note(messages[told])
      if (status !== 'pending') return transaction
      showProgress(transaction, progress, total)
      return undefined
    })
  )
}

/** Shows the documents of all databases where their number is known, and else of the database at hand. */
function showProgress(
  { databases = {}, athena_messages: messages = [] }: Transaction,
  progress: Progress,
  total?: number
) {
  const counts = Object.entries(databases)
  const last = counts.at(-1)
  if (!last) return progress.state(messages.at(-1) ?? 'restoring')
  if (!total) return progress.documents(doneOf(last[1]), last[1].total, { of: last[0] })
  return progress.documents(
    counts.reduce((sum, [, one]) => sum + doneOf(one), 0),
    total
  )
}

const doneOf = ({ created, changed, unchanged, skipped, failed }: DatabaseRestoreCounts): number =>
  created + changed + unchanged + skipped + failed

/** Tells how a restore ended, or how far it is. */
export function transactionOutcome(id: string, transaction: Transaction): Outcome {
  return {
    result: transaction,
    text: transactionText({ ...transaction, tx_id: id }),
    warning: (unknownText(transaction) + settingsText(transaction)).trimEnd(),
    exitCode: transaction.status === 'error' ? EXIT.failed : EXIT.ok
  }
}

/** Tells which ids of the skip lists no document has; empty for none. */
export function unknownText({ skip_unknown: unknown = {} }: Pick<RestoreOutcome, 'skip_unknown'>): string {
  let text = ''
  for (const [database, { count: all, ids }] of Object.entries(unknown)) {
    const more = all > ids.length ? `, and ${number(all - ids.length)} more` : ''
    const named = ids.map(quoted).join(', ')
    text += `warning: ids to skip are of no document of ${database}: ${named}${more}\n`
  }
  return text
}

/** Names the settings documents that a restore has changed; empty for none. */
function settingsText({ settings_documents: changed = [] }: Transaction): string {
  let text = ''
  for (const { id, change } of changed)
    text += `warning: the settings document "${id}" of system was ${change}: its names, addresses and keys count for this console\n`
  return text
}

function transactionText(transaction: Transaction): string {
  const { tx_id, status, databases = {}, failures = [], athena_messages: messages = [] } = transaction
  const head = `${tx_id} ${stateText(status, messages.at(-1))}`
  return [head, ...countLines({ databases, failures })].join('\n')
}

/** Tells what was done to each database, and what was not. */
export function countLines({
  databases,
  failures
}: Required<Pick<Transaction, 'databases' | 'failures'>>): string[] {
  const lines: string[] = []
  for (const [database, { total, ...counts }] of Object.entries(databases)) {
    const parts = Object.entries(counts).filter(([, counted]) => counted > 0)
    const told = parts.map(([what, counted]) => `${number(counted)} ${what}`).join(', ')
    lines.push(`  ${database}: ${count(total, 'document')}${told ? `: ${told}` : ''}`)
  }
  for (const { database, id, error, reason } of failures)
    lines.push(`  ${database} ${quoted(id)}: ${error}, ${reason}`)
  return lines
}

function stateText(status: Transaction['status'], message: string | undefined): string {
  if (status === 'pending') return `in progress${message ? `: ${message}` : ''}`
  return status === 'success' ? 'restored' : `failed: ${message ?? 'no reason told'}`
}
