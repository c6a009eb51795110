import type { WebhookTransaction } from '../../types/webhooks.js'
import type { Client } from './client.js'
import { CliError } from './errors.js'
import { count, number } from './format.js'
import type { Progress } from './progress.js'

/** The host's transaction: a host's own store may omit members. */
export type Transaction = Partial<WebhookTransaction>

/** Returns only the id in a transaction's URL: credentials go nowhere but to `BACKUPS_URL`. */
export function transactionId(url: unknown): string {
  const id = /\/webhooks\/txs\/([\w-]+)$/.exec(String(url))?.[1]
  if (id === undefined) throw new CliError('the reply does not name the transaction of the restore')
  return id
}

export async function followTransaction(
  client: Client,
  id: string,
  progress: Progress
): Promise<Transaction> {
  let told = 0
  return client.poll(async () => {
    const call = { path: ['webhooks', 'txs', id] }
    const transaction = await client.json<Transaction>(call, { idempotent: true })
    const { status, on_step: step = 0, total_steps: steps = 1, athena_messages: messages = [] } = transaction
    if (status !== 'pending' && status !== 'success' && status !== 'error') {
      throw new CliError(`transaction ${id} has no status`)
    }
    for (; told < messages.length; told++) progress.note(messages[told])
    if (status !== 'pending') return transaction
    progress.steps(messages.at(-1) ?? 'restoring', step, steps)
    return undefined
  })
}

/** Tells which ids of the skip lists no document has; empty for none. */
export function unknownText({ skip_unknown: unknown = {} }: Transaction): string {
  let text = ''
  for (const [database, { count: all, ids }] of Object.entries(unknown)) {
    const more = all > ids.length ? `, and ${number(all - ids.length)} more` : ''
    const named = ids.map((id) => `"${id}"`).join(', ')
    text += `warning: ids to skip are of no document of ${database}: ${named}${more}\n`
  }
  return text
}

/** Names the settings documents that a restore has changed; empty for none. */
export function settingsText({ settings_documents: changed = [] }: Transaction): string {
  let text = ''
  for (const { id, change } of changed)
    text += `warning: the settings document "${id}" of system was ${change}: its names, addresses and keys count for this console\n`
  return text
}

export function transactionText(transaction: Transaction): string {
  const { tx_id, status, databases = {}, failures = [], athena_messages: messages = [] } = transaction
  const ended = status === 'success' ? 'restored' : `failed: ${messages.at(-1) ?? 'no reason told'}`
  const lines = [`${tx_id} ${ended}`]
  for (const [database, { total, ...counts }] of Object.entries(databases)) {
    const parts = Object.entries(counts).filter(([, counted]) => counted > 0)
    const told = parts.map(([what, counted]) => `${number(counted)} ${what}`).join(', ')
    lines.push(`  ${database}: ${count(total, 'document')}${told ? `: ${told}` : ''}`)
  }
  for (const { database, id, error, reason } of failures)
    lines.push(`  ${database} "${id}": ${error}, ${reason}`)
  return lines.join('\n')
}
